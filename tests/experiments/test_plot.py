"""``python -m experiments.plot``."""

import numpy as np
import pytest
from matplotlib import image

from experiments.launch.check import ConfigError
from experiments.tables import curves

SIZE = 330, 462  # pixels of one panel of several
ALONE = 462, 693


def train(command, tiny, *arguments):
    assert command("train", *tiny, "total_steps=160", *arguments).code == 0


def coloured(picture):
    """Share of pixels that are neither white, grey nor black."""
    return float((np.ptp(picture[..., :3], axis=-1) > 0.1).mean())


def test_one_panel_for_each_environment(command, tiny, cwd):
    for seed in (1, 2):
        train(command, tiny, "env=t_maze", f"seed={seed}", f"run_dir=sweep/{seed}")
    train(command, tiny, "env=copy_sequence", "run_dir=other")

    ended = command("plot", "runs=[sweep]", "output=one.png")
    assert (ended.code, ended.err) == (0, "") and "2 runs -> one.png" in ended.out
    picture = image.imread("one.png")
    assert picture.shape[:2] == ALONE
    assert coloured(picture) > 0.002

    ended = command("plot", "runs=[sweep/1,sweep/2,other]", "output=deep/two.png", "tag=losses/value_loss")
    assert ended.code == 0 and "3 runs -> deep/two.png" in ended.out
    picture = image.imread("deep/two.png")
    assert picture.shape[:2] == (SIZE[0], 2 * SIZE[1])
    assert all(coloured(half) > 0.002 for half in np.split(picture, 2, axis=1))
    assert {path.name for path in cwd.iterdir()} == {"sweep", "other", "one.png", "deep"}


def test_labels_and_curve(command, tiny, cwd):
    train(command, tiny, "env=t_maze", "env.length=3", "agent=dual_head_recurrent_ppo", "agent/core=rnn", "run_dir=run")
    assert curves.label_run(cwd / "run") == ("TMaze (length=3)", "DualHeadRecurrentPPO, rnn")
    pupil = "env=t_maze", "env.length=3", "init_from=run", "agent.teacher_kl=0.10", "run_dir=pupil"
    train(command, tiny, "agent=dual_head_recurrent_ppo", "agent/core=rnn", *pupil)
    assert curves.label_run(cwd / "pupil")[1] == "DualHeadRecurrentPPO, rnn, from another run, teacher_kl=0.1"
    steps, values = curves.read_curve(cwd / "run", "losses/policy_loss")
    assert steps.tolist() == list(range(8, 161, 8)) and values.shape == steps.shape
    with pytest.raises(ConfigError, match=r"no tag 'losses/none'; there are .*losses/policy_loss"):
        curves.read_curve(cwd / "run", "losses/none")


def test_band_by_hand():
    """Two seeds, one sampled twice as often and one longer: interpolated, cut to what both have."""
    first = np.array([0, 10, 20]), np.array([0.0, 2.0, 4.0])
    second = np.array([0, 20, 40]), np.array([2.0, 2.0, 9.0])
    steps, mean, half = curves.average([first, second])
    assert steps.tolist() == [0, 10, 20]
    np.testing.assert_allclose(mean, [1.0, 2.0, 3.0])
    # Standard deviation of a pair (n - 1): difference / sqrt(2); of the mean: difference / 2.
    np.testing.assert_allclose(half, [1.96 * 1.0, 0.0, 1.96 * 1.0])


def test_band_of_one_seed_has_no_width():
    steps, mean, half = curves.average([(np.array([5, 6]), np.array([1.0, 3.0]))])
    assert (steps.tolist(), mean.tolist(), half.tolist()) == ([5, 6], [1.0, 3.0], [0.0, 0.0])


def test_draw_level_lines(cwd):
    """Horizontal lines are drawn where they are asked for only."""
    panels = {"a": {"line": [(np.array([0, 10]), np.array([0.0, 1.0]))]}}
    curves.draw(panels, "tag", cwd / "without.png")
    curves.draw(panels, "tag", cwd / "with.png", {"a": {"threshold": 0.5}, "b": {"threshold": 0.2}})
    without, lined = image.imread("without.png"), image.imread("with.png")
    assert without.shape == lined.shape and not np.array_equal(without, lined)

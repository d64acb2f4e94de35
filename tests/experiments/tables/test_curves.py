"""Learning curves: their names, their mean over seeds, their figure."""

import numpy as np
import pytest
from matplotlib import image

from experiments.launch.check import ConfigError
from experiments.tables import curves


def test_labels_and_curve(train_maze, cwd):
    train_maze("total_steps=160", "env.length=3", "agent=dual_head_recurrent_ppo", "agent/core=rnn", "run_dir=run")
    assert curves.label_run(cwd / "run") == ("TMaze (length=3)", "DualHeadRecurrentPPO, rnn")
    pupil = "env.length=3", "init_from=run", "agent.teacher_kl=0.10", "run_dir=pupil"
    train_maze("total_steps=160", "agent=dual_head_recurrent_ppo", "agent/core=rnn", *pupil)
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

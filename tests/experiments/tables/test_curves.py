"""Learning curves: their names, and one grid for several seeds."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments.tables import curves


def test_labels_and_curve(train_maze, cwd):
    train_maze("total_steps=160", "env.length=3", "agent=dual_head_recurrent_ppo", "agent/core=rnn", "run_dir=run")
    assert curves.label_run(cwd / "run") == ("TMaze (length=3)", "DualHeadRecurrentPPO, rnn")
    pupil = "env.length=3", "init_from=run", "agent.teacher_kl=0.10", "run_dir=pupil"
    train_maze("total_steps=160", "agent=dual_head_recurrent_ppo", "agent/core=rnn", *pupil)
    assert curves.label_run(cwd / "pupil")[1] == "DualHeadRecurrentPPO, rnn, from another run, teacher_kl=0.1"
    steps, values = curves.read_curve(cwd / "run", "losses/policy_loss")
    assert steps.tolist() == list(range(8, 161, 8)) and values.shape == steps.shape
    with pytest.raises(curves.NoTagError, match=r"no tag 'losses/none'; there are .*losses/policy_loss"):
        curves.read_curve(cwd / "run", "losses/none")


def test_runs_of_other_settings_are_no_seeds_of_one_line(train_maze, cwd):
    """The fewest settings that tell them apart; the seed and where they ran are none."""
    for name, own in {
        "a": ("seed=1", "agent.learning_rate=1e-3"),
        "b": ("seed=2", "agent.learning_rate=1e-3", "threads=2"),
        "c": ("seed=1", "agent.learning_rate=1e-4", "agent.clip=0.3", "total_steps=16"),
        "d": ("seed=1", "agent.learning_rate=1e-5", "agent.clip=0.3"),
    }.items():
        train_maze("total_steps=8", "env.length=3", *own, f"run_dir={name}")
    labels = curves.label_runs([cwd / name for name in "abcd"])
    assert {task for task, _ in labels.values()} == {"TMaze (length=3)"}
    agent = "RecurrentPPOLSTM, lstm, learning_rate"
    assert [line for _, line in labels.values()] == [
        f"{agent}={rate}" for rate in ("0.001", "0.001", "0.0001", "1e-05")
    ]
    alone = curves.label_runs([cwd / "a", cwd / "b"])
    assert {line for _, line in alone.values()} == {"RecurrentPPOLSTM, lstm"}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([{"agent.clip": 0.2, "num_envs": 4, "seed": 1}] * 2, []),
        ([{"agent.clip": 0.2, "num_envs": 4}, {"agent.clip": 0.2, "num_envs": 8}], ["num_envs"]),
        ([{"agent.clip": 0.2, "agent.new": 1}, {"agent.clip": 0.2}], []),
        ([{"agent.a": a, "agent.b": b} for a in (1, 2) for b in (1, 2, 3)], ["agent.b", "agent.a"]),
    ],
)
def test_as_few_settings_as_tell_runs_apart(settings, names):
    assert curves.tell_apart(settings) == names


def test_how_copies_are_stepped_is_no_part_of_the_task():
    env = {"_target_": "envs.gymnasium_env.make_gymnasium", "id": "CartPole-v1", "action_mask": "ignore"}
    names = {curves.name_task(OmegaConf.create(env | {"vectorization_mode": mode})) for mode in ("sync", "auto")}
    assert names == {"CartPole-v1 (action_mask=ignore)"}


def test_runs_without_a_tag_are_named(train_maze, cwd):
    for name, steps in (("with", 160), ("without", 8)):  # eight steps are too few for an episode to end
        train_maze(f"total_steps={steps}", "env.length=30", f"run_dir={name}")
    folders, tag = [cwd / "without", cwd / "with"], "charts/episodic_return"
    found, lacking = curves.read_curves(folders, tag)
    assert list(found) == [cwd / "with"] and lacking == [cwd / "without"]
    with pytest.raises(curves.NoTagError, match=r"without has no tag 'charts/episodic_return'; there are"):
        curves.read_curves(folders[:1], tag)
    with pytest.raises(curves.NoTagError, match=r"none of 2 runs has it: .*with has no tag 'x'; there are"):
        curves.read_curves(folders, "x")


def test_align_by_hand():
    """Two seeds, one sampled twice as often, one begun earlier and one longer: interpolated where both are."""
    first = np.array([5, 10, 20]), np.array([1.0, 2.0, 4.0])
    second = np.array([0, 20, 40]), np.array([2.0, 2.0, 9.0])
    aligned = curves.align([first, second])
    assert aligned.steps.tolist() == [5, 10, 20]
    assert aligned.values.tolist() == [[1, 2, 4], [2, 2, 2]]
    pieces = [(steps.tolist(), values.tolist()) for steps, values in aligned.rest]
    assert pieces == [([0], [2.0]), ([20, 40], [2.0, 9.0])]


def test_curves_without_a_step_in_common():
    aligned = curves.align([(np.array([1, 2]), np.zeros(2)), (np.array([3, 4]), np.ones(2))])
    assert aligned.steps.tolist() == [] and aligned.values.shape == (2, 0) and aligned.rest == []


def test_long_curves_keep_their_ends():
    steps = np.arange(10_000)
    aligned = curves.align([(steps, steps * 2.0)] * 3)
    assert len(aligned.steps) == curves.MOST_POINTS and aligned.steps[[0, -1]].tolist() == [0, 9999]
    assert np.array_equal(aligned.values[2], aligned.steps * 2.0)

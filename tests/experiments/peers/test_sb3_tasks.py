"""sb3-contrib on a task of this project, where it is installed."""

import json

import numpy as np
import pytest

from experiments.tables.curves import read_curve

pytest.importorskip("sb3_contrib")

TASK = "envs.popgym_tasks.card_streams.{}"
SIZES = ["--num-envs=2", "--total-steps=300", "--evaluate-every=200", "--evaluate-episodes=4", "--final-episodes=4"]


@pytest.fixture(autouse=True)
def few_copies(monkeypatch):
    from experiments.peers import sb3_tasks

    monkeypatch.setattr(sb3_tasks, "EVALUATION_ENVS", 2)


@pytest.mark.parametrize("task", ["RepeatFirst", "Autoencode"])
def test_a_run_leaves_what_one_of_this_project_leaves(task, cwd):
    """One observes a single number, the other several. Rollouts of 2 x 128 steps are whole: 512 for 300."""
    from experiments.peers import sb3_tasks

    (cwd / "run").mkdir()
    (cwd / "run/events.out.tfevents.1.old").write_text("of a run that ended on its way")
    node = {"_target_": TASK.format(task), "level": "easy"}
    sb3_tasks.main(["--folder=run", f"--env={json.dumps(node)}", "--seed=3", *SIZES])
    result = json.loads((cwd / "run/result.json").read_text())
    assert (result["env_steps"], result["total_steps"], result["optimal_return"]) == (512, 300, 1.0)
    assert (
        min(result["eval_return_mean"], result["memory_zeroed_return_mean"]) >= -1.5 and result["training_seconds"] > 0
    )
    steps, values = read_curve(cwd / "run", "eval/episodic_return")
    assert steps.tolist() == [256, 512] and np.isfinite(values).all()
    assert not (cwd / "run/events.out.tfevents.1.old").exists()


@pytest.mark.parametrize(
    ("limit", "reason", "steps"),
    [
        (
            "--threshold=-2",
            "threshold",
            256 + 2,
        ),  # the first evaluation reaches it; the next step tells the library to end
        ("--threshold=2", None, 512),
        ("--max-seconds=1e-9", "max_seconds", 2),
    ],
)
def test_a_run_ends_at_the_bar_or_in_time(limit, reason, steps, cwd):
    from experiments.peers import sb3_tasks

    node = {"_target_": TASK.format("RepeatFirst"), "level": "easy"}
    sb3_tasks.main(["--folder=run", f"--env={json.dumps(node)}", *SIZES, limit])
    result = json.loads((cwd / "run/result.json").read_text())
    assert (result["stop_reason"], result["env_steps"]) == (reason, steps)
    at_bar = reason == "threshold"
    assert result["steps_to_threshold"] == (256 if at_bar else None)
    assert (result["seconds_to_threshold"] is not None) == at_bar
    assert not at_bar or 0 < result["seconds_to_threshold"] <= result["training_seconds"]


def test_settings_are_the_defaults_of_the_library(monkeypatch, tmp_path):
    """Nothing but the extractor of features and the seed is said to it."""
    from experiments.peers import sb3_tasks

    made = []

    class Agent:
        def __init__(self, *arguments, **options):
            made.append((arguments[0], options.keys() - {"device"}, options["policy_kwargs"], arguments[1].num_envs))
            raise InterruptedError

    monkeypatch.setattr(sb3_tasks.sb3_contrib, "RecurrentPPO", Agent)
    node = {"_target_": TASK.format("RepeatFirst"), "level": "easy"}
    settings = {"env": node, "seed": 3, "num_envs": 5, "total_steps": 9}
    with pytest.raises(InterruptedError):
        sb3_tasks.train(settings, tmp_path)
    kwargs = {"features_extractor_class": sb3_tasks.Flat}
    assert made == [("MlpLstmPolicy", {"policy_kwargs", "seed"}, kwargs, 5)]


def test_a_zeroed_memory_is_fresh_in_every_step():
    """Whatever the state that it is handed and whether an episode began."""
    from experiments.peers import sb3_tasks

    calls = []

    class Agent:
        def predict(self, *arguments):
            calls.append(arguments)
            return "actions", "state"

    forgetful = sb3_tasks.Forgetful(Agent())
    found = forgetful.predict("obs", state="old", episode_start=np.array([False, True]), deterministic=True)
    assert found == ("actions", None)
    (((obs, state, starts, greedy)),) = calls
    assert (obs, state, starts.tolist(), greedy) == ("obs", None, [True, True], True)


def test_sizes_are_checked(cwd):
    from experiments.peers import sb3_tasks

    with pytest.raises(ValueError, match="final_episodes=0: it must be a whole number of at least 1"):
        sb3_tasks.main(["--folder=run", "--env={}", "--final-episodes=0"])
    assert not (cwd / "run").exists()

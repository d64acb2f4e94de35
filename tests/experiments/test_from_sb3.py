"""``python -m experiments.from_sb3``: an agent of sb3-contrib in a run folder that the other commands read."""

import shlex

import pytest
from omegaconf import OmegaConf

import rl
from tests.rl.foreign.test_from_sb3 import draw_weights, entry, write_zip  # noqa: F401

CARTPOLE = "env=cartpole_no_velocity"


@pytest.fixture
def model(write_zip):  # noqa: F811
    """The zip of an agent for CartPole without velocities, of rollouts whose length does not divide our default."""
    from envs.classic_control import CartPoleNoVelocity

    envs = CartPoleNoVelocity(1)
    spaces = envs.single_observation_space, envs.single_action_space
    return write_zip(draw_weights(2, 2), *spaces, n_steps=48, batch_size=192)


def test_the_run_folder_is_evaluated_exported_and_trained_on(model, command, cwd):
    ended = command("from_sb3", f"model={model}", CARTPOLE, "run_dir=taken, over")
    assert (ended.code, ended.err) == (0, "")
    assert "after 320 steps" in command("evaluate", "run=taken, over", "episodes=2", "max_steps=20").out
    exported = command("export", "run=taken, over", "output=policy.pt2", "steps=5")
    assert (exported.code, exported.err) == (0, "")
    line = shlex.split(ended.out.split("experiments.train ")[1])
    length = "total_steps=192", "evaluate_every=null", "final_episodes=0"
    done = command("train", *line, CARTPOLE, *length, "run_dir=further")
    assert (done.code, done.err) == (0, "")
    taken = rl.load_agent("taken, over").network.state_dict()
    assert rl.load_agent("further").network.state_dict().keys() == taken.keys()
    config = OmegaConf.load(cwd / "further/config.yaml")
    assert (config.num_envs, config.num_steps, config.agent.bptt) == (4, 48, 48)


def test_an_agent_taken_over_is_no_run_to_resume(model, command):
    assert command("from_sb3", f"model={model}", CARTPOLE, "run_dir=taken").code == 0
    ended = command("train", "resume=taken", "total_steps=640")
    sentence = "it holds an agent without a run to go on with: begin a new run with its network, init_from"
    assert ended.code == 1 and ended.err.endswith(f"last.pt: {sentence}\n") and ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "model is missing: give model=FILE.zip"),
        (("model=nowhere.zip",), "there is no file nowhere.zip"),
    ],
)
def test_bad_input(command, cwd, arguments, message):
    ended = command("from_sb3", *arguments, "run_dir=taken")
    assert ended.code == 1 and message in ended.err and ended.err.count("\n") == 1
    assert not (cwd / "taken").exists()


def test_another_environment_is_refused(model, command, cwd):
    ended = command("from_sb3", f"model={model}", "env=t_maze", "run_dir=taken")
    assert ended.code == 1 and "but the agent was trained with" in ended.err
    assert not (cwd / "taken").exists()

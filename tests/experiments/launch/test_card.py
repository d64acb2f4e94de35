"""The card of a run, without a run."""

import re

import pytest
from omegaconf import OmegaConf

from experiments.launch.card import MOST_ROWS, compose_card, list_versions, share, write_card

AGENT = {"_target_": "rl.agents.RecurrentPPO", "core": {"_target_": "rl.cores.gru", "hidden_size": 4}}
CONFIG = {
    "seed": 3,
    "device": "cpu",
    "run_dir": "/home/alice/run",
    "agent": AGENT,
    "env": {"_target_": "envs.t_maze.TMaze"},
}
RESULT = {
    "agent": "RecurrentPPO",
    "core": "gru",
    "env": "TMaze",
    "seed": 3,
    "parameters": 1234,
    "env_steps": 4096,
    "total_steps": 9000,
    "stop_reason": "plateau",
    "training_seconds": 12.0,
    "steps_per_second": 341.3,
    "threads": 1,
    "eval_return_mean": 0.75,
    "eval_return_stderr": 0.03125,
    "eval_episodes": 100,
    "memory_zeroed_return_mean": 0.5,
    "optimal_return": 1.0,
    "memoryless_return": None,
    "evaluations": [
        {"env_steps": 1024, "return": 0.25, "memory_zeroed_return": 0.125},
        {"env_steps": 2048, "return": 0.875},
        {"env_steps": 3072, "return": 0.875, "memory_zeroed_return": 0.375},
    ],
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
}


@pytest.fixture
def card():
    def make(no_picture=None, licence=None, config=CONFIG, **changes):
        return "\n".join(compose_card(OmegaConf.create(config), RESULT | changes, no_picture, licence))

    return make


def test_what_a_card_says(card):
    text = card()
    for row in (
        "# RecurrentPPO in TMaze",
        "![Evaluation return over environment steps](card.png)",
        "| environment | TMaze, envs.t_maze.TMaze |",
        "| begins with | random weights |",
        "| seed | 3 |",
        "| parameters | 1_234 |",
        "| environment steps | 4_096 of 9_000, ended when it no longer improved |",
        "| training | 12 s, 341.3 steps per second, on cpu with threads=1 |",
        "| versions | python 3.11.7, torch 2.13.0 |",
        "| licence | not chosen yet |",
        "| at the end, 100 episodes | 4_096 | 0.75 +- 0.03125 | 0.5 |",
        "| last in training | 3_072 | 0.875 | 0.375 |",
        "| best in training, best.pt | 2_048 | 0.875 | ? |",  # the first of two equals
        "| best that is possible; without memory |  | 1 | ? |",
    ):
        assert row in text.splitlines(), row
    assert re.search(r"```yaml\nseed: 3\ndevice: cpu\nagent:\n", text)


def test_without_a_picture_it_has_the_numbers_and_says_why(card):
    text = card("There is no picture: plots need matplotlib.")
    assert "card.png" not in text and "There is no picture: plots need matplotlib." in text
    assert "| 1_024 | 0.25 | 0.125 |\n| 2_048 | 0.875 | ? |\n| 3_072 | 0.875 | 0.375 |" in text


def test_many_numbers_are_thinned(card):
    points = [{"env_steps": step, "return": 1.0} for step in range(1000)]
    rows = [line for line in card("None.", evaluations=points).splitlines() if line.endswith("| 1 | ? |")]
    curve = [line for line in rows if re.match(r"\| [\d_]+ \|", line)]
    assert len(curve) == MOST_ROWS and curve[0].startswith("| 0 ") and curve[-1].startswith("| 999 ")


def test_a_run_that_was_never_evaluated(card):
    text = card("None.", evaluations=[], eval_return_mean=None)
    assert "Curve" not in text and "in training" not in text


def test_no_paths_and_nobody_is_named(card):
    private = {
        "env": {"_target_": "envs.x.X", "rom": "/home/alice/rom.bin", "more": ["~/alice", "a/b", "file:///home/alice"]},
        "init_from": "../alice/run",
        "resume": "runs/alice",
        "trust": ["alice"],
        "observers": {"wandb": {"project": "alice"}},
        "note": "x=/home/alice",
    }
    text = card(config=CONFIG | private)
    assert "alice" not in text and "/home" not in text
    assert "| begins with | the network of another run |" in text
    assert share(OmegaConf.create(CONFIG | private)).env.more == ["(a path)", "a/b", "(a path)"]


def test_code_of_others_is_trusted_by_name(card):
    agent = AGENT | {"core": {"_target_": "my_package.cores.decay"}}
    assert "player = rl.Player(\"THIS_FOLDER\", trust=['my_package'])" in card(config=CONFIG | {"agent": agent})
    several = {"_target_": "rl.agents.Population", "members": {"one": AGENT}, "seats": ["one"]}
    assert 'player = rl.load_agent("THIS_FOLDER")' in card(config=CONFIG | {"agent": several})


@pytest.mark.parametrize(
    ("env", "trust"),
    [
        ({"_target_": "envs.gymnasium_env.make_gymnasium", "id": "my_tasks.coins:Coin-v0"}, "trust=[my_tasks]"),
        ({"_target_": "my_tasks.Coin"}, "trust=[my_tasks]"),
        ({"_target_": "envs.gymnasium_env.make_gymnasium", "id": "CartPole-v1"}, None),
        ({"_target_": "envs.gymnasium_env.make_gymnasium", "id": "envs:RecurrentPPO/TMaze-v0"}, None),
    ],
)
def test_an_environment_of_others_says_what_it_needs(card, env, trust):
    text = card(config=CONFIG | {"env": env})
    if trust is None:
        assert "recurrent-ppo-evaluate" not in text
    else:
        assert f"`recurrent-ppo-evaluate run=THIS_FOLDER {trust}` plays the agent there." in text


def test_a_licence_stays_and_an_old_picture_does_not(tmp_path):
    (tmp_path / "card.png").touch()
    for given, found in ((None, "not chosen yet"), ("MIT", "MIT"), (None, "MIT"), ("a|b", "a\\|b"), (None, "a\\|b")):
        write_card(tmp_path, OmegaConf.create(CONFIG), RESULT, None, given)
        assert f"| licence | {found} |\n" in (tmp_path / "card.md").read_text()
    assert (tmp_path / "card.png").exists()
    write_card(tmp_path, OmegaConf.create(CONFIG), RESULT, "It is drawn later.")
    assert not (tmp_path / "card.png").exists()


def test_versions_are_those_of_this_place():
    import torch

    versions = list_versions()
    assert versions["torch"] == torch.__version__ and versions.keys() == {
        "python",
        "torch",
        "gymnasium",
        "recurrent-ppo",
    }

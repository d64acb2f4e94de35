"""The help page and the configuration that would be used: everything that can be set, with its value and meaning."""

import inspect
import re

import pytest
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError, import_path
from experiments.launch.help import GIVEN, find_sentence, list_files, parse_options, read_arguments, read_comments
from rl.agents import DualHeadRecurrentPPO, RecurrentIQN, RecurrentPPOLSTM
from rl.cores import gru


@pytest.fixture
def page(command, monkeypatch):
    """``page("train", "agent=...")``: the help page on wide lines."""
    monkeypatch.setenv("COLUMNS", "120")

    def call(name, *arguments):
        ended = command(name, *arguments, "--help")
        assert (ended.code, ended.err) == (0, "")
        return ended.out

    return call


def test_the_help_page_of_training(page, cwd):
    out = page("train", "agent=recurrent_iqn", "agent/core=gru", "env=t_maze", "env.length=7", "seed=3")
    assert out.startswith("Train one agent on one environment.\n\npython -m experiments.train agent=")
    assert re.search(r"^  agent/core +attention, \[gru\], jamba", out, re.MULTILINE)
    assert re.search(r"^  experiment +atari_freeway, atari_pong, bandit_2, brax", out, re.MULTILINE)
    assert re.search(r"^  seed=3$", out, re.MULTILINE)
    assert re.search(r"^  evaluate_every=20000 +environment steps; null for never$", out, re.MULTILINE)
    assert "\nagent, rl.agents.RecurrentIQN:\n" in out and "\nenv, envs.t_maze.TMaze:\n" in out
    assert re.search(r"^  agent\.num_target_quantiles=8 +tau drawn for each sequence", out, re.MULTILINE)
    assert re.search(r"^  agent\.core\.hidden_size=128 +width of each layer", out, re.MULTILINE)
    assert re.search(r"^  env\.length=7 +A corridor of ``length`` cells", out, re.MULTILINE)
    assert "agent.num_envs" not in out and "observation_space" not in out and "input_size" not in out
    assert "--cfg job" in out and "--multirun" in out and "--shell-completion" in out
    assert not list(cwd.iterdir())


def test_a_command_that_takes_in_another_has_its_keys_with_their_meanings(page):
    assert list_files("sweep") == ["train", "sweep"] and list_files("train") == ["train"]
    out = page("sweep", "experiment=witness_vote", "agent.clip=0.3")
    assert re.search(r"^  search +\[ppo\], ppo_few$", out, re.MULTILINE)
    assert re.search(r"^  evaluate_every=20000 +environment steps; null for never$", out, re.MULTILINE)
    assert re.search(r"^  pruner=median +ends trials that fall behind", out, re.MULTILINE)
    assert re.search(r"^  agent\.clip=0\.3 +clip range of the probability ratio", out, re.MULTILINE)


@pytest.mark.parametrize("agent", ["recurrent_ppo_lstm", "recurrent_iqn", "dual_head_recurrent_ppo"])
def test_every_hyperparameter_has_its_line(agent, page):
    """Each with a meaning, wherever the docstring stands that says it."""
    out = page("train", f"agent={agent}", "env=t_maze")
    target = import_path(re.search(r"^agent, (\S+):$", out, re.MULTILINE)[1])
    for key in inspect.signature(target).parameters:
        if key not in (*GIVEN["agent"], "core", "encoder"):
            assert re.search(rf"^  agent\.{key}=\S+\s+\S", out, re.MULTILINE), key


def test_the_help_page_of_gymnasiums_environments(page):
    """With the arguments of the environment itself."""
    out = page("train", "env=gymnasium", "env.id=CartPole-v1")
    assert "env.sutton_barto_reward=false" in out and "env.vectorization_mode=auto" in out


def test_the_help_page_of_members(page):
    out = page("train", "agent=population", "env=state_punishment")
    assert "\nagent.members.first, rl.agents.DualHeadRecurrentPPO:\n" in out
    assert "agent.members.second.clip=0.2" in out and "\nagent.members.second.core, rl.cores.lstm:\n" in out
    assert "agent.seats=[first,second]" in out


@pytest.mark.parametrize(
    "name",
    ["evaluate", "export", "record", "plot", "imitate", "char_lm", "realtime", "learning_table", "benchmark", "status"],
)
def test_every_command_has_a_page(name, page):
    out = page(name)
    assert out[0].isupper() and "Keys, KEY=VALUE:\n" in out and "--cfg job" in out


def test_the_configuration_that_would_be_used(command, cwd):
    """As a run stores it, but for what is only known when it starts."""
    ended = command("train", "agent=recurrent_ppo_lstm", "env=t_maze", "agent.clip=0.3", "--cfg", "job")
    shown = OmegaConf.create(ended.out)
    assert (ended.code, ended.err) == (0, "") and not list(cwd.iterdir())
    assert (shown.agent.clip, shown.agent.gamma, shown.agent.core.hidden_size) == (0.3, 0.99, 128)
    assert (shown.env.passive, shown.seed) == (True, 1)
    assert "hydra" not in shown and shown.run_dir is None


def test_what_would_be_used_is_what_is_used(command, train_maze, tiny, cwd):
    arguments = "env=t_maze", "env.length=2", *tiny, "run_dir=run"
    shown = OmegaConf.create(command("train", *arguments, "--cfg", "job").out)
    train_maze("run_dir=run")
    stored = OmegaConf.load(cwd / "run/config.yaml")
    for config in (stored, shown):
        config.agent.action_names = None  # from the environment, once there is one
    assert stored == shown


@pytest.mark.parametrize("option", [("--help",), ("--cfg", "job"), ("-h",), ("-c", "job")])
def test_mistakes_beside_an_option(option, command):
    for mistake, words in {
        "agent.clib=1": "did you mean clip?",
        "totl_steps=1": "'totl_steps'",
        "env=x": "env=x",
    }.items():
        ended = command("train", mistake, *option)
        assert ended.code == 1 and words in ended.err and ended.err.count("\n") == 1 and ended.out == ""


def test_hydras_own_options_are_left_to_it(command):
    assert "hydra:" in command("evaluate", "--cfg", "hydra").out
    assert command("evaluate", "seed=3", "--cfg", "job", "--package", "seed").out.strip().endswith("3")


def test_a_folder_of_ones_own_files(command, cwd):
    (cwd / "mine/env").mkdir(parents=True)
    (cwd / "mine/env/short.yaml").write_text("_target_: envs.t_maze.TMaze\nlength: 2\n")
    ended = command("train", "--config-dir", "mine", "env=short", "--help")
    assert "[short]" in ended.out and "env.length=2" in ended.out, ended


def test_options_stand_anywhere():
    given, options = parse_options(["env=t_maze", "-m", "seed=1,2", "--config-dir", "x", "agent=y"])
    assert given.overrides == ["env=t_maze", "seed=1,2", "agent=y"] and given.multirun
    assert options == ["-m", "--config-dir", "x"]
    for arguments, words in {
        ("--seed", "1"): "there is no option --seed",
        ("-x",): "there is no option -x: keys are given as KEY=VALUE",
        ("--cfg",): "argument --cfg/-c: expected one argument",
        ("--cfg", "x"): "invalid choice: 'x'",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(words)):
            parse_options(["seed=1", *arguments])


def test_arguments_are_read_from_docstrings():
    def documented(first, second):
        """Do something.

        Args:
            first: one line.
            second: two lines, the second
                one deeper: with a colon.

        Returns:
            third: nothing.
        """

    assert read_arguments(documented) == {
        "first": "one line.",
        "second": "two lines, the second one deeper: with a colon.",
    }
    assert read_arguments(len) == {}
    assert read_arguments(gru)["hidden_size"].startswith("width")
    for agent in (RecurrentPPOLSTM, DualHeadRecurrentPPO, RecurrentIQN):
        assert {"learning_rate", "core", "previous_action_reward"} <= read_arguments(agent).keys()


def test_a_sentence_stands_for_an_argument_without_a_line():
    doc = "Cells in a row, ``size`` of them; a\n  ``sizes`` is not it. With ``turn=True``: they turn."
    assert find_sentence(doc, "size") == "Cells in a row, ``size`` of them;"
    assert find_sentence(doc, "turn") == "With ``turn=True``:"
    assert find_sentence(doc, "row") == ""


def test_comments_are_read_from_yaml():
    text = "defaults:\n  - a: b # no\nseed: 1\nsteps: 3 # of a # kind\nlist: [1] # x\n"
    assert read_comments(text) == {"defaults": "", "seed": "", "steps": "of a # kind", "list": "x"}

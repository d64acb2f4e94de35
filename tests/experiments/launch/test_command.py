"""From a command line to a run, and from a fault to a sentence."""

import os
import signal
import sys

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError
from experiments.launch.command import check_keys, describe, launch, load_defaults, rewrite_overrides, set_full_error
from rl.training import signals
from rl.training.signals import Stopped


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("agent.clip=0.1", "++agent.clip=0.1"),
        ("agent.core.hidden_size=3", "++agent.core.hidden_size=3"),
        ("seed=1.5", "seed=1.5"),  # a dot in the value
        ("agent/core=gru", "agent/core=gru"),
        ("hydra.job.name=x", "hydra.job.name=x"),
        ("+agent.clip=0.1", "+agent.clip=0.1"),
        ("~agent.clip", "~agent.clip"),
        ("agent.clip", "agent.clip"),  # no value
        ("agent@agent.members.first=recurrent_iqn", "agent@agent.members.first=recurrent_iqn"),
        ("--config-dir=my.conf", "--config-dir=my.conf"),
        ("resume=null", "resume=null"),
        ("resume=", "resume="),
    ],
)
def test_keys_below_the_top_may_be_added(argument, expected):
    assert list(rewrite_overrides([argument])) == [expected]


def test_there_must_be_a_run_to_resume(tmp_path, monkeypatch):
    """The last of several counts."""
    (tmp_path / "config.yaml").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    for resumed in (f"resume={tmp_path}", f"resume=~/{tmp_path.name}", "resume=null"):
        arguments = ["resume=nowhere", resumed, "seed=2"]
        assert list(rewrite_overrides(arguments)) == arguments
    with pytest.raises(ConfigError, match=r"^resume=nowhere: there is no run in that folder \(no config\.yaml\)$"):
        list(rewrite_overrides(arguments[:1]))


def test_keys_of_the_yaml_file_and_its_groups():
    keys = dict.fromkeys([key for key in load_defaults("record") if key not in ("defaults", "hydra")])
    check_keys(OmegaConf.create(keys | {"env": None}), "record")
    check_keys(OmegaConf.create(keys), "record")  # a group of which nothing need be chosen
    with pytest.raises(ConfigError, match=r"^there is no key 'seet'; did you mean seed\?$"):
        check_keys(OmegaConf.create(keys | {"seet": 1}), "record")
    del keys["greedy"]
    with pytest.raises(ConfigError, match=r"^greedy is missing$"):
        check_keys(OmegaConf.create(keys), "record")
    keys = dict.fromkeys([key for key in load_defaults("train") if key not in ("defaults", "hydra")])
    with pytest.raises(ConfigError, match=r"^agent is missing$"):
        check_keys(OmegaConf.create(keys | {"env": 1}), "train")


def test_errors_are_told_in_one_line():
    assert describe(ValueError("first\n   second "), "train") == "first second"
    assert describe(ValueError(), "train") == "ValueError"
    assert describe(KeyError("name"), "train") == "missing entry 'name'"
    for gone in (EOFError(), BrokenPipeError("pipe")):
        assert describe(gone, "train") == "a worker process of the environments has died"
    unknown = ValueError("Key 'totl_steps' is not in struct\n    full_key: totl_steps.x\n    object_type=dict")
    assert describe(unknown, "train") == "there is no key 'totl_steps.x'; did you mean total_steps or num_steps?"
    assert describe(ValueError("no such value\n    full_key: seed\n    object_type=dict"), "train") == "no such value"
    wrapped = InstantiationException("Error in call to target 'rl.agents.RecurrentPPO'")
    wrapped.__cause__ = ValueError("bptt=3: it must divide num_steps=4")
    assert describe(wrapped, "train") == "bptt=3: it must divide num_steps=4"
    plain = ValueError("the sentence")
    plain.__cause__ = OSError("what it was made of")
    assert describe(plain, "train") == "the sentence"


def test_errors_of_hydra_are_let_through_while_asked_for(monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(ZeroDivisionError), set_full_error(True):
        assert os.environ["HYDRA_FULL_ERROR"] == "1"
        with set_full_error(False):
            assert os.environ["HYDRA_FULL_ERROR"] == "0"
        assert os.environ["HYDRA_FULL_ERROR"] == "1"
        raise ZeroDivisionError
    assert os.environ["HYDRA_FULL_ERROR"] == "0"


@pytest.fixture
def launched(command, monkeypatch, capsys):
    """``launched(run, "seed=2")`` launches a function as ``evaluate``; its exit code and what it printed."""
    monkeypatch.setattr(signals, "ECHO", 0.0)  # the signals of several tests are several ones
    command("evaluate", "--cfg", "job")  # the fixture puts Hydra and logging back

    def call(run, *arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
        capsys.readouterr()
        try:
            launch(run, "evaluate")
        except SystemExit as end:
            return end.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


def test_a_command_gets_its_composed_configuration(launched, monkeypatch):
    """And processes that it starts report their errors as the user has asked for."""
    seen = []

    def run(config):
        seen.append((config.seed, HydraConfig.get().job.config_name, os.environ["HYDRA_FULL_ERROR"]))

    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert launched(run, "seed=7") == (0, "", "")
    assert seen == [(7, "evaluate", "0")]


def test_a_key_that_the_yaml_file_lacks_is_refused_before_the_command_runs(launched):
    code, out, err = launched(lambda config: pytest.fail("it has run"), "+seet=1")
    assert (code, out, err) == (1, "", "evaluate: there is no key 'seet'; did you mean seed?\n")


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, ImportError, RuntimeError, ArithmeticError])
def test_a_fault_is_one_sentence_and_exit_code_1(launched, error):
    def run(config):
        raise error("it cannot be")

    assert launched(run) == (1, "", "evaluate: it cannot be\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line_and_its_exit_code(launched, number):
    """Wherever it comes; the usual handlers are there again afterwards."""
    before = signal.getsignal(number)

    def run(config):
        os.kill(os.getpid(), number)
        pytest.fail("it goes on")

    line = f"evaluate: stopped by {signal.Signals(number).name}\n"
    assert launched(run) == (128 + number, "", line)
    assert signal.getsignal(number) == before


def test_an_interrupt_of_unknown_origin_is_exit_code_130(launched):
    def run(config):
        raise KeyboardInterrupt

    assert launched(run) == (130, "", "evaluate: stopped by SIGINT\n")


def test_a_signal_ends_a_sweep(launched):
    """Hydra would go on with the next job after an error; what was done is told, and how to go on."""
    seeds = []

    def run(config):
        seeds.append(config.seed)
        if config.seed == 3:
            raise Stopped(signal.SIGTERM, "at step 8; resume=r goes on with it")

    code, _, err = launched(run, "-m", "seed=1,2,3,4")
    assert (code, seeds) == (143, [1, 2, 3])
    assert err == (
        "evaluate: stopped by SIGTERM in job 2 of a sweep, at step 8; resume=r goes on with it; "
        "jobs done: 0, 1; those after 2 did not start\n"
    )


def test_an_error_of_the_program_keeps_its_traceback(launched):
    """What no user can have caused is no sentence."""

    def run(config):
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        launched(run)

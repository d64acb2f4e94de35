"""From a command line to a run, and what ends it."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from envs.faults import UserCodeError
from experiments.launch.check import ConfigError
from experiments.launch.command import launch, set_full_error
from experiments.launch.sentences import describe
from rl.training import signals
from rl.training.signals import Stopped

ROOT = Path(__file__).parents[3]


SWEEP = ", or --multirun to run each of them"


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("seed", "'seed' is no argument: give KEY=VALUE"),
        ("seed:1", "'seed:1' is no argument: give KEY=VALUE"),
        ("", "'' is no argument: give KEY=VALUE"),
        ("seed=[1", """'seed=[1' cannot be read: quote a value with special characters twice, "KEY='VALUE'\""""),
        ("env.x=ü", """'env.x=ü' cannot be read: quote a value with special characters twice, "KEY='VALUE'\""""),
        (
            "seed=1,2",
            "seed=1,2 stands for several values: give one, a list seed=[1,2], or --multirun to run each of them",
        ),
        ("a.b=1,2", "a.b=1,2 stands for several values: give one, a list a.b=[1,2]" + SWEEP),
        (
            "seed=range(3)",
            "seed=range(3) stands for several values: give one, a list seed=[range(3)]" + SWEEP,
        ),
    ],
)
def test_what_the_grammar_refuses(argument, sentence, launched):
    assert launched(lambda config: pytest.fail("it has run"), argument) == (1, "", f"evaluate: {sentence}\n")


def test_options_that_there_are_not(launched):
    code, out, err = launched(lambda config: pytest.fail("it has run"), "seed=1", "--nothing")
    sentence = "there is no option --nothing: keys are given as KEY=VALUE, --help names them"
    assert (code, out, err) == (1, "", f"evaluate: {sentence}\n")


def test_an_option_between_two_keys(launched):
    seen = []
    assert launched(lambda config: seen.append(config.seed), "episodes=3", "-m", "seed=1,2", "device=cpu")[0] == 0
    assert seen == [1, 2]


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


class MuteError(Exception):
    """Says nothing, and even that fails."""

    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize("kind", [KeyError, AssertionError, StopIteration, SystemExit, MuteError, ValueError])
def test_a_fault_of_the_users_code_is_told_as_theirs(launched, kind):
    """Whatever its class: below the command stands a frame that is not of this project, here of a test."""

    def theirs():
        raise kind

    code, out, err = launched(lambda config: theirs())
    place = f"(tests/experiments/launch/test_command.py, line {theirs.__code__.co_firstlineno + 1}, in theirs)"
    message = ": its message cannot be read" if kind is MuteError else ""
    told = f"evaluate: {kind.__name__}{message} {place}; HYDRA_FULL_ERROR=1 shows the whole traceback\n"
    assert (code, out, err.replace(f"{ROOT}/", "")) == (1, "", told)


def test_notes_on_a_fault_are_told_with_it(launched):
    def run(config):
        error = ValueError("it cannot be")
        error.add_note("saved up to step 7")
        raise error

    assert launched(run) == (1, "", "evaluate: it cannot be; saved up to step 7\n")
    fault = UserCodeError("Own-v0 failed in step 3 of copy 0")
    fault.add_note("saved up to\nstep 7")
    sentence = "Own-v0 failed in step 3 of copy 0; saved up to step 7; HYDRA_FULL_ERROR=1 shows the whole traceback"
    assert describe(fault, "train") == sentence


def test_an_interrupt_in_the_users_code_is_no_fault(launched):
    def theirs():
        raise KeyboardInterrupt

    assert launched(lambda config: theirs())[0] == 130


def test_a_reader_that_has_left_is_no_fault(launched, monkeypatch):
    """``| head`` ends it without a word; a broken pipe to a worker process is one."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout:

        def run(config):
            monkeypatch.setattr(sys, "stdout", stdout)
            raise BrokenPipeError(32, "Broken pipe")

        assert launched(run)[0] == 141


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_one_line_and_its_exit_code(launched, hangup_ends, number):
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


def test_jobs_that_fail_are_told_at_once_and_counted_in_the_end(launched, capsys):
    """A sweep goes on; without this only the first fault would be seen, and that after the last job."""
    told = []

    def run(config):
        told.append(capsys.readouterr().err)
        if config.seed > 1:
            raise ConfigError(f"seed={config.seed}: no")

    code, _, err = launched(run, "-m", "seed=1,2,3,0")
    assert code == 1 and told[:2] == ["", ""]
    for number, line in enumerate(told[2:], 1):
        assert line.startswith(f"job {number} failed: ConfigError: seed={number + 1}: no ")
        assert line.endswith("; the other jobs go on\n") and line.count("\n") == 1
    assert "\nevaluate: ConfigError: seed=2: no " in err and "; jobs that failed: 1, 2; jobs done: 0, 3; " in err


def test_an_error_of_the_program_keeps_its_traceback(launched):
    """What no user can have caused is no sentence."""

    def run(config):
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        launched(run)

"""Compose a configuration from a command line, run a command on it, and turn any fault into one clear sentence."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from envs.faults import UserCodeError, describe_fault, find_users_frame
from experiments.launch.arguments import check_keys, rewrite_overrides
from experiments.launch.check import ConfigError
from experiments.launch.claim import remove_unused
from experiments.launch.help import answer, parse_options
from experiments.launch.jobs import Jobs
from experiments.launch.launchers import choose_jobs
from experiments.launch.output import flush_stdout, has_lost_reader, tell_broken_logs
from experiments.launch.sentences import FAULTS, cut_traceback, describe, note_preset
from experiments.launch.stored import read_trust
from experiments.launch.working_folder import add_working_folder
from rl.training.distributed import Ranks
from rl.training.signals import Stopped, StopSignals


class GuardedTask:
    """A command as Hydra calls it, once or for each job of a sweep; a fault of a single run is kept for one sentence.

    Args:
        run: the command's entry.
        name: of the command.
        jobs: where those of a sweep run.
        full_error: faults are wanted as they are, with their tracebacks.

    Attributes:
        faults: what ended the run, if it was a fault that a sentence can tell.
    """

    def __init__(self, run: Callable[..., Any], name: str, jobs: Jobs, full_error: bool):
        self.run, self.name, self.jobs, self.full_error = run, name, jobs, full_error
        self.faults: list[BaseException] = []
        self._done: list[int] = []  # numbers of jobs of a sweep
        self._failed: list[int] = []

    def __call__(self, config: DictConfig) -> Any:
        """Run the command."""
        sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            check_command(config, self.name)
            add_working_folder(config)
            # errors as the user wants them, also for processes that the command starts
            with set_full_error(self.full_error), tell_broken_logs(self.name):
                value = self.run(config, *self.jobs.prepare(config))
        except Stopped as stop:  # ends a sweep, too: Hydra catches errors of a job, but no interrupt
            if sweeping and not self.jobs.apart:
                stop.sentence = tell_of_sweep(stop, self._done)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            fault = self._pass_on(error, sweeping)
            if fault is error:
                raise
            if fault is not None:
                raise fault from (error if isinstance(fault, UserCodeError) else None)
            return None
        if sweeping:
            self._done.append(HydraConfig.get().job.num)
        return value

    def _pass_on(self, error: BaseException, sweeping: bool) -> BaseException | None:
        """Return what is to be raised for an error; None if it was kept: Hydra would put a line in front of ours."""
        note_preset(error)
        whole, below = error.__traceback__, cut_traceback(error.__traceback__, self.run)
        is_users = find_users_frame(error.with_traceback(below), causes=False) is not None
        error.with_traceback(whole)
        if not isinstance(error, FAULTS) and not is_users:  # a fault of this program
            return error
        if self.jobs.apart and not self.full_error:  # what it holds need not pass between processes
            return ConfigError(f"job {HydraConfig.get().job.num} failed: {describe(error, self.name)}")
        if self.full_error or sweeping:  # a sweep goes on with its other jobs
            if sweeping and not self.jobs.apart:
                self._failed.append(number := HydraConfig.get().job.num)
                print(f"job {number} failed: {describe(error, self.name)}; the other jobs go on", file=sys.stderr)
            return error if isinstance(error, Exception) else UserCodeError(describe_fault(error))
        self.faults.append(error.with_traceback(below))
        return None

    def count_failed(self, error: BaseException) -> BaseException:
        """Say beside the fault of a sweep, which is that of its first job, what became of all of them."""
        if self._failed:
            failed, done = (", ".join(map(str, each)) or "none" for each in (self._failed, self._done))
            error.add_note(f"jobs that failed: {failed}")
            error.add_note(f"jobs done: {done}")
        return error


def launch(run: Callable[..., Any], config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and run a command on it.

    A fault ends the process with one sentence and exit code 1; with ``HYDRA_FULL_ERROR=1`` it ends with its traceback.

    Args:
        run: the command's entry.
        config_name: the command's name and that of its YAML file.
    """
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    faults: list[BaseException] = []
    task: GuardedTask | None = None
    try:
        given, options = parse_options(sys.argv[1:])
        given.overrides = list(rewrite_overrides(given.overrides, given.multirun))
        jobs, shared = choose_jobs(given.overrides, given.multirun)
        sys.argv[1:] = [*options, *given.overrides, *shared]  # Hydra takes no option between two overrides
        if answer(given, run, config_name, check_keys):
            return
        task = GuardedTask(run, config_name, jobs, full_error)
        faults = task.faults
        # Hydra would print an error, but the sentence is ours
        with set_full_error(True), StopSignals() as signals, jobs.going_on(signals):
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)(jobs.wrap(task))()
            flush_stdout()
    except FAULTS as error:
        if full_error:
            raise
        faults.append(error if task is None else task.count_failed(error))
    except KeyboardInterrupt as interrupt:
        stop = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
        print(f"{name_speaker(config_name)}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    finally:
        remove_unused()
    if faults:
        end_with(faults[0], config_name)


def check_command(config: DictConfig, config_name: str) -> None:
    """Check what can be checked of a command before it does anything.

    Raises:
        ConfigError: a key is unknown or missing, ``trust`` is no list of packages, or torchrun has started a command
            that is not for it.
    """
    if Ranks().world > 1 and config_name != "train":
        raise ConfigError("torchrun is for experiments.train alone: start this command without it")
    check_keys(config, config_name)
    read_trust(config.get("trust"))


def end_with(fault: BaseException, config_name: str) -> NoReturn:
    """End the process with one sentence, or with none where nobody reads on."""
    if isinstance(fault, BrokenPipeError) and has_lost_reader():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at its end
        sys.exit(128 + signal.SIGPIPE)
    print(f"{name_speaker(config_name)}: {describe(fault, config_name)}", file=sys.stderr)
    sys.exit(1)


def name_speaker(config_name: str) -> str:
    """Return who ends: the command, with its rank where torchrun has started several."""
    ranks = Ranks()
    return f"{config_name}, rank {ranks.rank}" if ranks.world > 1 else config_name


def tell_of_sweep(stop: Stopped, done: list[int]) -> str:
    """Return what became of the jobs of a sweep that a signal ended in one of them."""
    number, finished = HydraConfig.get().job.num, ", ".join(map(str, done)) or "none"
    return f"in job {number} of a sweep, {stop.sentence}; jobs done: {finished}; those after {number} did not start"


@contextmanager
def set_full_error(wanted: bool) -> Iterator[None]:
    """While open, make Hydra let errors through (True), or print them and end the process (False)."""
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = str(int(wanted))
    try:
        yield
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before

"""Where the jobs of a sweep run, read from a command line: ``hydra/launcher=joblib`` and the like."""

import re
import sys
from importlib.util import find_spec

from hydra.core.override_parser.overrides_parser import OverridesParser

from experiments.launch.check import ConfigError
from experiments.launch.jobs import JOBLIB, LOCAL, SLURM, Jobs, JobsApart, JobsInQueue
from rl.training.threads import available_cores

PLUGINS = {
    JOBLIB: "hydra_plugins.hydra_joblib_launcher",
    LOCAL: "hydra_plugins.hydra_submitit_launcher",
    SLURM: "hydra_plugins.hydra_submitit_launcher",
}


def choose_jobs(overrides: list[str], multirun: bool) -> tuple[Jobs, list[str]]:
    """Read from a command line where the jobs of a sweep run.

    Args:
        overrides: the arguments.
        multirun: it is a sweep.

    Returns:
        The jobs, and further arguments for Hydra: cores are shared out among the jobs of joblib.

    Raises:
        ConfigError: a package is missing.
    """
    launcher = next((each.partition("=")[2] for each in reversed(overrides) if _names_launcher(each)), "basic")
    if not multirun or launcher not in PLUGINS:
        return Jobs(), []
    try:
        installed = find_spec(PLUGINS[launcher]) is not None
    except ModuleNotFoundError:  # not even another plugin is installed
        installed = False
    if not installed:
        raise ConfigError(f"hydra/launcher={launcher} needs packages of an extra: pip install 'recurrent-ppo[sweep]'")
    if launcher == SLURM:
        return JobsInQueue(launcher, None), []
    more = share_cores(overrides) if launcher == JOBLIB else []
    return JobsApart(launcher, count_jobs(overrides)), more


def _names_launcher(override: str) -> bool:
    return re.match(r"\+*hydra/launcher=", override) is not None


def count_jobs(overrides: list[str]) -> int | None:
    """Return how many jobs Hydra makes of a command line, None if another sweeper than its own does."""
    number = 1
    for each in OverridesParser.create().parse_overrides(overrides):
        if each.key_or_group == "hydra/sweeper":
            return None
        if each.is_sweep_override():
            number *= len(list(each.sweep_string_iterator()))
    return number


def share_cores(overrides: list[str]) -> list[str]:
    """Give each job its cores: as many jobs at a time as there are cores for their threads, unless the user says.

    What does not fit is told.
    """
    cores, threads, given = available_cores(), 1, None
    for each in OverridesParser.create().parse_overrides(overrides):
        if each.key_or_group == "threads":
            values = list(each.sweep_string_iterator()) if each.is_sweep_override() else [each.get_value_string()]
            threads = max([int(value) for value in values if value.isdecimal()], default=1)
            if "auto" in values:
                log_line("threads=auto measures beside other jobs, which disturb it: give a number")
        if each.key_or_group == "hydra.launcher.n_jobs":
            given = each.value()
    if given is None:
        return [f"hydra.launcher.n_jobs={max(cores // max(threads, 1), 1)}"]
    if isinstance(given, int) and (cores if given < 0 else given) * threads > cores:
        log_line(f"n_jobs={given} with threads={threads} each are more than the {cores} cores here: all become slower")
    return []


def log_line(sentence: str) -> None:
    """Print a line before Hydra has made a log."""
    print(sentence, file=sys.stderr)

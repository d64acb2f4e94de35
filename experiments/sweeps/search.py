"""Look for the settings of a training run, with Optuna: each trial is an ordinary run of experiments.train.

python -m experiments.sweep experiment=witness_vote search=ppo trials=50
python -m experiments.sweep experiment=witness_vote search=ppo trials=100 study=STUDY_DIR   # goes on, or joins in
python -m experiments.sweep env=t_maze search=ppo_few search.agent.clip.low=0.1 search.agent.clip.high=0.3 seeds=3
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from experiments.launch.arguments import check_keys, load_defaults, rewrite_overrides
from experiments.launch.build import Settings, build, read_settings
from experiments.launch.check import OUTPUTS, ConfigError, convert
from experiments.launch.claim import claim_new, holds_run, locate_new, make_folder, read_overrides
from experiments.launch.run_folder import name_env, name_folder
from experiments.launch.sentences import describe
from experiments.sweeps.report import find_best, format_table, tell_command, write_report
from experiments.sweeps.space import Parameter, list_corners, read_space
from experiments.sweeps.study import Trials, holds_study, import_optuna, load_study, make_pruner
from experiments.sweeps.trial import TRIAL, Plan, TrialFailed, TrialPruned, TrialStopped, play_trial
from experiments.tables.runs import Children
from rl.checks import one_of, positive, within
from rl.training.signals import Stopped
from rl.training.threads import available_cores

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float:
    """Search, and report.

    Returns:
        The value of the best trial; NaN without one.

    Raises:
        ConfigError, ValueError: something cannot be.
        Stopped: a signal has ended it; the trials under way are saved.
    """
    import_optuna()
    settings = read_settings(config)
    number, minutes = convert(config.trials, int, "trials"), convert(config.minutes, float | None, "minutes")
    startup = convert(config.startup_trials, int, "startup_trials")
    positive(trials=number, startup_trials=startup)
    if minutes is not None:
        within(0.0, math.inf, minutes=minutes)
    one_of(("tpe", "random"), sampler=config.sampler)
    one_of(("median", "hyperband", None), pruner=config.pruner)
    workers = read_workers(config.workers, settings)
    plan = read_plan(config, settings)
    space = read_space(config.search)
    check_space(space, plan.base)
    folder = find_folder(config.study, name_env(config.env))
    pruner = make_pruner(config.pruner, startup, plan.per_run * len(plan.seeds))
    study = load_study(folder, sampler=make_sampler(config.sampler, startup), pruner=pruner)
    trials = Trials(folder, study, space, number)
    trials.check_same(plan.base, {"seeds": plan.seeds, "last_evaluations": plan.last})
    choices = {key: value for key, value in HydraConfig.get().runtime.choices.items() if isinstance(value, str)}
    log.info(f"{len(space)} settings, {workers} trials at a time, study {folder}; study={folder} goes on with it")
    Search(trials, plan, choices, minutes).work(workers)
    with trials.alone():
        write_report(folder, trials, plan, choices)
    return tell_end(trials)


def read_workers(given: Any, settings: Settings) -> int:
    """Return how many trials run at a time; say if their threads are more than there are cores.

    Raises:
        ConfigError: it is no number, or the threads of a run are none.
    """
    cores = available_cores()
    if isinstance(settings.threads, str):
        raise ConfigError("threads=auto: runs side by side disturb the measurement, give a number, threads=1")
    workers = convert(given, int | None, "workers")
    if workers is None:
        return max(cores // settings.threads, 1)
    positive(workers=workers)
    if workers * settings.threads > cores:
        log.warning(f"workers={workers} with threads={settings.threads} each are more than the {cores} cores here")
    return workers


def read_plan(config: DictConfig, settings: Settings) -> Plan:
    """Read what all trials have in common.

    Raises:
        ConfigError, ValueError: it cannot be.
    """
    for key in ("resume", "run_dir", "overwrite"):
        if config[key]:
            raise ConfigError(f"{key}={config[key]}: each trial has a folder of its own, leave {key} out")
    if settings.evaluate_every is None:
        raise ConfigError(
            "evaluate_every=null: the value of a trial is the mean of its last evaluations, give a number"
        )
    seeds, last = convert(config.seeds, int, "seeds"), convert(config.last_evaluations, int, "last_evaluations")
    positive(seeds=seeds, last_evaluations=last)
    own = {*map(str, load_defaults("sweep")), "search"}
    base = list[str]()
    for given in OverridesParser.create().parse_overrides(read_overrides("sweep", "search")):
        key = given.key_or_group
        if key.partition(".")[0] not in own and key != "seed":
            base.append(given.input_line or "")
    sources = HydraConfig.get().runtime.config_sources
    options = [f"--config-dir={source.path}" for source in sources if source.provider == "command-line"]
    per_run = -(-settings.total_steps // settings.evaluate_every)
    first = settings.seed
    return Plan(options, base, list(range(first, first + seeds)), settings.evaluate_every, per_run, last)


def check_space(space: list[Parameter], base: list[str]) -> None:
    """Build a run with every value to be tried, so that an unknown key or a bad range is seen before any work.

    Numbers that do not fit each other, which other values may, are left to the trials.

    Raises:
        ConfigError, ValueError: a key or value cannot be.
    """
    build(compose_run([*TRIAL, *base])).close()
    keys = {each.key.rpartition(".")[2]: each.key for each in space}
    for corner in list_corners(space):
        try:
            config = compose_run([*TRIAL, *base, *corner])
            check_keys(config, "train")
            build(config).close()
        except (HydraException, ValueError) as error:
            sentence = describe(error, "train")
            name = sentence.partition("=")[0].rpartition(".")[2]
            if isinstance(error, ConfigError) or "there is no " in sentence:
                raise ConfigError(f"search: {sentence}") from error
            if name in keys and ": it must be " in sentence:
                raise ConfigError(f"search.{keys[name]}: {sentence}") from error


def compose_run(arguments: list[str]) -> DictConfig:
    """Compose a training run."""
    return compose("train", list(rewrite_overrides(arguments)))


def find_folder(given: Any, env: str) -> Path:
    """Return the folder of a study, which is made if it is not there.

    Raises:
        ConfigError: it cannot be one, or is that of a run.
    """
    if given is None:
        path, made = claim_new(locate_new(f"study-{name_folder(env)}"))
    else:
        path = Path(str(given)).expanduser().absolute()
        if holds_run(path):
            raise ConfigError(f"study={given} is the folder of a run: choose another")
        if path.is_dir() and any(path.iterdir()) and not holds_study(path):
            raise ConfigError(f"study={given} holds other files and no study: choose another, or a new one")
        made = make_folder(path, f"study={given}")
    OUTPUTS.extend(made)
    return path


def make_sampler(name: Literal["tpe", "random"], startup: int) -> Any:
    """Make what draws settings: trials that are under way count as bad, so that no two draw the same."""
    from optuna.samplers import RandomSampler, TPESampler

    return RandomSampler() if name == "random" else TPESampler(n_startup_trials=startup, constant_liar=True)


class Search:
    """The trials that this process runs, several at a time.

    Args:
        trials: of the study.
        plan: of its runs.
        choices: the file that was chosen of each group.
        minutes: after which no further trial begins; None for no bound.
    """

    def __init__(self, trials: Trials, plan: Plan, choices: dict[str, str], minutes: float | None):
        self.trials, self.plan, self.choices = trials, plan, choices
        self.stop = threading.Event()
        self.until = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def work(self, workers: int) -> None:
        """Run trials until there are enough.

        Raises:
            Stopped: a signal has come; the trials under way are saved and the first ones to go on with.
            ConfigError: all trials fail.
        """
        finished = [trial for trial in self.trials.list_counting() if trial.state.is_finished()]
        pool = ThreadPoolExecutor(workers)
        with (
            Children() as children,
            logging_redirect_tqdm(),
            tqdm(total=self.trials.number, initial=len(finished), unit=" trials", disable=None) as bar,
        ):
            futures = [pool.submit(self._work, children, bar.update) for _ in range(workers)]
            try:
                wait(futures, return_when="FIRST_EXCEPTION")
            except Stopped as stop:
                self.stop.set()
                children.end()
                wait(futures)
                done = len([trial for trial in self.trials.list_counting() if trial.state.is_finished()])
                sentence = f"after {done} of {self.trials.number} trials; study={self.trials.folder} goes on with them"
                raise Stopped(stop.number, sentence) from stop
            finally:
                self.stop.set()
                pool.shutdown()
        for future in futures:
            future.result()

    def _work(self, children: Children, count: Callable[[], object]) -> None:
        """Run one trial after the other."""
        while not self.stop.is_set() and time.monotonic() < self.until:
            taken = self.trials.take()
            if taken is None:
                return
            trial, lock = taken
            try:
                sentence = self._play(children, trial)
            except BaseException:
                self.trials.give_up(trial, "the search has ended")
                raise
            finally:
                lock.release()
            if sentence:
                count()
                best = find_best(self.trials.study)
                log.info(f"trial {trial.number}: {sentence}" + (f"; best {best.value:.4g}" if best else ""))
                with self.trials.alone():
                    write_report(self.trials.folder, self.trials, self.plan, self.choices)

    def _play(self, children: Children, trial: Any) -> str:
        """Run one trial and tell the study; return what became of it, nothing of one that is to be tried again."""
        from optuna.trial import TrialState

        study, place = self.trials.study, self.trials.locate(trial)
        try:
            value = play_trial(self.plan, children, trial, self.trials.read(trial), place, self.stop.is_set)
        except TrialPruned as end:
            study.tell(trial, state=TrialState.PRUNED)
            return f"pruned {end}"
        except TrialStopped as end:
            self.stop.wait(1.0)  # the signal may have come to this process, too
            self.trials.give_up(trial, f"stopped {end}")
            return ""
        except (TrialFailed, ConfigError, OSError) as fault:
            trial.set_user_attr("fault", str(fault))
            study.tell(trial, state=TrialState.FAIL)
            return f"failed: {fault}"
        study.tell(trial, value)
        return f"{value:.4g}"


def tell_end(trials: Trials) -> float:
    """Print the best trials and how to train with the best settings; return its value, NaN without one."""
    best = find_best(trials.study)
    if best is None:
        print("no trial is complete")
        return math.nan
    print(format_table(trials.study.get_trials(deepcopy=False), 10))
    print(f"best: trial {best.number} with {best.value:.4g}, written to {trials.folder / 'experiment/best.yaml'}")
    print(f"{tell_command(trials.folder)} seed=101")
    return float(best.value or 0.0)

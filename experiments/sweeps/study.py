"""The study of a search: its folder, which several processes and machines may share, and its trials one by one.

The folder holds Optuna's journal, and for each trial a folder that the process which runs it has locked. So a trial
whose process has ended in whatever way is known: it counts as failed, and its settings are the next to be tried, in the
same folder, where its runs go on from their checkpoints.
"""

import fcntl
import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.launch.check import ConfigError
from experiments.launch.lock import FolderLock, is_locked
from experiments.sweeps.space import Parameter

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

JOURNAL = "journal.log"
NAME = "search"
FAULT, AGAIN, PLACE, STEPS = "fault", "again", "place", "steps"
BASE, SPACE, JUDGED = "base", "space", "judged"
"""Attributes of trials: why it failed, the number of its next try, the number that its folder has, steps of its runs;
and of a study: the arguments of its runs, what it varies, what the value of a trial is made of."""
MOST_TRIES = 5
"""Of the same settings, when the process that runs them keeps ending."""


def import_optuna() -> None:
    """Import Optuna, which then tells of what is wrong alone.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError(f"a search needs Optuna: pip install 'recurrent-ppo[sweep]' ({error})") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for said in (optuna.exceptions.ExperimentalWarning, UserWarning):
        warnings.filterwarnings("ignore", category=said, module="optuna")


def holds_study(folder: Path) -> bool:
    """Tell whether a search has written into a folder."""
    return (folder / JOURNAL).is_file()


def load_study(folder: Path, **options: Any) -> "Study":
    """Open the study of a folder, or begin it.

    Args:
        folder: exists.
        **options: ``sampler`` and ``pruner`` of Optuna; without any nothing is begun.

    Raises:
        ConfigError: its journal is damaged, or holds no study.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = folder / JOURNAL
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        if not options:
            return optuna.load_study(study_name=NAME, storage=storage)
        return optuna.create_study(
            storage=storage, study_name=NAME, direction="maximize", load_if_exists=True, **options
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {type(error).__name__}: {error}") from error


class Trials:
    """The trials of a study as one process takes them.

    Args:
        folder: of the study.
        study: opened.
        space: what is varied.
        number: of trials that all processes together make.
    """

    def __init__(self, folder: Path, study: "Study", space: list[Parameter], number: int):
        self.folder, self.study, self.space, self.number = folder, study, space, number
        self._guard = threading.Lock()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While open, no other thread or process takes a trial or gives one up."""
        with self._guard, (self.folder / ".taking").open("a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)  # ends with the process
            yield

    def check_same(self, base: list[str], judged: dict[str, Any]) -> None:
        """Check that a study goes on with the runs and the settings that it began with, or write them down.

        Args:
            base: arguments of all runs.
            judged: what the value of a trial is made of; values of different runs cannot be compared.

        Raises:
            ConfigError: it does not.
        """
        space = {each.key: json.loads(json.dumps(each.distribution.__dict__, default=str)) for each in self.space}
        with self.alone():
            for name, now in ((BASE, base), (SPACE, space), (JUDGED, judged)):
                before = self.study.user_attrs.get(name)
                if before is None:
                    self.study.set_user_attr(name, now)
                elif before != now:
                    what, was, given = "other settings", _show(before), _show(now)
                    if name != SPACE:
                        what = "runs of other arguments"
                    raise ConfigError(
                        f"study={self.folder} holds {what}: {was} there, {given} here; give the same again, or "
                        "another folder"
                    )

    def take(self) -> "tuple[Trial, FolderLock] | None":
        """Take the next trial, with the lock of its folder; None if there are enough.

        Raises:
            ConfigError: all trials so far have failed.
        """
        with self.alone():
            self._give_up_dead()
            trials = self.list_counting()
            failed = [trial for trial in trials if trial.state.name == "FAIL"]
            if len(failed) >= min(3, self.number) and len(failed) == len([t for t in trials if t.state.is_finished()]):
                reason = failed[-1].user_attrs.get(FAULT, "no reason is known")
                raise ConfigError(f"all of {len(failed)} trials have failed, the last one so: {reason}")
            if len(trials) >= self.number:
                return None
            trial = self.study.ask({each.key: each.distribution for each in self.space})
            place = self.locate(trial)
            place.mkdir(parents=True, exist_ok=True)
            return trial, FolderLock(place, f"study={self.folder}")

    def list_counting(self) -> "list[FrozenTrial]":
        """Return the trials that have ended or are under way, without those whose settings are tried again."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state.name != "WAITING" and AGAIN not in trial.user_attrs]

    def locate(self, trial: "Trial | FrozenTrial") -> Path:
        """Return the folder of a trial: that of its first try, if it is tried again."""
        return locate_trial(self.folder, trial)

    def read(self, trial: "Trial") -> dict[str, Any]:
        """Return the settings of a trial by key.

        Raises:
            ConfigError: those to be tried again are not of this space; the journal was changed.
        """
        for each in self.space:
            if not each.holds(trial.params[each.key]):
                raise ConfigError(f"{each.key}={trial.params[each.key]!r} of trial {trial.number} is out of its range")
        return {each.key: trial.params[each.key] for each in self.space}

    def give_up(self, trial: "Trial | FrozenTrial", reason: str) -> None:
        """Tell that a running trial is dead, and let its settings be the next to be tried, unless they often were."""
        from optuna.trial import Trial, TrialState

        place = self.locate(trial)
        tries = [each for each in self.study.get_trials(deepcopy=False) if self.locate(each) == place]
        mine = Trial(self.study, trial._trial_id)
        mine.set_user_attr(FAULT, reason)
        if len(tries) < MOST_TRIES:
            mine.set_user_attr(AGAIN, True)
            self.study.enqueue_trial(trial.params, user_attrs={PLACE: int(place.name)})
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _give_up_dead(self) -> None:
        """Give up the trials whose process has ended."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.name == "RUNNING" and not is_locked(self.locate(trial)):
                self.give_up(trial, "its process had ended")


def locate_trial(folder: Path, trial: "Trial | FrozenTrial") -> Path:
    """Return the folder of a trial of a study: that of its first try, if it is tried again."""
    place = trial.user_attrs.get(PLACE, trial.number)
    return folder / "trials" / f"{place if isinstance(place, int) else trial.number:04d}"


def make_pruner(name: str | None, startup: int, resource: int) -> "BasePruner":
    """Make what ends trials that fall behind.

    Args:
        name: ``median``, ``hyperband`` or None.
        startup: trials at the beginning; the median prunes none before half of them are done.
        resource: evaluations of a trial.
    """
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name is None:
        return NopPruner()
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=max(resource, 1))
    return MedianPruner(n_startup_trials=max(startup // 2, 1), n_warmup_steps=max(resource // 10, 1))


def _show(value: Any) -> str:
    """Write arguments or settings for a message."""
    return " ".join(value) or "none" if isinstance(value, list) else json.dumps(value)

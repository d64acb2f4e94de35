"""An observer is told of a run and asked nothing; its faults are its own."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rl.checkpoint import write_text
from rl.types import Agent

NAMES_OF_RUN = "observers.json"
"""The file of a run folder with the names that the run has elsewhere, by observer."""

log = logging.getLogger(__name__)


class Run(Protocol):
    """What an observer may look at, and leaves as it is: a ``rl.training.Trainer``, of whose attributes these stay."""

    agent: Agent
    run_dir: Path
    total_steps: int
    evaluations: list[dict[str, float]]


@runtime_checkable
class Observer(Protocol):
    """Watches a run. Only the first shard of a run has observers."""

    def begin(self, run: Run, config: Mapping[str, Any]) -> None:
        """Take in which run it is.

        Args:
            run: ``run.agent.env_steps`` is 0, or the step that it goes on from: what was told of later ones is void.
            config: its settings as one level, ``agent.core.hidden_size`` and so on.
        """

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Take in the results of an update, or of an evaluation: those have ``eval/episodic_return``.

        Args:
            values: by their tags, see ``rl.training.metrics.GLOSSARY``.
            step: environment steps so far.
        """

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Take leave: ``result`` is what the run came to, None if it was stopped or has failed."""


class Observers:
    """Tells observers of a run. One that raises is told nothing more, and training goes on without it.

    Args:
        observers: by name.
    """

    def __init__(self, observers: Mapping[str, Observer] | None = None):
        self._left = dict(observers or {})

    def begin(self, run: Run, config: Mapping[str, Any]) -> None:
        """See ``Observer.begin``. What an earlier run in the same folder was called is forgotten."""
        if self._left and not run.agent.env_steps:
            (run.run_dir / NAMES_OF_RUN).unlink(missing_ok=True)
        self._tell(lambda observer: observer.begin(run, dict(config)))

    def report(self, values: Mapping[str, float], step: int) -> None:
        """See ``Observer.report``."""
        self._tell(lambda observer: observer.report(dict(values), step))

    def end(self, result: Mapping[str, Any] | None) -> None:
        """See ``Observer.end``; nothing is told afterwards."""
        self._tell(lambda observer: observer.end(result))
        self._left.clear()

    def _tell(self, call: Callable[[Observer], None]) -> None:
        for name, observer in list(self._left.items()):
            try:
                call(observer)
            except Exception as error:  # whatever a stranger's service raises
                del self._left[name]
                reason = " ".join([f"{type(error).__name__}:", *str(error).split()])
                log.warning("observer %s has failed: %s; training goes on without it", name, reason)


def recall_name(run: Run, observer: str) -> str | None:
    """Return the name that a run has elsewhere; None if it has none yet.

    Raises:
        ValueError: what the run folder holds is no name.
    """
    name = read_names(run).get(observer)
    if name is not None and not re.fullmatch(r"[\w-]{1,64}", str(name)):  # a run folder may come from anywhere
        raise ValueError(f"{NAMES_OF_RUN} holds {name!r} where the name of a run should be")
    return name


def remember_name(run: Run, observer: str, name: str) -> None:
    """Keep the name that a run has elsewhere in its folder."""
    write_text(run.run_dir / NAMES_OF_RUN, json.dumps(read_names(run) | {observer: name}, indent=1))


def read_names(run: Run) -> dict[str, str]:
    """Return the names that a run has elsewhere, by observer."""
    path = run.run_dir / NAMES_OF_RUN
    names: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    return names

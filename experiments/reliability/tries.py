"""One try: what it is called, what it does, how it ended, and many of them on several processes."""

import multiprocessing
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from experiments.reliability.judge import Fault


@dataclass(frozen=True)
class Place:
    """Where a try happens.

    Attributes:
        folder: empty at first, of this try alone; the working folder of its commands.
        prepared: run folders that were made once for all tries, see ``recipes``; they must not be changed.
    """

    folder: Path
    prepared: Path


@dataclass(frozen=True)
class Try:
    """One try.

    Attributes:
        kind: such as ``kills``.
        number: within its kind.
        label: what is done, in a few words.
        run: does it in a place; raises ``Fault`` if something is wrong. A function of a module, with its arguments, so
            that another process can be told of it.
    """

    kind: str
    number: int
    label: str
    run: Callable[[Place], None]

    @property
    def name(self) -> str:
        """What ``only=`` chooses it by."""
        return f"{self.kind}-{self.number:03d}"


@dataclass(frozen=True)
class Outcome:
    """How a try ended.

    Attributes:
        tried: the try.
        fault: what was wrong, in one sentence; None if nothing was.
        seconds: that it took.
    """

    tried: Try
    fault: str | None
    seconds: float


def draw(seed: int, kind: str, number: int) -> random.Random:
    """Return the generator of a try: the same for the same seed, kind and number, whatever else is tried."""
    return random.Random(f"{seed} {kind} {number}")


def number_tries(kind: str, labelled: Sequence[tuple[str, Callable[[Place], None]]]) -> list[Try]:
    """Return tries of a kind in the order in which they are listed."""
    return [Try(kind, number, label, run) for number, (label, run) in enumerate(labelled)]


def choose(tries: Sequence[Try], share: float, seed: int) -> list[Try]:
    """Draw a share of tries, at least one, in their order."""
    count = max(1, round(len(tries) * share))
    chosen = set(random.Random(seed).sample(range(len(tries)), count))
    return [tried for index, tried in enumerate(tries) if index in chosen]


def run_all(tries: Sequence[Try], prepared: Path, processes: int) -> Iterator[Outcome]:
    """Run tries on several processes at a time and yield their outcomes in the order of the tries."""
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, context) as pool:
        yield from pool.map(partial(run_try, prepared=prepared), tries)


def run_try(tried: Try, prepared: Path) -> Outcome:
    """Run one try in a folder that is deleted afterwards."""
    began = time.monotonic()
    base = Path(tempfile.mkdtemp(prefix=f"{tried.name}-", dir=prepared.parent))
    folder = base / "work"
    folder.mkdir()
    fault = None
    try:
        tried.run(Place(folder, prepared))
    except Fault as error:
        fault = str(error).replace(f"{folder}/", "")
    except Exception:  # of any class: a try that breaks is a failure too, and the others go on
        fault = f"the try itself broke: {traceback.format_exc().strip().splitlines()[-1]}"
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return Outcome(tried, fault, time.monotonic() - began)

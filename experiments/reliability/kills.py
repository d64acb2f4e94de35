"""Runs that are killed at a random moment, from their first line to their last, and resumed."""

import signal
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from experiments.launch.arguments import load_defaults
from experiments.reliability.judge import Fault, check_no_temporary, check_refused, check_success
from experiments.reliability.processes import run, start
from experiments.reliability.recipes import (
    RECIPES,
    check_finished,
    check_same_weights,
    list_usable,
    load_steps,
    read_seconds,
)
from experiments.reliability.tries import Place, Try, draw, number_tries
from rl.training.run import checkpoint_path

WORDS = (
    "SIGKILL at a random moment or in a save, once or twice; then resumed to the end, weights equal to those of an "
    "unbroken run"
)


def list_tries(count: int, seed: int) -> list[Try]:
    """List kills of every recipe in turn, at moments drawn from the time that it takes."""
    usable, found = list_usable(), []
    for number in range(count):
        random, name = draw(seed, "kills", number), usable[number % len(usable)]
        moments = [random.random() for _ in range(random.choice((1, 1, 2)))]
        aimed = random.random() < 0.5
        label = f"{name} killed {'in a save ' if aimed else ''}at {' and '.join(f'{each:.0%}' for each in moments)}"
        found.append((label, partial(kill_and_resume, name=name, moments=moments, aimed=aimed)))
    return number_tries("kills", found)


def kill_and_resume(place: Place, name: str, moments: list[float], aimed: bool) -> None:
    """Start a run, kill it at each moment, let it go on, and compare it with one that nobody killed.

    Args:
        place: of the try.
        name: of the recipe.
        moments: shares of the time that it takes.
        aimed: wait from there for the next change in the folder of the checkpoints: a save has begun.
    """
    recipe, seconds = RECIPES[name], read_seconds(place, name)
    words = recipe.start(place)
    for moment in moments:
        had = kill(words, place.folder, moment * seconds, aimed)
        words = go_on(place, name, had)
    check_success(run(words, place.folder))
    check_finished(place, name)
    check_same_weights(place, name)
    check_no_temporary(place.folder)


def kill(words: list[str], folder: Path, after: float, aimed: bool) -> bool:
    """Start a command and kill it; say whether it had saved itself before."""
    running, end = start(words, folder), time.monotonic() + after
    while time.monotonic() < end and not running.ended:
        time.sleep(min(0.01, max(0.0, end - time.monotonic())))
    path = checkpoint_path(folder / "run")
    saved, before = path.is_file(), look(path.parent)
    while aimed and look(path.parent) == before and not running.ended:
        time.sleep(1e-4)
    running.send(signal.SIGKILL)
    ended = running.wait()
    if ended.left:
        raise Fault(f"{ended.left} processes outlived the run that was killed")
    return saved


def look(folder: Path) -> set[tuple[str, int, int]]:
    """Return name, size and time of all files in a folder."""
    found = set()
    with suppress(OSError):  # one may go away meanwhile
        for path in folder.iterdir():
            state = path.stat()
            found.add((path.name, state.st_size, state.st_mtime_ns))
    return found


def go_on(place: Place, name: str, saved: bool) -> list[str]:
    """Return the words that go on with a run that was killed; those of a fresh start if it had not saved itself.

    Raises:
        Fault: what it had saved is lost.
    """
    recipe, run_dir = RECIPES[name], place.folder / "run"
    if saved and not checkpoint_path(run_dir).is_file():
        raise Fault("the checkpoint was there before the kill and is gone")
    if checkpoint_path(run_dir).is_file():
        load_steps(run_dir)
        return recipe.resume()
    refused = run(recipe.resume(), place.folder)
    if refused.code == 0:
        return recipe.resume()
    check_refused(refused, "run")  # nothing was saved, which it says; the same command then begins again
    held = (run_dir / "config.yaml").is_file() and "overwrite" in load_defaults(recipe.command)
    return [*recipe.start(place), *(["overwrite=true"] if held else [])]

"""Signals at random moments: what a terminal, a scheduler and a closed window send to every command that takes long."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from experiments.launch.arguments import load_defaults
from experiments.reliability.judge import (
    Fault,
    check_no_temporary,
    check_refused,
    check_stopped,
    check_success,
    list_files,
    quote,
)
from experiments.reliability.processes import Ended, Running, run, run_main
from experiments.reliability.recipes import RECIPES, RECORD, SMALL, check_finished, copy_run, load_steps, read_seconds
from experiments.reliability.tries import Place, Try, draw, number_tries
from rl.training.run import checkpoint_path

WORDS = (
    "SIGINT, SIGTERM, SIGHUP, or two in a row, at a random moment of every command that takes long: exit code 130, 143 "
    "or 129, one line, no process left, and what was done can be gone on with"
)
CHOICES = (
    (signal.SIGINT,),
    (signal.SIGTERM,),
    (signal.SIGHUP,),
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGINT),
)
SWEEP = ("train", "--multirun", "seed=1,2,3", "hydra.sweep.dir=sweep", *SMALL, "total_steps=400")
IMPORT_SECONDS = 4.0
TABLE_SECONDS = 8.0


def list_tries(count: int, seed: int) -> list[Try]:
    """List signals to every target in turn."""
    targets: list[tuple[str, Callable[..., None]]] = [
        ("train ppo", partial(stop_run, name="ppo")),
        ("train iqn", partial(stop_run, name="iqn")),
        ("sweep", stop_sweep),
        ("train population", partial(stop_run, name="population")),
        ("evaluate", stop_evaluate),
        ("train from its imports on", stop_imports),
    ]
    if RECIPES["imitation"].usable:
        targets += [("imitate", partial(stop_run, name="imitation")), ("record", stop_record)]
    targets.append(("learning_table", stop_table))
    found = []
    for number in range(count):
        random = draw(seed, "signals", number)
        (label, target), numbers = targets[number % len(targets)], random.choice(CHOICES)
        moment, gap = random.random(), random.choice((0.0, 0.02, 0.3))
        names = " and ".join(each.name for each in numbers)
        found.append((f"{names} to {label} at {moment:.0%}", partial(target, numbers=numbers, moment=moment, gap=gap)))
    return number_tries("signals", found)


def interrupt(running: Running, numbers: Sequence[int], after: float, gap: float) -> tuple[Ended, bool]:
    """Send signals to a command after some seconds; return how it ended, and whether they came in time.

    What a terminal sends reaches the whole session, what ``kill`` sends the command alone.
    """
    time.sleep(after)
    late = running.ended
    for number in numbers:
        running.send(number, group=number in (signal.SIGINT, signal.SIGHUP))
        time.sleep(gap)
    return running.wait(), not late


def check_interrupted(ended: Ended, numbers: Sequence[int], in_time: bool, whole: bool) -> bool:
    """Check how a command ended that got signals; say whether they have stopped it.

    Args:
        ended: how it ended.
        numbers: the signals.
        in_time: they came before its end.
        whole: it had done all of its work, so that exit code 0 is right.
    """
    if ended.code == 0 and (whole or not in_time):
        check_success(ended)
        return False
    fitting = [number for number in numbers if ended.code in (128 + number, -number)]
    check_stopped(ended, (fitting or numbers)[0])
    return True


def stop_run(place: Place, name: str, numbers: Sequence[int], moment: float, gap: float) -> None:
    """Stop a run, then let it go on to its end."""
    recipe, run_dir = RECIPES[name], place.folder / "run"
    running = Running(partial(run_main, recipe.start(place)), place.folder)
    ended, in_time = interrupt(running, numbers, moment * read_seconds(place, name), gap)
    result = run_dir / "result.json"
    check_interrupted(ended, numbers, in_time, result.is_file())
    finish_run(place, name, run_dir, "resume=" in ended.text)


def finish_run(place: Place, name: str, run_dir: Path, promised: bool) -> None:
    """Go on with a run that was stopped, or begin again where nothing was saved.

    Args:
        place: of the try.
        name: of the recipe.
        run_dir: of the run.
        promised: it has said that it can be resumed.
    """
    recipe = RECIPES[name]
    if checkpoint_path(run_dir).is_file():
        load_steps(run_dir)
        check_success(run(recipe.resume(), place.folder))
    else:
        refused = run(recipe.resume(), place.folder)
        if promised or refused.code == 0:
            check_success(refused)
        else:
            check_refused(refused, "run")
            held = (run_dir / "config.yaml").is_file() and "overwrite" in load_defaults(recipe.command)
            check_success(run([*recipe.start(place), *(["overwrite=true"] if held else [])], place.folder))
    check_finished(place, name)
    check_no_temporary(place.folder)


def stop_imports(place: Place, numbers: Sequence[int], moment: float, gap: float) -> None:
    """Stop ``python -m experiments.train`` itself, with its imports, then let it go on or begin again."""
    words = [sys.executable, "-m", "experiments.train", *RECIPES["ppo"].start(place)[1:]]
    running = Running(lambda: os.execv(sys.executable, words), place.folder)
    ended, in_time = interrupt(running, numbers, 0.3 + moment * IMPORT_SECONDS, gap)
    if ended.code is not None and ended.code < 0 and not (place.folder / "run").exists():
        ended = Ended(128 - ended.code, ended.out, ended.err, ended.seconds, ended.left)  # no line of ours has run yet
    check_interrupted(ended, numbers, in_time, (place.folder / "run" / "result.json").is_file())
    finish_run(place, "ppo", place.folder / "run", "resume=" in ended.text)


def stop_sweep(place: Place, numbers: Sequence[int], moment: float, gap: float) -> None:
    """Stop a sweep: no further job may begin, and the one that was stopped can be resumed."""
    running = Running(partial(run_main, SWEEP), place.folder)
    ended, in_time = interrupt(running, numbers, moment * 3 * read_seconds(place, "ppo") / 2, gap)
    jobs = sorted(path.parent for path in (place.folder / "sweep").rglob("config.yaml"))
    done = [job for job in jobs if (job / "result.json").is_file()]
    if not check_interrupted(ended, numbers, in_time, len(done) == 3):
        return
    for job in jobs:
        if checkpoint_path(job).is_file():
            load_steps(job)
            check_success(run(["train", f"resume={job}"], place.folder))
        if job not in done and job != jobs[-1]:
            raise Fault("jobs of the sweep went on after the one that was stopped")
    check_no_temporary(place.folder)


def stop_evaluate(place: Place, numbers: Sequence[int], moment: float, gap: float) -> None:
    """Stop an evaluation; what it writes is whole or not there, and it can be run again."""
    copy_run(place, "ppo")
    words = ["evaluate", "run=run", "episodes=400"]
    before = list_files(place.folder)
    ended, in_time = interrupt(Running(partial(run_main, words), place.folder), numbers, 0.05 + moment, gap)
    path = place.folder / "run" / "evaluation.json"
    check_interrupted(ended, numbers, in_time, path.is_file())
    if path.is_file():
        check_json(path)
    elif list_files(place.folder) != before:
        raise Fault(f"an evaluation that was stopped has changed the run folder; {quote(ended)}")
    check_success(run(words, place.folder))


def stop_record(place: Place, numbers: Sequence[int], moment: float, gap: float) -> None:
    """Stop a recording; it can be made again under the same name."""
    words = [*RECORD, "output=mine"]
    seconds = read_seconds(place, "record")
    ended, in_time = interrupt(Running(partial(run_main, words), place.folder), numbers, moment * seconds, gap)
    if check_interrupted(ended, numbers, in_time, (place.folder / "mine").exists()):
        check_success(run(words, place.folder))


def stop_table(place: Place, numbers: Sequence[int], moment: float, gap: float) -> None:
    """Stop a learning table: its children end with it, and it goes on where it was."""
    overrides = ",".join(f"'{word}'" for word in (*SMALL, "threshold=0", "evaluate_every=8"))
    row = f"+table.maze={{experiment: t_maze_10, label: maze, overrides: [{overrides}]}}"
    words = ["learning_table", row, "rows=[maze]", "seeds=[1,2]", "output=table", "plot=curves.png"]
    ended, in_time = interrupt(Running(partial(run_main, words), place.folder), numbers, moment * TABLE_SECONDS, gap)
    check_interrupted(ended, numbers, in_time, (place.folder / "table" / "table.json").is_file())
    check_success(run(words, place.folder))


def check_json(path: Path) -> None:
    """Check that a file is whole JSON.

    Raises:
        Fault: it is not.
    """
    try:
        json.loads(path.read_text())
    except ValueError as error:
        raise Fault(f"{path.name} is half written: {error}") from error

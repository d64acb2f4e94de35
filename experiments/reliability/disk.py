"""Disks that are full, folders that vanish or cannot be written, files where folders should be."""

import ctypes
import os
import resource
import shutil
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from experiments.reliability.judge import (
    Fault,
    check_no_temporary,
    check_refused,
    check_refused_or_done,
    check_success,
    list_files,
)
from experiments.reliability.processes import run, start
from experiments.reliability.recipes import MAZE, RECIPES, SMALL, copy_run, load_steps, read_seconds
from experiments.reliability.tries import Place, Try, draw, number_tries
from rl.training.run import checkpoint_path

WORDS = (
    "a full disk (files end at a random size), a run folder that is removed, replaced or read-only, a file where a "
    "folder should be and the other way round, links to nowhere, a full device as output: one sentence that names the "
    "file, and older checkpoints as they were"
)
CAPABILITY_VERSION, IGNORE_PERMISSIONS = 0x20080522, (1, 2)
"""Of the system calls on capabilities; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
LIMITED = 14
MOMENTS = 3
TRAIN = ("train", *SMALL)
LONGER = "total_steps=1280"
READERS = (["train", "resume=run", LONGER], ["evaluate", "run=run", "episodes=2"])
Spoil = Callable[[Path], object]


def list_tries(seed: int) -> list[Try]:
    """List disk faults; sizes and moments are drawn."""
    found: list[tuple[str, Callable[[Place], None]]] = []
    for number in range(LIMITED):
        size = int(200 * 2 ** (9 * draw(seed, "disk", number).random()))
        name = "imitation" if number % 7 == 6 and RECIPES["imitation"].usable else "ppo"
        found.append((f"{name}: no file beyond {size} bytes", partial(fill_disk, name=name, size=size)))
    for number in range(MOMENTS):
        moment = 0.2 + 0.7 * draw(seed, "disk moments", number).random()
        for what, spoil in (("removed", remove), ("replaced by a file", replace_by_file)):
            for part in ("run", "run/checkpoints"):
                label = f"{part} is {what} at {moment:.0%} of a run"
                found.append((label, partial(spoil_running, part=part, spoil=spoil, moment=moment)))
    for words in READERS:
        found.append((f"{words[0]} in a read-only run folder", partial(lock_folder, words=words)))
    found.append(("train in a read-only folder", partial(lock_folder, words=[*TRAIN, "run_dir=run/inner"])))
    for label, change in SPOILED.items():
        for words in READERS:
            found.append((f"{label}: {words[0]}", partial(spoil_before, words=words, spoil=change)))
    for target in ("file", "link"):
        found.append(
            (f"run_dir is a {target}", partial(refuse_target, words=[*TRAIN, f"run_dir={target}"], name=target))
        )
        words = ["record", "player=envs.players.TMazeExpert", *MAZE, "episodes=2", f"output={target}/mine"]
        if find_spec("minari"):
            found.append((f"record below a {target}", partial(refuse_target, words=words, name=target)))
    for words in list_outputs("/dev/full") + list_outputs("file/output.png"):
        found.append((" ".join(words), partial(refuse_target, words=words, name=words[-1].partition("=")[2])))
    for command in ("train", "evaluate"):
        found.append((f"{command} with stdout on a full device", partial(fill_stdout, command=command)))
    return number_tries("disk", found)


def list_outputs(path: str) -> list[list[str]]:
    """List commands that write to a path."""
    realtime = ["realtime", "cores=[mlp]", "steps=2", "late_step=4", "input_size=2", "layer_size=2", "hidden_size=2"]
    return [
        ["plot", "runs=[run]", f"output={path}"],
        ["export", "run=run", "steps=2", f"output={path}"],
        [*realtime, "window=2", f"output={path}"],
    ]


def fill_disk(place: Place, name: str, size: int) -> None:
    """Let a run go on, and one begin, where no file can grow beyond a size; the checkpoint of before stays."""
    folder = copy_run(place, name)
    content = checkpoint_path(folder).read_bytes()
    more = "imitation.epochs=16" if name == "imitation" else LONGER
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    ended = run(RECIPES[name].resume("run", more), place.folder, before=full)
    check_refused_or_done(ended, "too large", "No space", "last.pt", "run/", str(folder))
    if checkpoint_path(folder).read_bytes() != content:
        load_steps(folder)
    check_no_temporary(place.folder)
    check_success(run(RECIPES[name].resume("run", more), place.folder))
    ended = run(RECIPES[name].start(place, "fresh"), place.folder, before=full)
    check_refused_or_done(ended, "too large", "No space", "fresh")
    check_no_temporary(place.folder)


def spoil_running(place: Place, part: str, spoil: Spoil, moment: float) -> None:
    """Take a folder away from a run that is on its way."""
    running = start(RECIPES["ppo"].start(place), place.folder)
    time.sleep(moment * read_seconds(place, "ppo"))
    target = place.folder / part
    if not running.ended and target.is_dir():
        try:
            spoil(target)
        except OSError:  # the run has written into it meanwhile
            spoil(target)
    ended = running.wait()
    check_refused_or_done(ended, "run")
    if ended.code == 0 and not (place.folder / "run" / "config.yaml").is_file():
        raise Fault("the run ended well, but its folder cannot be resumed: it has no config.yaml")


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, though a run may be writing there."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


def replace_by_file(folder: Path) -> None:
    """Put a file in the place of a folder."""
    remove(folder)
    folder.touch()


def lock_folder(place: Place, words: list[str]) -> None:
    """Run a command in a run folder that it may not write, as a user without privileges."""
    folder = copy_run(place, "ppo")
    content = checkpoint_path(folder).read_bytes()
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = list_files(place.folder)
    ended = run(words, place.folder, before=drop_privileges)
    check_refused(ended, "run", "ermission", "cannot be written")
    if list_files(place.folder) != before or checkpoint_path(folder).read_bytes() != content:
        raise Fault("a read-only folder was changed")
    for path in paths:  # or it could not be deleted
        path.chmod(0o755)


def drop_privileges() -> None:
    """Let file permissions hold for this process even if it is root's.

    Raises:
        OSError: the system does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for index in (0, 1):  # effective and permitted; the rest of both lies behind the inheritable ones
        sets[index] &= ~sum(1 << number for number in IGNORE_PERMISSIONS)
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "file permissions cannot be made to hold for root")


def spoil_before(place: Place, words: list[str], spoil: Spoil) -> None:
    """Change a run folder, then run a command on it."""
    folder = copy_run(place, "ppo")
    spoil(folder)
    check_refused(run(words, place.folder), "run", str(folder))
    check_no_temporary(place.folder)


def _replace_by_folder(name: str, folder: Path) -> None:
    for path in folder.glob(name):
        path.unlink()
        path.mkdir()


def _replace_inner(name: str, folder: Path) -> None:
    replace_by_file(folder / name)


def _link_to_nowhere(folder: Path) -> None:
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
        path.symlink_to(folder / "nowhere")


SPOILED: dict[str, Spoil] = {
    "checkpoints are folders": partial(_replace_by_folder, "checkpoints/*.pt"),
    "checkpoints is a file": partial(_replace_inner, "checkpoints"),
    "config.yaml is a folder": partial(_replace_by_folder, "config.yaml"),
    "checkpoints are links to nowhere": _link_to_nowhere,
}


def refuse_target(place: Place, words: list[str], name: str) -> None:
    """Run a command that is to write where nothing can be written."""
    copy_run(place, "ppo")
    (place.folder / "file").touch()
    (place.folder / "link").symlink_to(place.folder / "nowhere" / "deeper")
    before = list_files(place.folder)
    check_refused_or_done(run(words, place.folder), name)
    if not (place.folder / "file").is_file() or before - list_files(place.folder):
        raise Fault("a command has replaced a file of the user")


def fill_stdout(place: Place, command: str) -> None:
    """Run a command whose stdout is a full device."""
    copy_run(place, "ppo")
    words = [*TRAIN, "run_dir=new"] if command == "train" else ["evaluate", "run=run", "episodes=2"]
    check_refused_or_done(run(words, place.folder, before=_write_nowhere), "No space", "stdout")


def _write_nowhere() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

"""Damaged files: bits, blocks and ends of checkpoints, configurations, recordings and results, and entries inside."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
from omegaconf import OmegaConf

import rl
from experiments.launch.build import build
from experiments.launch.run_folder import load_run_config
from experiments.launch.sentences import FAULTS, describe
from experiments.reliability.damages import ENTRIES, damage_bytes, edit_entry
from experiments.reliability.judge import Fault, check_refused_or_done, check_refused_or_told, quote
from experiments.reliability.processes import call, run
from experiments.reliability.recipes import copy_run, list_usable
from experiments.reliability.tries import Place, Try, draw, number_tries
from experiments.tables.curves import read_curve
from experiments.tables.runs import list_remaining_arguments
from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.recordings.minari_data import read_minari
from rl.training.run import checkpoint_path

WORDS = (
    "bits flipped, blocks zeroed, ends cut off, files emptied or swapped with others, entries removed or replaced "
    "inside, of checkpoints, configurations, recordings, results and curves: refused in a sentence that names the "
    "file, or a fallback that is stated"
)
OPTIONAL = ("resetting", "construction")
"""Entries of a checkpoint that a resumed run can do without."""
Subject = Callable[[Place, Random], None]


def list_tries(count: int, seed: int) -> list[Try]:
    """List damages to every subject in turn, as often as its weight says; what is damaged and where is drawn."""
    wheel = [subject for weight, subject in SUBJECTS for _ in range(weight)]
    if find_spec("minari"):
        wheel += [damage_data_set] * 2
    if find_spec("onnxruntime"):
        wheel.append(damage_policy_recording)
    chosen = [wheel[number % len(wheel)] for number in range(count)]
    labelled = [
        (subject.__name__.removeprefix("damage_").replace("_", " "), partial(try_damage, number, seed, subject))
        for number, subject in enumerate(chosen)
    ]
    return number_tries("damage", labelled)


def try_damage(number: int, seed: int, subject: Subject, place: Place) -> None:
    """Damage a subject as the number of the try says."""
    subject(place, draw(seed, "damage", number))


def tell(words: str, check: Callable[[], None]) -> None:
    """Run a check; a fault says what was damaged.

    Raises:
        Fault: the check has found one.
    """
    try:
        check()
    except Fault as fault:
        raise Fault(f"{words}: {fault}") from None


def damage_checkpoint(place: Place, random: Random) -> None:
    """Damage the bytes of a checkpoint and load it in this program."""
    name = random.choice(list_usable())
    path = checkpoint_path(copy_run(place, name))
    remove_spares(path)
    words = damage_file(path, random)
    ended = call(partial(load_checkpoint, path), place.folder)
    tell(f"{name} last.pt, {words}", partial(check_refused_or_told, ended, path.name, "damaged"))


def damage_checkpoint_of_a_command(place: Place, random: Random) -> None:
    """Damage the bytes of the newest checkpoint and run a command on its run folder, with or without an older one."""
    path = checkpoint_path(copy_run(place, "ppo"))
    spare = random.random() < 0.5
    if spare and not list_spares(path):
        spare = False
    if not spare:
        remove_spares(path)
    words = damage_file(path, random)
    command = random.choice(COMMANDS)
    ended = run(command, place.folder)
    beside = "with" if spare else "without"
    check = partial(check_refused_or_told, ended, path.name, "damaged", "previous.pt")
    tell(f"{command[0]} {command[1]}, last.pt {beside} an older one, {words}", check)
    if spare and command[0] == "train" and ended.code:
        raise Fault(f"last.pt, {words}: an older checkpoint lies beside it and was not used; {quote(ended)}")


def damage_entry_and_resume(place: Place, random: Random) -> None:
    """Remove or replace an entry of a checkpoint that is otherwise whole, and resume."""
    name = random.choice([each for each in list_usable() if each != "imitation"])
    damage_entry(place, random, name, (), ["train", "resume=run", f"total_steps={336 if name == 'ppo' else 112}"])


def damage_entry_and_play(place: Place, random: Random) -> None:
    """Remove or replace an entry of the weights, and play."""
    load = getattr(rl, "load_agent", None)
    command = random.choice([*COMMANDS[1:3], *([None] if load else [])])
    damage_entry(place, random, "ppo", ("agent", "network"), command)


def damage_entry(place: Place, random: Random, name: str, within: Sequence[str], command: list[str] | None) -> None:
    """Change an entry, save the checkpoint as this project does, and use it."""
    path = checkpoint_path(copy_run(place, name))
    content = load_checkpoint(path)
    inner = content
    for key in within:
        inner = inner[key]
    words = edit_entry(inner, random, OPTIONAL)
    try:
        save_checkpoint(content, path)
    except ValueError:  # so it could never have been written
        return
    remove_spares(path)
    if command is None:
        ended = call(partial(rl.load_agent, place.folder / "run"), place.folder)
    else:
        ended = run(command, place.folder)
    words = f"{name}, {'load_agent' if command is None else ' '.join(command[:2])}, {words}"
    tell(words, partial(check_refused_or_told, ended, path.name, "checkpoint", "damaged"))


def damage_config(place: Place, random: Random) -> None:
    """Damage the bytes or a key of ``config.yaml`` and build what it stands for in this program."""
    folder = copy_run(place, random.choice([name for name in list_usable() if name != "imitation"]))
    words = damage_config_file(folder / "config.yaml", random)
    ended = call(partial(build_stored, folder), place.folder)
    tell(f"config.yaml, {words}", partial(check_refused_or_done, ended))


def damage_config_of_a_command(place: Place, random: Random) -> None:
    """Damage the bytes or a key of ``config.yaml`` and run a command on the run folder."""
    words = damage_config_file(copy_run(place, "ppo") / "config.yaml", random)
    command = random.choice([*COMMANDS, ["plot", "runs=[run]", "tag=losses/entropy", "output=curves.png"]])
    ended = run(command, place.folder)
    tell(f"{command[0]} {command[1]}, config.yaml, {words}", partial(check_refused_or_done, ended))


def damage_config_file(path: Path, random: Random) -> str:
    """Damage the bytes of a configuration, or a key of it; return in words what was done."""
    if random.random() < 0.4:
        return damage_file(path, random)
    content = OmegaConf.to_container(OmegaConf.load(path))
    words = edit_entry(content, random, (), ENTRIES[:-2])
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(content)))
    return words


def build_stored(folder: Path) -> None:
    """Build what a stored configuration stands for, with the sentence that a command would print.

    Raises:
        ValueError: it cannot be built.
    """
    try:
        with closing(build(load_run_config(folder))):
            return
    except FAULTS as error:
        raise ValueError(describe(error, "evaluate")) from None


def damage_data_set(place: Place, random: Random) -> None:
    """Damage a file of a Minari data set and read it in this program, or learn from it."""
    copy_run(place, "recording", "data_set")
    path = place.folder / "data_set" / "data" / random.choice(("main_data.hdf5", "metadata.json"))
    if path.suffix == ".json" and random.random() < 0.5:
        content = json.loads(path.read_text())
        words = edit_entry(content, random, (), ENTRIES[:-2])
        path.write_text(json.dumps(content))
    else:
        words = damage_file(path, random)
    if random.random() < 0.7:
        ended = call(partial(read_minari, "data_set"), place.folder)
    else:
        small = "agent.layer_size=4", "agent.core.hidden_size=4", "imitation.epochs=1", "run_dir=new"
        ended = run(["imitate", "data=data_set", *small], place.folder)
    check = partial(check_refused_or_done, ended, "data_set", path.name, "recording", "data set")
    tell(f"{path.name}, {words}", check)


def damage_policy_recording(place: Place, random: Random) -> None:
    """Damage the recording beside an exported policy and play it."""
    copy_run(place, "policy", "policy")
    path = place.folder / "policy" / "policy.npz"
    if random.random() < 0.4:
        arrays = dict(np.load(path))
        words = edit_entry(arrays, random, ())
        np.savez_compressed(path, **arrays)
    else:
        words = damage_file(path, random)
    ended = call(partial(replay, place.folder / "policy" / "policy.onnx", path), place.folder)
    tell(f"policy.npz, {words}", partial(check_refused_or_done, ended, path.name))


def replay(model: Path, recording: Path) -> None:
    """Play a recording through a model.

    Raises:
        ValueError: what comes out is not what was recorded.
    """
    from experiments.replay_onnx import replay as play  # needs a package of an extra

    try:
        play(str(model), str(recording))
    except AssertionError as error:
        raise ValueError(f"{recording.name}: {error}") from None


def damage_result(place: Place, random: Random) -> None:
    """Damage ``result.json`` and ask what is left to do of the run, as a table does."""
    path = copy_run(place, "ppo") / "result.json"
    if random.random() < 0.4:
        content = json.loads(path.read_text())
        words = edit_entry(content, random, (), ENTRIES[:-2], keys=("env_steps", "total_steps"))
        path.write_text(json.dumps(content))
    else:
        words = damage_file(path, random)
    ended = call(partial(read_remaining, path.parent), place.folder)
    tell(f"result.json, {words}", partial(check_refused_or_done, ended, path.name))


def read_remaining(folder: Path) -> None:
    """Ask what is left to do of a run, with the sentence that a command would print.

    Raises:
        ValueError: its result cannot be read.
    """
    try:
        list_remaining_arguments(folder, ["experiment=t_maze_10"])
    except FAULTS as error:
        raise ValueError(describe(error, "learning_table")) from None


def damage_curves(place: Place, random: Random) -> None:
    """Damage the curves of a run and read one of them."""
    folder = copy_run(place, "ppo")
    path = random.choice(sorted(folder.glob("events.*")))
    words = damage_file(path, random)
    ended = call(partial(read_curve, folder, "losses/entropy"), place.folder)
    tell(f"curves, {words}", partial(check_refused_or_done, ended, path.name, "run"))


def damage_file(path: Path, random: Random) -> str:
    """Damage the bytes of a file; return in words what was done."""
    data = path.read_bytes()
    changed, words = damage_bytes(data, random)
    path.write_bytes(changed)
    return words


def list_spares(path: Path) -> list[Path]:
    """List the other checkpoints beside one."""
    return [other for other in path.parent.glob("*.pt") if other != path]


def remove_spares(path: Path) -> None:
    """Remove the other checkpoints beside one."""
    for other in list_spares(path):
        other.unlink()


COMMANDS = (
    ["train", "resume=run", "total_steps=336"],
    ["evaluate", "run=run", "episodes=2"],
    ["export", "run=run", "steps=2", "output=policy.pt2"],
)
SUBJECTS: tuple[tuple[int, Subject], ...] = (
    (8, damage_checkpoint),
    (2, damage_entry_and_resume),
    (1, damage_entry_and_play),
    (2, damage_checkpoint_of_a_command),
    (3, damage_config),
    (1, damage_config_of_a_command),
    (1, damage_result),
    (1, damage_curves),
)

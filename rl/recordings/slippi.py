"""Reads Slippi replays (.slp) of Super Smash Bros. Melee as recordings, through the package peppi-py.

An episode is one port of one game: what it saw of both characters after frame t - 1 (``post``), and the controller
input that frame t then used (``pre``), so no observation shows an effect of the input it is paired with. The input is
eight buttons, four stick axes in 17 bins and the shoulder in 5 bins. Of a frame that was played again after a rollback
the last copy counts. Of the Ice Climbers the leader alone is seen.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from rl.recordings.recording import Recording

log = logging.getLogger(__name__)
BUTTONS = {"a": 0x100, "b": 0x200, "x": 0x400, "y": 0x800, "z": 0x10, "l": 0x40, "r": 0x20, "d_up": 0x8}
STICKS = ("joystick.x", "joystick.y", "cstick.x", "cstick.y")
STICK_BINS, SHOULDER_BINS = 17, 5
ACTION_SPACE = spaces.MultiDiscrete([2] * len(BUTTONS) + [STICK_BINS] * len(STICKS) + [SHOULDER_BINS])
ACTION_NAMES = (*BUTTONS, "main_x", "main_y", "c_x", "c_y", "shoulder")
SIX_HEADS = (1 / len(BUTTONS),) * len(BUTTONS) + (1.0,) * (len(STICKS) + 1)
"""The loss that ExPhil reports: the mean over the buttons plus four sticks plus the shoulder."""

STATES, CHARACTERS = 512, 33
NUMBERS = {  # field of a character after a frame: least and greatest value allowed, what it is divided by
    "position.x": (-1000, 1000, 100),
    "position.y": (-1000, 1000, 100),
    "direction": (-1, 1, 1),
    "percent": (0, 999, 100),
    "shield": (0, 60, 60),
    "stocks": (0, 99, 4),
    "state_age": (-1, 10_000, 50),
    "airborne": (0, 1, 1),
    "jumps": (0, 10, 2),
    "hitlag": (0, 1000, 10),
    "velocities.self_x_air": (-100, 100, 5),
    "velocities.self_x_ground": (-100, 100, 5),
    "velocities.self_y": (-100, 100, 5),
    "velocities.knockback_x": (-100, 100, 5),
    "velocities.knockback_y": (-100, 100, 5),
}
CODES = {"state": (0, STATES - 1), "character": (0, CHARACTERS - 1)}
INPUTS = {"buttons_physical": (0, 0xFFFF), **dict.fromkeys(STICKS, (-1.0001, 1.0001)), "triggers": (0, 1.0001)}
CAP = 3.0  # a state's age in units of 50 frames, beyond which it tells nothing more
OBSERVATION_SPACE = spaces.Dict(
    {
        f"{side}_{part}": space
        for side in ("own", "other")
        for part, space in (
            ("numbers", spaces.Box(-np.inf, np.inf, (len(NUMBERS),))),
            ("state", spaces.Discrete(STATES)),
            ("character", spaces.Discrete(CHARACTERS)),
        )
    }
)


Game = list[tuple[dict[str, np.ndarray], np.ndarray]]
"""Observations and actions of each of the two ports."""


def list_slippi_files(name: str) -> list[Path]:
    """List a .slp file, or those directly in a folder; none if ``name`` is something else."""
    path = Path(name).expanduser()
    if path.suffix.lower() == ".slp":
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix.lower() == ".slp") if path.is_dir() else []


def read_slippi(paths: Sequence[Path]) -> Recording:
    """Read games of two players each as one recording; the two episodes of a game are one group.

    A game that cannot be read, or is there twice, is left out, and a line of the log says why.

    Raises:
        ImportError: peppi-py is not installed.
        FileNotFoundError: a file is missing.
        ValueError: no file can be read: they are damaged, have another number of players or hold values out of range.
    """
    try:
        import peppi_py
    except ImportError as error:
        raise ImportError(f"Slippi games need the package {error.name}: pip install 'recurrent-ppo[melee]'") from error
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    games: list[Game] = []
    names: dict[bytes, str] = {}  # of the files by their content
    faults: list[str] = []
    for path in paths:
        try:
            content = hashlib.sha256(read_bytes(path)).digest()
            if content in names:
                raise ValueError(f"{path.name} is a copy of {names[content]}")
            games.append(read_game(parse(peppi_py, path), path.name))
            names[content] = path.name
        except ValueError as error:
            faults.append(str(error))
    if not games:
        raise ValueError(faults[0] if len(faults) == 1 else f"no game of {len(faults)} can be read: {faults[0]}; ...")
    for fault in faults:
        log.warning("left out: %s", fault)
    return join_games(games)


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}") from error


def parse(peppi_py: Any, path: Path) -> Any:
    """Return the frames of a game as peppi has them.

    Raises:
        ValueError: the file is damaged or no Slippi game.
    """
    try:
        with silence():
            return peppi_py.read_slippi(str(path)).frames
    except BaseException as error:  # peppi's errors have no base class of their own, and its panics none at all
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path.name} is damaged or no Slippi game ({cause})") from error


@contextmanager
def silence() -> Iterator[None]:
    """While open, drop what is written to the process's standard error: a panic of the parser writes its own trace."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def join_games(games: list[Game]) -> Recording:
    """Put games end to end."""
    episodes = [(group, *episode) for group, game in enumerate(games) for episode in game]
    obs = {name: np.concatenate([leaves[name] for _, leaves, _ in episodes]) for name in OBSERVATION_SPACE.spaces}
    actions = [inputs for *_, inputs in episodes]
    bounds = np.cumsum([0, *map(len, actions)])
    return Recording(
        OBSERVATION_SPACE,
        ACTION_SPACE,
        obs,
        np.concatenate(actions),
        np.zeros(bounds[-1], dtype=np.float32),
        bounds,
        np.array([group for group, *_ in episodes]),
        ACTION_NAMES,
        {"six_heads": SIX_HEADS},
    )


def read_game(frames: Any, name: str) -> Game:
    """Read observations and actions of each of the two ports; ``name`` is for messages.

    Raises:
        ValueError: there is another number of players or less than 2 frames, a frame is missing, or a value is out of
            range.
    """
    if frames is None or len(frames.ports) != 2:
        raise ValueError(f"{name} has {0 if frames is None else len(frames.ports)} players: games of two can be read")
    players = [(port.leader, f"{name}, player {number}") for number, port in enumerate(frames.ports, 1)]
    rows = find_last_copies(frames.id.to_numpy(zero_copy_only=False), name)
    seen = [read_character(player.post, where, rows) for player, where in players]
    inputs = [read_controller(player.pre, where, rows) for player, where in players]
    if len(inputs[0]) < 2:
        raise ValueError(f"{name} has {len(inputs[0])} frames: there must be at least 2")
    episodes = []
    for own in (0, 1):
        leaves = {f"own_{part}": leaf[:-1] for part, leaf in seen[own].items()}
        leaves |= {f"other_{part}": leaf[:-1] for part, leaf in seen[1 - own].items()}
        episodes.append((leaves, inputs[own][1:]))
    return episodes


def find_last_copies(ids: np.ndarray, name: str) -> np.ndarray:
    """Find where the last copy of each frame stands, in the order of the frames.

    Args:
        ids: the number of each frame ``[N]``; a rollback goes back to a number that was there before.
        name: of the game, for messages.

    Raises:
        ValueError: a frame is missing.
    """
    numbers, places = np.unique(ids[::-1], return_index=True)
    gaps = np.flatnonzero(np.diff(numbers) != 1)
    if len(gaps):
        raise ValueError(f"{name} is damaged: frame {int(numbers[gaps[0]]) + 1} is missing")
    return len(ids) - 1 - places


def read_character(post: Any, where: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Read what is seen of a character after the frames ``rows``: numbers of order 1, its state and its kind."""
    numbers = [
        read_values(post, field, low, high, where, rows) / scale for field, (low, high, scale) in NUMBERS.items()
    ]
    codes = {
        field: read_values(post, field, low, high, where, rows).astype(np.int64) for field, (low, high) in CODES.items()
    }
    return {"numbers": np.clip(np.stack(numbers, axis=1), -CAP, CAP).astype(np.float32), **codes}


def read_controller(pre: Any, where: str, rows: np.ndarray) -> np.ndarray:
    """Read the inputs of the frames ``rows``, ``[frames, 13]``: buttons, stick bins, shoulder bin."""
    given = {field: read_values(pre, field, low, high, where, rows) for field, (low, high) in INPUTS.items()}
    held = given["buttons_physical"].astype(np.int64)
    buttons = [(held & mask > 0).astype(np.int64) for mask in BUTTONS.values()]
    sticks = [to_bins((given[field] + 1) / 2, STICK_BINS) for field in STICKS]
    return np.stack([*buttons, *sticks, to_bins(given["triggers"], SHOULDER_BINS)], axis=1)


def to_bins(share: np.ndarray, count: int) -> np.ndarray:
    """Find the nearest of ``count`` evenly spaced points from 0 to 1; return its number."""
    return np.rint(np.clip(share, 0, 1) * (count - 1)).astype(np.int64)


def read_values(data: Any, field: str, low: float, high: float, where: str, rows: np.ndarray) -> np.ndarray:
    """Read a field of the frames ``rows`` as float64 (``a.b`` is field b of field a).

    Raises:
        ValueError: the field is missing, or a value is not a number from ``low`` to ``high``.
    """
    for part in field.split("."):
        data = getattr(data, part, None)
    if data is None:
        raise ValueError(f"{where}: the field {field} is missing, the replay is of an old version")
    array = np.asarray(data.to_numpy(zero_copy_only=False), dtype=np.float64)[rows]
    good = (array >= low) & (array <= high)  # False for NaN
    if not good.all():
        frame = int(np.argmin(good))
        raise ValueError(f"{where}: {field} is {array[frame]:g} in frame {frame}, outside {low:g} ... {high:g}")
    return array

"""Slippi games: what is read, and what is refused."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rl.recordings.recording import hold_out
from rl.recordings.slippi import (
    BUTTONS,
    CAP,
    INPUTS,
    NUMBERS,
    SIX_HEADS,
    list_slippi_files,
    read_controller,
    read_game,
    read_slippi,
    to_bins,
)

ROOT = Path(__file__).parents[3]
GAME = ROOT.parent / "shared/data/melee_game.slp"


@dataclass
class Column:
    """An array with the one method of pyarrow's that is used."""

    values: np.ndarray

    def to_numpy(self, zero_copy_only):
        assert not zero_copy_only  # columns with missing values have no other form
        return self.values


def tree(fields):
    """``{"position.x": array}`` as nested attributes of columns."""
    root = SimpleNamespace()
    for field, array in fields.items():
        *parents, name = field.split(".")
        node = root
        for parent in parents:
            node.__dict__.setdefault(parent, SimpleNamespace())
            node = getattr(node, parent)
        setattr(node, name, Column(np.asarray(array)))
    return root


@pytest.fixture
def fields():
    """Allowed values of two players in 3 frames: ``fields[player]["post"][field]``."""
    rng = np.random.default_rng(0)

    def numbers(low, high):
        return rng.uniform(max(low, -1), min(high, 1), size=3)

    return [
        {
            "post": {field: numbers(low, high) for field, (low, high, _) in NUMBERS.items()}
            | {"state": np.array([14, 20, 360]), "character": np.full(3, 7 + player)},
            "pre": {field: numbers(low, high) for field, (low, high) in INPUTS.items()}
            | {"buttons_physical": np.array([0x100, 0, 0x1018])},
        }
        for player in (0, 1)
    ]


def frames(fields):
    ports = [SimpleNamespace(leader=SimpleNamespace(pre=tree(f["pre"]), post=tree(f["post"]))) for f in fields]
    count = len(fields[0]["post"]["state"])
    return SimpleNamespace(id=Column(np.arange(count) - 123), ports=tuple(ports))


def test_an_input_is_paired_with_what_was_seen_before_it(fields):
    """Frame t's input after frame t - 1's picture, and each port sees itself first."""
    first, second = read_game(frames(fields), "x.slp")
    assert first[1].tolist() == read_controller(tree(fields[0]["pre"]), "", np.arange(3))[1:].tolist()
    assert first[0]["own_state"].tolist() == [14, 20]
    assert first[0]["own_character"].tolist() == second[0]["other_character"].tolist() == [7, 7]
    scales = [scale for *_, scale in NUMBERS.values()]
    seen = np.stack([fields[1]["post"][field] for field in NUMBERS], axis=1) / scales
    assert second[0]["own_numbers"] == pytest.approx(seen[:-1], rel=1e-6)
    assert (second[0]["own_numbers"] == first[0]["other_numbers"]).all()


def test_controller(fields):
    pre = fields[0]["pre"] | {"joystick.x": [-1, 0, 1], "joystick.y": [-0.97, 0.06, 0.07], "triggers": [0, 0.13, 1.0]}
    made = read_controller(tree(pre), "", np.arange(3))
    assert [name for name, bit in zip(BUTTONS, made[2], strict=False) if bit] == ["z", "d_up"]  # 0x1000 is none of them
    assert made[:, 0].tolist() == [1, 0, 0]
    assert made[:, 8:10].T.tolist() == [[0, 8, 16], [0, 8, 9]]
    assert made[:, 12].tolist() == [0, 1, 4]


def test_numbers_that_tell_nothing_more_are_capped(fields):
    """An age of 10 000 frames, in units of 50."""
    fields[0]["post"]["state_age"] = np.array([10_000.0, 50.0, 0.0])
    column = list(NUMBERS).index("state_age")
    assert read_game(frames(fields), "x.slp")[0][0]["own_numbers"][:, column].tolist() == [3.0, 1.0]


def test_bins():
    assert to_bins(np.array([0, 0.03, 0.04, 0.5, 1]), 17).tolist() == [0, 0, 1, 8, 16]


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("post", "percent", np.nan, "x.slp, player 2: percent is nan in frame 1, outside 0 ... 999"),
        ("post", "position.x", 3.8e22, "x.slp, player 2: position.x is 3.8e+22 in frame 1, outside -1000 ... 1000"),
        ("post", "state", 700, "x.slp, player 2: state is 700 in frame 1, outside 0 ... 511"),
        ("pre", "triggers", 3.8e22, "x.slp, player 2: triggers is 3.8e+22 in frame 1, outside 0 ... 1.0001"),
        ("pre", "joystick.y", -2, "x.slp, player 2: joystick.y is -2 in frame 1"),
    ],
)
def test_bad_values_are_refused(fields, part, field, value, message):
    fields[1][part][field] = fields[1][part][field].astype(float)
    fields[1][part][field][1] = value
    with pytest.raises(ValueError) as raised:
        read_game(frames(fields), "x.slp")
    assert str(raised.value).startswith(message)


def test_old_replays_and_other_numbers_of_players(fields):
    with pytest.raises(ValueError, match="x has 1 players: games of two can be read"):
        read_game(frames(fields[:1]), "x")
    short = [{part: {f: v[:1] for f, v in leaves.items()} for part, leaves in player.items()} for player in fields]
    with pytest.raises(ValueError, match="x has 1 frames: there must be at least 2"):
        read_game(frames(short), "x")
    del fields[0]["post"]["hitlag"]
    with pytest.raises(ValueError, match="x, player 1: the field hitlag is missing, the replay is of an old version"):
        read_game(frames(fields), "x")


def test_of_a_frame_that_was_played_again_the_last_copy_counts(fields):
    """Frames 5, 6, 7, then back to 6: both of 6 and 7 are replaced, in both ports, and the frames are in order."""
    places = [0, 1, 2, 0, 1]
    again = [
        {part: {name: np.asarray(v)[places] for name, v in leaves.items()} for part, leaves in player.items()}
        for player in fields
    ]
    for player in again:
        player["post"]["state"] = np.array([10, 11, 12, 13, 14])
        player["pre"]["buttons_physical"] = np.array([0, 0, 0, 0x100, 0x200])
        player["post"]["percent"][2] = np.nan  # of a copy that does not count
    game = frames(again)
    game.id = Column(np.array([5, 6, 7, 6, 7]))
    for leaves, inputs in read_game(game, "x.slp"):
        assert leaves["own_state"].tolist() == leaves["other_state"].tolist() == [10, 13]
        assert inputs[:, :2].tolist() == [[1, 0], [0, 1]]
    game.id = Column(np.array([5, 6, 8, 9, 10]))
    with pytest.raises(ValueError, match=r"^x\.slp is damaged: frame 7 is missing$"):
        read_game(game, "x.slp")


def test_files(tmp_path, monkeypatch):
    for name in ("b.slp", "a.slp", "c.SLP", "notes.txt"):
        (tmp_path / name).touch()
    names = ["a.slp", "b.slp", "c.SLP"]
    assert list_slippi_files(str(tmp_path)) == [tmp_path / name for name in names]
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert list_slippi_files(f"~/{tmp_path.name}") == [tmp_path / name for name in names]
    assert list_slippi_files("some/id-v0") == []
    assert list_slippi_files("some/game.slp") == [Path("some/game.slp")]


# ----------------------------------------------------------------------------------------------------- files and faults


@pytest.fixture
def games(tmp_path, monkeypatch, fields):
    """``games(a=None, b=OSError("..."))``: files, and a parser that reads or raises what is given for each."""

    def make(**outcomes):
        def read(path):
            os.write(2, b"thread panicked\n")
            outcome = outcomes[Path(path).stem]
            if isinstance(outcome, BaseException):
                raise outcome
            return SimpleNamespace(frames=frames(fields) if outcome is None else outcome)

        monkeypatch.setitem(sys.modules, "peppi_py", SimpleNamespace(read_slippi=read))
        for name in outcomes:
            (tmp_path / f"{name}.slp").write_text(name)
        return [tmp_path / f"{name}.slp" for name in outcomes]

    return make


class PanicException(BaseException):
    """As the parser raises it."""


def test_damaged_games_among_good_ones_are_left_out(games, caplog, fields, capfd):
    short = frames([{part: {f: v[:1] for f, v in leaves.items()} for part, leaves in p.items()} for p in fields])
    faults = {"b": OSError("I/O error:\n short"), "c": PanicException("index out of bounds"), "d": short}
    recording = read_slippi(games(a=None, **faults, e=None))
    assert recording.bounds.tolist() == [0, 2, 4, 6, 8] and recording.groups.tolist() == [0, 0, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "left out: b.slp is damaged or no Slippi game (I/O error: short)",
        "left out: c.slp is damaged or no Slippi game (index out of bounds)",
        "left out: d.slp has 1 frames: there must be at least 2",
    ]
    assert capfd.readouterr().err == ""  # the parser's own trace


def test_without_a_good_game_there_is_no_recording(games):
    with pytest.raises(ValueError, match=r"^a\.slp is damaged or no Slippi game \(bad\)$"):
        read_slippi(games(a=PanicException("bad")))
    with pytest.raises(ValueError, match=r"^no game of 2 can be read: a\.slp is damaged .* \(bad\); \.\.\.$"):
        read_slippi(games(a=OSError("bad"), b=OSError("worse")))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_slippi([*games(a=None), Path("c.slp")])
    with pytest.raises(KeyboardInterrupt):
        read_slippi(games(a=KeyboardInterrupt()))


def test_a_game_that_is_there_twice_counts_once(games, caplog):
    paths = games(a=None, b=None)
    paths[1].write_text("a")
    assert read_slippi([*paths, paths[0]]).groups.tolist() == [0, 0]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["left out: b.slp is a copy of a.slp", "left out: a.slp is a copy of a.slp"]


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peppi_py", None)
    with pytest.raises(ImportError) as raised:
        read_slippi([Path("game.slp")])
    assert str(raised.value) == "Slippi games need the package peppi_py: pip install 'recurrent-ppo[melee]'"


def test_six_heads_are_the_mean_of_the_buttons_and_the_sum_of_the_rest():
    """Uniform guesses cost ln 2 + 4 ln 17 + ln 5 = 13.635 nats."""
    sizes = [2] * 8 + [17] * 4 + [5]
    assert np.log(sizes) @ SIX_HEADS == pytest.approx(np.log(2) + 4 * np.log(17) + np.log(5))


# --------------------------------------------------------------------------------------------------------- a real game


@pytest.fixture
def real():
    pytest.importorskip("peppi_py")
    if not GAME.is_file():
        pytest.skip("there is no recorded game beside the repository")
    return GAME


def test_a_real_game(real):
    recording = read_slippi([real])
    assert recording.bounds.tolist() == [0, 6401, 12802] and recording.groups.tolist() == [0, 0]
    with pytest.raises(ValueError, match="split=time"):
        hold_out(recording, 0.2, "episodes", 0)  # the two ports of one game tell of each other


def test_damage_to_a_real_game_is_found_or_left_out(real, tmp_path, capfd, caplog):
    """Broken off, with flipped bits (the parser panics at some), empty, and of another format, beside the good one."""
    content, rng = real.read_bytes(), np.random.default_rng(0)
    damaged = [b"", b"PK" * 500, content[:100], content[:100_000]]
    for _ in range(6):
        flipped = np.frombuffer(content, np.uint8).copy()
        flipped[rng.integers(1000, len(flipped), size=20)] ^= 1 << 7
        damaged.append(flipped.tobytes())
    paths = [tmp_path / f"{number}.slp" for number in range(len(damaged))]
    for path, part in zip(paths, damaged, strict=True):
        path.write_bytes(part)
    recording = read_slippi([*paths, real])
    assert len(caplog.records) >= 5 and capfd.readouterr().err == ""
    assert (np.diff(recording.bounds) == 6401).all()


LARGEST = {"position.x": 250, "position.y": 200, "percent": 200, "shield": 60, "stocks": 4, "jumps": 6, "hitlag": 20}
LARGEST |= {"direction": 1, "airborne": 1, "velocities.self_x_air": 10, "velocities.knockback_y": 10}


def test_what_a_game_usually_shows_is_of_order_one_and_not_capped():
    for field, largest in LARGEST.items():
        assert 0.5 <= largest / NUMBERS[field][2] <= CAP, field

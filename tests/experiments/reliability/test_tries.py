"""The instrument sees faults: planted ones are counted, each under its own words."""

import pathlib
import signal
import sys
import time

import pytest

from experiments import evaluate, train
from experiments.reliability import damage, hostile, kills, mistakes, processes, signals
from experiments.reliability.judge import Fault, check_success
from experiments.reliability.processes import Running, run
from experiments.reliability.tries import Place, Try, choose, draw, number_tries, run_all, run_try
from rl.checkpoint import save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A finished run that is a checkpoint and a configuration alone."""
    folder = tmp_path / "prepared"
    save_checkpoint({"agent": {"network": {}}}, folder / "ppo/checkpoints/last.pt")
    (folder / "ppo/config.yaml").write_text("seed: 1\n")
    (folder / "seconds.json").write_text('{"ppo": 0.1}')
    monkeypatch.setattr(damage, "list_usable", lambda: ["ppo"])
    monkeypatch.setattr(kills, "list_usable", lambda: ["ppo"])
    monkeypatch.setattr(processes, "GRACE", 0.1)
    return folder


@pytest.fixture
def fault_of(prepared):
    """``fault_of(run)``: what is found wrong by a try."""

    def outcome(run):
        return run_try(Try("planted", 0, "a fault", run), prepared).fault

    return outcome


def succeed(place):
    check_success(Running(lambda: None, place.folder).wait(20))


def hang(place):
    check_success(Running(lambda: time.sleep(30), place.folder).wait(0.2))


def fail(place):
    raise Fault("a fault")


def name_a_file(place):
    raise Fault(f"{place.folder}/run/last.pt is lost")


def break_off(place):
    raise KeyError("broken")


def test_a_try_leaves_nothing_and_tells_its_fault(fault_of, prepared):
    assert fault_of(succeed) is None
    assert fault_of(hang).startswith("it hung")
    assert fault_of(fail) == "a fault"
    assert fault_of(name_a_file) == "run/last.pt is lost"
    assert fault_of(break_off) == "the try itself broke: KeyError: 'broken'"
    assert [path.name for path in prepared.parent.iterdir()] == ["prepared"]


def test_tries_run_side_by_side_and_keep_their_order(prepared):
    found = list(run_all(number_tries("planted", [("a", succeed), ("b", fail), ("c", succeed)]), prepared, 2))
    assert [(outcome.tried.name, outcome.fault) for outcome in found] == [
        ("planted-000", None),
        ("planted-001", "a fault"),
        ("planted-002", None),
    ]


def test_a_share_is_drawn_in_order():
    every = number_tries("planted", [(str(number), succeed) for number in range(100)])
    chosen = [tried.number for tried in choose(every, 0.2, seed=1)]
    assert len(chosen) == 20 and chosen == sorted(set(chosen))
    assert chosen != [tried.number for tried in choose(every, 0.2, seed=2)]
    assert choose(every, 1, seed=1) == every and len(choose(every, 0.001, seed=1)) == 1
    assert draw(1, "kills", 3).random() == draw(1, "kills", 3).random() != draw(1, "kills", 4).random()


def test_a_command_that_prints_a_traceback_is_seen(fault_of, monkeypatch):
    monkeypatch.setattr(evaluate, "main", lambda: {}["missing"])
    fault = fault_of(lambda place: mistakes.mistake(place, ["evaluate", "run=nowhere"]))
    assert fault.startswith("a traceback") and "KeyError: 'missing'" in fault


def test_a_command_that_hangs_is_seen(fault_of, monkeypatch):
    monkeypatch.setattr(evaluate, "main", lambda: time.sleep(30))
    monkeypatch.setattr(mistakes, "LIMIT", 0.2)
    assert fault_of(lambda place: mistakes.mistake(place, ["evaluate", "run=nowhere"])).startswith("it hung")


def test_a_mistake_that_leaves_a_folder_or_goes_through_is_seen(fault_of, monkeypatch):
    def refuse(place):
        mistakes.mistake(place, ["evaluate", "run=nowhere"])

    def leave_folder():
        pathlib.Path("runs").mkdir()
        sys.exit("evaluate: there is no run")

    monkeypatch.setattr(mistakes, "LIMIT", 20)
    monkeypatch.setattr(evaluate, "main", leave_folder)
    assert fault_of(refuse) == "a refused command has left runs"
    monkeypatch.setattr(evaluate, "main", lambda: None)
    assert fault_of(refuse).startswith("it went through")


def test_a_damaged_file_that_is_loaded_in_silence_is_seen(fault_of, monkeypatch):
    monkeypatch.setattr(damage, "load_checkpoint", lambda path: {})
    fault = fault_of(lambda place: damage.damage_checkpoint(place, draw(1, "damage", 0)))
    assert "a damaged file was loaded in silence" in fault and fault.startswith("ppo last.pt, ")


def test_code_of_a_stranger_that_runs_is_seen(fault_of, monkeypatch):
    def import_stranger():
        import evil  # noqa: F401

    monkeypatch.setattr(evaluate, "main", import_stranger)
    fault = fault_of(lambda place: hostile.read_config(place, {"env": {"_target_": "evil.Env"}}, "evaluate"))
    assert fault == "code of the data was run: PWNED is there"


def test_a_lost_checkpoint_is_seen(fault_of, monkeypatch):
    """A run that damages what it saved before: its own death leaves it like that."""

    def save_badly():
        save_checkpoint({"agent": {}}, "run/checkpoints/last.pt")
        with open("run/checkpoints/last.pt", "wb") as file:
            file.write(b"half")
            file.flush()
            time.sleep(30)

    monkeypatch.setattr(train, "main", save_badly)
    fault = fault_of(lambda place: kills.kill_and_resume(place, "ppo", [5.0], aimed=False))
    assert fault.startswith("the last checkpoint is lost")


def test_a_signal_that_is_ignored_is_seen(fault_of, monkeypatch):
    def ignore():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(0.5)
        open("run/config.yaml", "w").close()

    monkeypatch.setattr(train, "main", ignore)
    stop = {"name": "ppo", "numbers": (signal.SIGTERM,), "moment": 1.0, "gap": 0.0}
    fault = fault_of(lambda place: ((place.folder / "run").mkdir(), signals.stop_run(place, **stop)))
    assert "exit code 0 where 143 was due" in fault


def test_a_place_is_empty_at_first(prepared):
    seen = []

    def look(place):
        assert isinstance(place, Place) and place.prepared == prepared
        seen.append(list(place.folder.iterdir()))
        run(["plot"], place.folder)

    assert run_try(Try("planted", 0, "look", look), prepared).fault is None
    assert seen == [[]]

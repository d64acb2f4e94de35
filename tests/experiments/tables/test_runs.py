"""What is left of a run, and the processes that make it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments.launch.check import ConfigError
from experiments.tables import learning_table, runs
from experiments.tables.runs import CHILD, Children, check_same
from rl.training.signals import Stopped, StopSignals

FRESH = ["experiment=t_maze_10", "seed=3", "run_dir={target}"]
BEGUN = {"config.yaml": "stop_at_threshold: false\n"}
SAVED = {"checkpoints/last.pt": ""}


def result(steps, total, hit=None, **more):
    content = {"env_steps": steps, "total_steps": total, "steps_to_threshold": hit} | more
    return {"result.json": json.dumps(content)}


@pytest.mark.parametrize(
    ("files", "arguments"),
    [
        ({}, FRESH),
        (BEGUN, [*FRESH, "overwrite=true"]),  # killed before it saved anything
        (BEGUN | SAVED, ["resume={target}"]),  # killed
        (BEGUN | SAVED | result(99, 100, hit=50), ["resume={target}"]),  # of a version that wrote a result when stopped
        (BEGUN | SAVED | result(104, 100), None),
        ({"config.yaml": "stop_at_threshold: true\n"} | SAVED | result(50, 100, hit=50), None),
        (BEGUN | SAVED | result(50, 100, stop_reason="plateau"), None),
        (BEGUN | SAVED | result(50, 100, stop_reason="max_seconds"), None),
        (BEGUN | SAVED | result(50, 100, stop_reason="total_steps"), ["resume={target}"]),  # more are asked for now
    ],
)
def test_a_run_is_begun_or_goes_on_or_is_kept(files, arguments, tmp_path, monkeypatch):
    target, started = tmp_path / "row" / "seed3", []
    for name, content in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(content)
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(runs.subprocess, "run", lambda command, **_: started.append(command[4:]) or done)
    with Children() as children:
        learning_table.train_row(children, tmp_path, "row", {"experiment": "t_maze_10"}, 3)
    assert started == ([] if arguments is None else [[part.format(target=target) for part in arguments]])


def test_runs_with_other_settings_are_refused(tmp_path):
    """Finished or killed; a setting that an older version did not have is none."""
    wanted = {"seed": 1, "agent.clip": 0.2, "overwrite": False, "new": 5}
    check_same(tmp_path, wanted, "the row")
    (tmp_path / "config.yaml").write_text("agent: {clip: 0.2, gamma: 0.9}\nseed: 2\noverwrite: true\n")
    check_same(tmp_path, wanted, "the row")
    with pytest.raises(ConfigError, match=rf"^{tmp_path} was run with agent\.clip=0\.2, the row with 0\.3: delete it"):
        check_same(tmp_path, wanted | {"agent.clip": 0.3}, "the row")


NAP = """
import signal, sys, time
from pathlib import Path
def save(*_):
    Path(sys.argv[1] + ".saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
Path(sys.argv[1]).touch()
time.sleep(60)
"""


@pytest.fixture
def nap(cwd, monkeypatch, child_environment):
    """``nap(children, name)``: a process that sleeps, and saves when it is asked to end; started as a run is."""
    (cwd / "nap.py").write_text(NAP)
    path = f"{cwd}{os.pathsep}{child_environment['PYTHONPATH']}"
    monkeypatch.setenv("PYTHONPATH", path)
    return lambda children, name: children.run_module(CHILD, "nap", str(cwd / name))


def wait_for(*paths):
    end = time.monotonic() + 30
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, paths
        time.sleep(0.02)


def test_a_signal_ends_the_runs_and_starts_no_further_ones(nap, cwd):
    def interrupt():
        wait_for(cwd / "0", cwd / "1")
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as raised, StopSignals() as stop, stop.raising(), Children() as children:
        threading.Thread(target=interrupt).start()
        children.map(lambda job: nap(children, str(job)), [0, 1, 2, 3], 2)
    assert str(raised.value) == "stopped by SIGTERM after 0 of 4 runs; the same command goes on with the others"
    assert sorted(path.name for path in cwd.glob("[0-9]*")) == ["0", "0.saved", "1", "1.saved"]


PARENT = """
import sys
from experiments.tables.runs import CHILD, Children
with Children() as children:
    children.map(lambda name: children.run_module(CHILD, "nap", name), sys.argv[1:], 2)
"""


def test_runs_end_with_a_process_that_was_killed(nap, cwd):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(cwd / "a"), str(cwd / "b")])
    wait_for(cwd / "a", cwd / "b")
    parent.kill()
    parent.wait()
    wait_for(cwd / "a.saved", cwd / "b.saved")


def test_a_run_that_is_watched_writes_into_a_file_and_hears_of_the_end_by_the_pipe_alone(nap, cwd):
    """Not of Ctrl-C in a terminal, which goes to a whole group: it would be a second signal while the run saves."""
    with (cwd / "said.txt").open("wb") as file, Children() as children:
        process = children.start(CHILD, "nap", str(cwd / "0"), output=file)
        wait_for(cwd / "0")
        assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
        children.end()
        assert process.wait(30) == 143
    wait_for(cwd / "0.saved")


def test_the_others_go_on_when_one_fails(cwd):
    """Those that have begun; what has not begins no more."""
    began, ended = threading.Event(), []

    def work(job):
        if job == 0:
            assert began.wait(30)
            raise RuntimeError("it failed")
        began.set()
        time.sleep(0.05)
        ended.append(job)

    with pytest.raises(RuntimeError, match="it failed"), Children() as children:
        children.map(work, [0, 1, 2, 3, 4, 5], 2)
    assert 1 in ended and len(ended) < 5

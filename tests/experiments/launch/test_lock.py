"""The lock of a run folder: who has it, who takes it over, and what is said."""

import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from experiments.launch import lock
from experiments.launch.check import ConfigError
from experiments.launch.lock import FolderLock, find_holder, is_locked, is_running, measure_start

HOLD = """
import sys, time
from pathlib import Path
from experiments.launch.lock import FolderLock
FolderLock(Path(sys.argv[1]), "run_dir=a")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path, child_environment):
    """A process that has locked ``tmp_path``."""
    line = [sys.executable, "-c", HOLD, str(tmp_path)]
    child = subprocess.Popen(line, stdout=subprocess.PIPE, env=child_environment, text=True)
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def write(folder, **changes):
    """What a process of this host left that has ended."""
    content = {"pid": 2**22 + 1, "start": "5", "since": time.time(), "host": socket.gethostname()} | changes
    (folder / ".lock").write_text(json.dumps(content))


def test_a_folder_in_use_is_refused_until_its_process_is_gone(tmp_path, holder):
    sentence = rf"^resume=a is in use by process {holder.pid} since \d\d:\d\d:\d\d \(host {socket.gethostname()}\)$"
    for _ in range(2):
        with pytest.raises(ConfigError, match=sentence):
            FolderLock(tmp_path, "resume=a")
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists()
    FolderLock(tmp_path, "resume=a").release()
    assert list(tmp_path.iterdir()) == []


def test_threads_of_one_process_are_told_apart(tmp_path):
    first, said = FolderLock(tmp_path, "run_dir=a"), []

    def work():
        try:
            FolderLock(tmp_path, "run_dir=a")
        except ConfigError as error:
            said.append(str(error))

    for _ in range(2):  # having looked must not end the lock
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(said) == 2 and all(f"run_dir=a is in use by process {os.getpid()} since" in each for each in said)
    first.release()
    FolderLock(tmp_path, "run_dir=a").release()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "start": "1", "since": 1e99, "host": 1}']
)
def test_what_is_no_lock_is_taken_over(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    held = FolderLock(tmp_path, "run_dir=a")
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    held.release()


def test_of_another_host_nothing_is_known(tmp_path):
    write(tmp_path, host="elsewhere", since=0)
    sentence = "a is in use by process 4194305 since 1970-01-0"
    with pytest.raises(ConfigError, match=sentence) as raised:
        FolderLock(tmp_path, "a")
    assert str(raised.value).endswith(
        f"(host elsewhere): whether it still runs cannot be known from here; if it has ended, delete {tmp_path}/.lock"
    )
    (tmp_path / ".lock").unlink()
    FolderLock(tmp_path, "a").release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_of_the_file_system_the_process_is_looked_for(tmp_path, monkeypatch, number):
    """Its number may be another process's by now, which began at another time."""

    def refuse(*_):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    write(tmp_path)
    FolderLock(tmp_path, "a").release()
    write(tmp_path, pid=os.getpid(), start="5")
    FolderLock(tmp_path, "a").release()
    write(tmp_path, pid=os.getpid(), start=measure_start(os.getpid()))
    with pytest.raises(ConfigError, match=f"a is in use by process {os.getpid()} since"):
        FolderLock(tmp_path, "a")


def test_a_lock_whose_file_its_owner_has_just_removed_is_tried_again(tmp_path, monkeypatch):
    """Else two processes could hold one each: of the file that is gone and of the new one."""
    taken = []

    def take(self):
        taken.append(os.fstat(self.file).st_ino)
        if len(taken) == 1:
            self.path.unlink()

    monkeypatch.setattr(lock.FolderLock, "_take", take)
    held = FolderLock(tmp_path, "a")
    assert len(taken) == 2 and os.stat(tmp_path / ".lock").st_ino == taken[-1]
    held.release()


def test_a_folder_that_cannot_be_written_is_no_folder_in_use(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape("nowhere/.lock")):
        FolderLock(tmp_path / "nowhere", "a")


def test_others_see_who_has_a_folder_without_touching_its_lock(tmp_path, holder):
    assert find_holder(tmp_path / "none") is None and not is_locked(tmp_path / "none")
    found = find_holder(tmp_path)
    assert (found["pid"], found["alive"]) == (holder.pid, True) and is_locked(tmp_path)
    with pytest.raises(ConfigError, match="is in use"):  # it still is
        FolderLock(tmp_path, "resume=a")
    holder.kill()
    holder.wait()
    assert find_holder(tmp_path)["alive"] is False and not is_locked(tmp_path)
    write(tmp_path, host="elsewhere")
    assert find_holder(tmp_path)["alive"] is None and is_locked(tmp_path)
    write(tmp_path, pid=os.getpid(), start="another process of that number")
    assert not is_locked(tmp_path)
    (tmp_path / ".lock").write_text("{")
    assert find_holder(tmp_path) is None and not is_locked(tmp_path)


def test_processes_of_this_host():
    assert is_running(os.getpid()) and not is_running(2**22 + 1)
    assert measure_start(os.getpid()) == measure_start(os.getpid()) != measure_start(1)
    assert measure_start(2**22 + 1) is None


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("all of it")
    (tmp_path / ".lock").symlink_to("victim")
    with pytest.raises(OSError, match=r"\.lock"):
        FolderLock(tmp_path, "resume=a")
    assert (tmp_path / "victim").read_text() == "all of it"

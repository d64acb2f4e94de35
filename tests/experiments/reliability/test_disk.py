"""Disk faults are those that they say: permissions hold for root, a full disk is full, a device is full."""

import resource
from functools import partial

import pytest

from experiments.reliability import disk
from experiments.reliability.processes import Running, call

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def folder(tmp_path):
    inner = tmp_path / "work"
    (inner / "run" / "checkpoints").mkdir(parents=True)
    (inner / "run" / "checkpoints" / "last.pt").write_bytes(b"content")
    (inner / "run" / "config.yaml").touch()
    return inner


def test_permissions_hold(folder):
    (folder / "run").chmod(0o555)
    ended = call(lambda: (disk.drop_privileges(), (folder / "run" / "new").touch()), folder)
    assert ended.code == 1 and "Permission denied" in ended.err
    assert not (folder / "run" / "new").exists()


def test_files_end_at_a_size(folder):
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (10, 10))
    ended = Running(lambda: (folder / "file").write_bytes(bytes(30)), folder, before=full).wait()
    assert "File too large" in ended.err and (folder / "file").stat().st_size == 10


@pytest.mark.parametrize("label", disk.SPOILED)
def test_folders_are_spoiled(folder, label):
    disk.SPOILED[label](folder / "run")
    last, config = folder / "run" / "checkpoints" / "last.pt", folder / "run" / "config.yaml"
    seen = last.is_file(), last.is_dir(), last.is_symlink(), last.parent.is_file(), config.is_dir()
    assert (
        seen
        == {
            "checkpoints are folders": (False, True, False, False, False),
            "checkpoints is a file": (False, False, False, True, False),
            "config.yaml is a folder": (True, False, False, False, True),
            "checkpoints are links to nowhere": (False, False, True, False, False),
        }[label]
    )

"""Checkpoints that are damaged, of another version, or one of several; places where nothing can be written."""

import os

import pytest
import torch

from rl.checkpoint import (
    DamagedError,
    find_newest,
    load_checkpoint,
    save_and_keep,
    save_checkpoint,
    write_text,
)


@pytest.fixture
def content():
    return {"agent": {"weights": torch.arange(300.0), "n": 3}}


def _full(*_, **__):
    raise OSError(28, "No space left on device")


# ------------------------------------------------------------------------------------- checksum, format, the one before


def test_one_bit_that_has_changed_anywhere_is_noticed(tmp_path):
    """Every byte of the file in turn, another bit each time: the numbers, the structure, the checksum itself."""
    path = tmp_path / "a.pt"
    save_checkpoint({"agent": torch.arange(3.0)}, path)
    whole = path.read_bytes()
    assert len(whole) > 500
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(DamagedError, match=r"a\.pt is damaged or no checkpoint"):
            load_checkpoint(path)


@pytest.mark.parametrize("end", [-1, -64, -97, -110])  # within the checksum, without it, without its mark, further in
def test_a_checkpoint_without_its_end_is_noticed(tmp_path, content, end):
    save_checkpoint(content, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:end])
    with pytest.raises(DamagedError):
        load_checkpoint(tmp_path / "a.pt")


def test_others_read_it_as_an_ordinary_file_of_torch(tmp_path, content):
    save_checkpoint(content, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True)["agent"]["n"] == 3
    torch.save({"agent": 5}, tmp_path / "a.pt")  # so were those of before, which had no format either
    assert load_checkpoint(tmp_path / "a.pt") == {"agent": 5, "format": 0}


@pytest.mark.parametrize(
    ("number", "words"), [(2, "was written by a newer version"), ("x", "format"), (True, "format")]
)
def test_a_format_that_is_not_known_is_refused(tmp_path, number, words):
    torch.save({"agent": 5, "format": number}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt.*{words}") as refused:
        load_checkpoint(tmp_path / "a.pt")
    assert not isinstance(refused.value, DamagedError)  # nothing is wrong with it, so none before it is taken


@pytest.fixture
def run_dir(tmp_path):
    """A run with two checkpoints: 2 is the newest, 1 the one before."""
    for n in (1, 2):
        save_and_keep({"agent": n}, tmp_path / "checkpoints" / "last.pt")
    return tmp_path


def read_both(run_dir):
    return [load_checkpoint(run_dir / "checkpoints" / name)["agent"] for name in ("last.pt", "previous.pt")]


def test_the_one_before_is_kept(run_dir):
    assert read_both(run_dir) == [2, 1]
    save_and_keep({"agent": 3}, run_dir / "checkpoints" / "last.pt")
    assert read_both(run_dir) == [3, 2]
    assert sorted(os.listdir(run_dir / "checkpoints")) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize(("call", "left"), [("os.link", [2, 1]), ("os.fsync", [2, 1]), ("os.replace", [2, 1])])
def test_a_full_disk_leaves_both(run_dir, monkeypatch, call, left):
    monkeypatch.setattr(call, _full)
    monkeypatch.setattr("shutil.copyfile", _full)
    with pytest.raises(OSError, match=r"\.pt"):
        save_and_keep({"agent": 3}, run_dir / "checkpoints" / "last.pt")
    assert read_both(run_dir) == left
    assert sorted(os.listdir(run_dir / "checkpoints")) == ["last.pt", "previous.pt"]


def test_whenever_it_is_killed_the_newest_is_whole(run_dir, monkeypatch):
    """Killed before each of the two renames: what stands there by then is 2, then 3."""
    seen, rename = [], os.replace

    def look(*names):
        seen.append(load_checkpoint(find_newest(run_dir))["agent"])
        rename(*names)

    monkeypatch.setattr("os.replace", look)
    save_and_keep({"agent": 3}, run_dir / "checkpoints" / "last.pt")
    assert seen == [2, 3]


def test_where_there_are_no_links_the_one_before_is_a_copy(run_dir, monkeypatch):
    monkeypatch.setattr("os.link", _full)
    save_and_keep({"agent": 3}, run_dir / "checkpoints" / "last.pt")
    assert read_both(run_dir) == [3, 2]


def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(run_dir, caplog):
    newest, previous = (run_dir / "checkpoints" / name for name in ("last.pt", "previous.pt"))
    assert (find_newest(run_dir), caplog.messages) == (newest, [])
    newest.write_bytes(newest.read_bytes()[:-500])
    assert find_newest(str(run_dir)) == previous
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{newest} is damaged") and str(previous) in caplog.messages[0]
    newest.unlink()
    assert find_newest(run_dir) == previous
    previous.write_bytes(b"")
    newest.write_bytes(b"")
    with pytest.raises(DamagedError, match=r"last\.pt is damaged.*so is the one before: .*previous\.pt is damaged"):
        find_newest(run_dir)
    previous.unlink()
    with pytest.raises(DamagedError, match=r"last\.pt is damaged"):
        find_newest(run_dir)
    newest.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint at .*last\.pt"):
        find_newest(run_dir)


# ----------------------------------------------------------------------------------------------------- what is no file


def test_a_device_is_written_to_and_stays_one():
    write_text("/dev/null", "x")
    with pytest.raises(OSError, match=r"cannot be written: No space left on device: '/dev/full'"):
        write_text("/dev/full", "x" * 100_000)
    assert not os.path.isfile("/dev/null") and not os.path.isfile("/dev/full")


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


@pytest.mark.parametrize("place", ["file/a", "folder", "nowhere/a"])
def test_a_place_where_nothing_can_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("gone")
    with pytest.raises(OSError, match=f"cannot be written: .*{place}"):
        write_text(tmp_path / place, "x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "nowhere"]

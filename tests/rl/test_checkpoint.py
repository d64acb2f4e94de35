import io
import os
import pickle
import random
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from rl.checkpoint import as_arrays, as_tensors, atomic_write, load_checkpoint, save_checkpoint, write_text

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # of files that are none of ours


class Bomb:
    """Writes the file ``name`` when it is unpickled."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return open, (self.name, "w")


@pytest.fixture
def content():
    return {"agent": {"weights": torch.arange(300.0), "bits": torch.tensor([True, False]), "name": "x", "n": 3}}


@contextmanager
def full_disk():
    """Files may grow to 4096 bytes; more fails with an OSError. Only inside: the log of the tests may be a file too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_saved_is_loaded(tmp_path, content):
    path = tmp_path / "new" / "folder" / "a.pt"
    save_checkpoint(content, path)
    loaded = load_checkpoint(str(path))
    assert torch.equal(loaded["agent"].pop("weights"), content["agent"].pop("weights"))
    assert torch.equal(loaded["agent"].pop("bits"), content["agent"].pop("bits"))
    assert loaded == {**content, "format": 1}


def test_tensors_go_to_the_device_asked_for(tmp_path, content, device):
    save_checkpoint({"agent": content["agent"]["weights"].to(device)}, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt")["agent"].device.type == "cpu"
    assert load_checkpoint(tmp_path / "a.pt", device)["agent"].device.type == device.type
    assert load_checkpoint(tmp_path / "a.pt", "meta")["agent"].device.type == "meta"


def test_a_file_name_without_a_folder(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(content, "a.pt")
    assert load_checkpoint("a.pt")["agent"]["n"] == 3
    assert os.listdir(tmp_path) == ["a.pt"]


def test_an_older_file_is_replaced(tmp_path, content):
    for n in range(3):
        save_checkpoint({"agent": n}, tmp_path / "a.pt")
    assert load_checkpoint(tmp_path / "a.pt") == {"agent": 2, "format": 1}
    assert os.listdir(tmp_path) == ["a.pt"]


def test_arrays_become_tensors_and_come_back():
    value = {"a": np.arange(3), "b": (np.float32(0.5), [np.array([True])]), "c": 2**100, "d": None, "e": "text"}
    stored = as_tensors(value)
    assert isinstance(stored["a"], torch.Tensor)
    assert type(stored["b"][0]) is float
    back = as_arrays(stored)
    assert back["a"].tolist() == [0, 1, 2]
    assert back["a"].dtype == np.int64
    assert back["b"][1][0].tolist() == [True]
    assert isinstance(back["b"], tuple)
    assert (back["c"], back["d"], back["e"]) == (2**100, None, "text")
    value["a"][0] = 9
    assert stored["a"][0] == 0


def test_scalars_of_numpy_are_saved_as_plain_numbers(tmp_path):
    content = {"agent": {}, "lr": np.float32(0.5), "groups": [{"steps": (np.int64(3), True)}], "names": ["a"]}
    save_checkpoint(content, tmp_path / "file")
    loaded = load_checkpoint(tmp_path / "file")
    assert (loaded["lr"], loaded["groups"], loaded["names"]) == (0.5, [{"steps": (3, True)}], ["a"])
    assert type(content["lr"]) is np.float32


def test_arrays_inside_a_checkpoint_come_back(tmp_path):
    value = {"agent": [np.arange(6, dtype=np.uint8).reshape(2, 3), {"x": (np.int64(5), np.zeros((0, 2)))}]}
    save_checkpoint(as_tensors(value), tmp_path / "a.pt")
    array, inner = as_arrays(load_checkpoint(tmp_path / "a.pt"))["agent"]
    assert array.dtype == np.uint8
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert inner["x"][0] == 5
    assert inner["x"][1].shape == (0, 2)


# -------------------------------------------------------------------------------------------------- failures in writing


def _half_then_full(content, file):
    file.write(b"half of it")
    raise OSError(28, "No space left on device")


def _full(*_, **__):
    raise OSError(28, "No space left on device")


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("target", "fault", "error"),
    [
        ("torch.save", _half_then_full, OSError),
        ("torch.save", _interrupt, KeyboardInterrupt),
        ("os.fsync", _full, OSError),
    ],
)
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, content, monkeypatch, target, fault, error):
    path = tmp_path / "a.pt"
    save_checkpoint(content, path)
    before = path.read_bytes()
    monkeypatch.setattr(target, fault)
    with pytest.raises(error):
        save_checkpoint({"agent": 0}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pt"]


def test_a_failed_rename_leaves_the_older_file(tmp_path, content, monkeypatch):
    path = tmp_path / "a.pt"
    save_checkpoint(content, path)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", _full)
    with pytest.raises(OSError):
        save_checkpoint({"agent": 0}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("size", [5_000, 100_000])  # the file object keeps the first one back until it is flushed
def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path, content, size):
    path = tmp_path / "a.pt"
    save_checkpoint(content, path)
    before = path.read_bytes()
    with full_disk(), pytest.raises(OSError), atomic_write(path) as file:
        file.write(b"x" * size)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pt"]


def test_saving_on_a_full_disk_is_an_os_error(tmp_path, content):
    path = tmp_path / "a.pt"
    save_checkpoint(content, path)
    before = path.read_bytes()
    with full_disk(), pytest.raises(OSError):
        save_checkpoint({"agent": torch.zeros(100_000)}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.pt"]


def test_nothing_stands_under_the_name_before_the_file_is_whole(tmp_path):
    with atomic_write(tmp_path / "a.pt") as file:
        file.write(b"x")
        assert not (tmp_path / "a.pt").exists()
    assert (tmp_path / "a.pt").read_bytes() == b"x"


def test_the_whole_file_reaches_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    order, sync, rename = [], os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda handle: (order.append(os.fstat(handle).st_size), sync(handle)))
    monkeypatch.setattr("os.replace", lambda *names: (order.append("rename"), rename(*names)))
    with atomic_write(tmp_path / "a.pt") as file:
        file.write(b"x" * 100)
    assert order == [100, "rename"]


def test_two_processes_that_write_one_file_do_not_meet(tmp_path, monkeypatch):
    with atomic_write(tmp_path / "a.pt") as first:
        first.write(b"first")
        with monkeypatch.context() as other:
            other.setattr("os.getpid", lambda: -1)
            with atomic_write(tmp_path / "a.pt") as second:
                second.write(b"second")
        assert (tmp_path / "a.pt").read_bytes() == b"second"
    assert (tmp_path / "a.pt").read_bytes() == b"first"


# -------------------------------------------------------------------------------------------------- failures in reading


def test_a_missing_file_is_named(tmp_path):
    for name in ("none.pt", "."):
        with pytest.raises(FileNotFoundError, match="there is no checkpoint at"):
            load_checkpoint(tmp_path / name)


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path, content, monkeypatch):
    save_checkpoint(content, tmp_path / "a.pt")
    monkeypatch.setattr("pathlib.Path.open", _full)
    with pytest.raises(OSError, match="No space left"):
        load_checkpoint(tmp_path / "a.pt")


def _zip(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _legacy(content):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.fixture
def assert_refused(tmp_path):
    def check(data):
        path = tmp_path / "bad.pt"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"bad\.pt is (damaged or )?no checkpoint of recurrent-ppo"):
            load_checkpoint(path)

    return check


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n" * 20,
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x80\x02\x8a",
        b"\x80\xa4a;|\xb4\xcc4\x8c\xc6\xb6\x10\xa9v\xc9\x11\xd7\x8aQ\x86",
        pickle.dumps({"agent": 1}),
        b"PK\x05\x06" + bytes(18),
    ],
    ids=["empty", "text", "picture", "cut-pickle", "noise", "pickle", "empty-zip"],
)
def test_a_foreign_file_is_refused(data, assert_refused):
    assert_refused(data)


def test_files_of_noise_are_refused(assert_refused):
    noise = random.Random(0)
    for _ in range(150):
        assert_refused(b"\x80" + noise.randbytes(noise.randrange(1, 60)))


@pytest.mark.parametrize("write", [_zip, _legacy], ids=["zip", "legacy"])
def test_a_truncated_file_is_refused(write, content, assert_refused):
    whole = write(content)
    for end in range(0, len(whole), max(1, len(whole) // 80)):
        assert_refused(whole[:end])


@pytest.mark.parametrize("write", [_zip, _legacy], ids=["zip", "legacy"])
def test_a_changed_byte_gives_a_checkpoint_or_a_value_error(write, content, tmp_path):
    """A byte among the numbers may go unnoticed; what must not happen is any other error."""
    whole, noise, refused = write(content), random.Random(0), 0
    for _ in range(200):
        data = bytearray(whole)
        data[noise.randrange(len(data))] = noise.randrange(256)
        (tmp_path / "a.pt").write_bytes(data)
        try:
            load_checkpoint(tmp_path / "a.pt")
        except ValueError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("write", [_zip, _legacy, pickle.dumps], ids=["zip", "legacy", "pickle"])
def test_code_inside_a_file_is_not_executed(write, tmp_path, assert_refused):
    trace = tmp_path / "trace"
    assert_refused(write({"agent": Bomb(str(trace))}))
    assert not trace.exists()


@pytest.mark.parametrize("foreign", [{}, {"weights": torch.zeros(3)}, [1, 2], torch.zeros(3), "agent"], ids=str)
def test_a_checkpoint_of_something_else_is_refused(foreign, assert_refused):
    assert_refused(_zip(foreign))


def test_a_run_folder_in_place_of_its_checkpoint_is_told_so(tmp_path, content):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint at .*run$"):
        load_checkpoint(tmp_path / "run")
    save_checkpoint(content, tmp_path / "run" / "checkpoints" / "last.pt")
    with pytest.raises(FileNotFoundError, match=r"run: it is a folder, give .*run/checkpoints/last\.pt$"):
        load_checkpoint(tmp_path / "run")


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("all of it")
    (tmp_path / f".a.json.{os.getpid()}").symlink_to("victim")
    write_text(tmp_path / "a.json", "{}")
    assert (tmp_path / "a.json").read_text() == "{}" and (tmp_path / "victim").read_text() == "all of it"

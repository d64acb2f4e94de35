import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from rl.training import shared_memory
from rl.training.shared_memory import SharedMemory, can_share
from rl.training.team import sum_pairs

pytestmark = pytest.mark.skipif(not can_share(1, 1), reason="no memory to share, or processors of another kind")


@pytest.fixture
def share(monkeypatch, tmp_path):
    """``share(world, count, length)``: one sum for each rank, all in threads of this process."""
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)

    def make(world, count, length, timeout=10.0):
        paths = []

        def lead(reserve):
            if not paths:
                paths.append(reserve())
            return paths[0]

        met = threading.Barrier(world)
        found = [None] * world

        def gather(pid):
            met.wait()
            return [pid] * world

        def build(rank):
            found[rank] = SharedMemory(rank, world, count, length, lead, gather, timeout)

        first = threading.Thread(target=build, args=(0,))
        first.start()
        while not paths:
            time.sleep(0.001)
        others = [threading.Thread(target=build, args=(rank,)) for rank in range(1, world)]
        for thread in others:
            thread.start()
        for thread in (first, *others):
            thread.join()
        return found

    return make


def test_all_get_the_sum_in_the_order_of_the_ranks(share):
    sums, found = share(3, 2, 5), {}

    def work(rank):
        for turn in range(50):
            length = 5 - turn % 2
            vectors = [torch.full((length,), 10.0 * rank + place + turn) for place in range(2)]
            found[rank, turn] = sums[rank].sum(vectors)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for turn in range(50):
        vectors = [torch.full((5 - turn % 2,), 10.0 * rank + place + turn) for rank in range(3) for place in range(2)]
        assert all(torch.equal(found[rank, turn], sum_pairs(vectors)) for rank in range(3))


def test_messages_of_any_length(share, monkeypatch):
    monkeypatch.setattr(shared_memory, "MESSAGE", 64)
    memories, found = share(2, 1, 4), {}
    said = [b"", b"a", b"b" * 56, b"c" * 57, b"d" * 1000, b"e"]

    def work(rank):
        for turn, message in enumerate(said):
            found[rank, turn] = memories[rank].gather(message if rank == 0 else b"from the other")
            memories[rank].sum([torch.ones(4)])  # in turn with vectors

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for turn, message in enumerate(said):
        expected = [message, b"from the other"] if len(message) <= 56 else None
        assert found[0, turn] == found[1, turn] == expected


def test_nothing_is_left_behind(share, tmp_path):
    share(2, 1, 1000)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_if_the_ranks_never_meet(monkeypatch, tmp_path):
    def fail(_):
        raise RuntimeError("gone")

    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    with pytest.raises(RuntimeError, match="gone"):
        SharedMemory(0, 2, 1, 8, lambda make: make(), fail, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_does_not_answer_is_told(share):
    one, _ = share(2, 1, 3, timeout=0.2)
    with pytest.raises(RuntimeError, match="has not written what all wait for"):
        one.sum([torch.ones(3)])


def test_a_rank_that_has_ended_is_missed_at_once(share):
    one, _ = share(2, 1, 3, timeout=60.0)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    one.pids = [os.getpid(), child.pid]
    assert not any(map(shared_memory.is_gone, one.pids))
    threading.Timer(0.3, child.kill).start()  # and nobody asks for its exit code
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="has ended"):
        one.sum([torch.ones(3)])
    assert time.monotonic() - began < 10
    child.wait()
    assert shared_memory.is_gone(child.pid)


def test_a_rank_that_has_ended_after_its_last_word_is_not_missed(share, monkeypatch):
    """The word may come between a look at the counts and one at the processes."""
    one, other = share(2, 1, 3, timeout=60.0)

    def write_and_end(pid):
        other.counts[1] = 1
        return True

    monkeypatch.setattr(shared_memory, "is_gone", write_and_end)
    assert one.sum([torch.ones(3)]).shape == (3,)


def test_too_little_memory_is_told_before_it_is_used(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    with pytest.raises(OSError):
        SharedMemory(0, 2, 1, 2**48, lambda make: make(), list, 1.0)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "missing")
    with pytest.raises(OSError):
        SharedMemory(0, 2, 1, 8, lambda make: make(), list, 1.0)


def test_ranks_of_several_machines_share_nothing():
    assert not can_share(4, 2)
    assert os.path.isdir(shared_memory.FOLDER)

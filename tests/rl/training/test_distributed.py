"""Ranks: alone in this process, and several in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rl.shards import ALONE
from rl.training import distributed
from rl.training.distributed import Ranks
from rl.training.team import RankLostError, sum_pairs
from rl.training.threads import available_cores

ROOT = Path(__file__).parents[3]
TALK = """
import json, sys
import torch
from functools import partial
from rl.training.distributed import Ranks

def vectors(index):
    return torch.randn(1001, generator=torch.Generator().manual_seed(index))

with Ranks(60) as ranks:
    ranks.shares = ranks.shares and sys.argv[1] == "memory"
    shards = ranks.deal(12)
    def work(shard):
        small = shard.sum(vectors(shard.index)[:3])  # the memory of these does not do for those that follow
        for turn in range(5):  # each place in it is used again
            total, heard = shard.sum(vectors(shard.index) + turn), shard.gather(shard.index)
        total = shard.sum(vectors(shard.index))
        double = shard.sum(torch.ones(2, dtype=torch.float64))
        return total.tolist(), heard, small.tolist(), double.tolist()
    found = ranks.run([partial(work, shard) for shard in shards], shards)
    told = ranks.lead(lambda: f"from {ranks.rank}")
    if ranks.rank == 0:
        print(json.dumps([found, told, ranks.world]))
"""
FAIL = """
import sys
from rl.training.distributed import Ranks
from rl.training.team import RankLostError

def fail():
    raise ValueError("it cannot be")

with Ranks(60) as ranks:
    try:
        ranks.lead(fail)
    except (ValueError, RankLostError) as error:
        print(f"{ranks.rank} {type(error).__name__} {error}")
"""
WAIT = """
import sys, time
from rl.training.distributed import Ranks
from rl.training.team import RankLostError

with Ranks(float(sys.argv[1])) as ranks:
    print("ready", flush=True)
    try:
        for turn in range(10**6):
            ranks.gather(turn)
            time.sleep(0.01)
    except RankLostError as error:
        print(error, flush=True)
"""

PARENT = """
import subprocess, sys, threading, time

def start():
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
    child.stdout.readline()
    children.append(child)

children = []
thread = threading.Thread(target=start)
thread.start()
thread.join()
time.sleep(1)
"""
CHILD = """
import os, time
from rl.training.distributed import _end_with_parent
from rl.training.signals import StopSignals

parent = os.getppid()
with StopSignals() as stop:
    _end_with_parent()
    print("ready", flush=True)
    while os.getppid() == parent:
        time.sleep(0.01)
    time.sleep(0.3)
    open(os.environ["NOTE"], "w").write(f"saved after {stop.number}.")
"""


def start_ranks(world, program, *arguments):
    """Start ranks as torchrun would, without its agent."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    own = {"WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    running = []
    for rank in range(world):
        names = own | {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
        env = os.environ | {name: str(value) for name, value in names.items()}
        words = [sys.executable, "-W", "error", "-c", program, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(words, cwd=ROOT, env=env, **pipes))
    return running


def finish(running):
    ended = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * len(running), ended
    return [out for out, _ in ended]


def test_a_process_of_its_own_is_the_only_rank(monkeypatch):
    monkeypatch.setenv("RANK", "3")  # of something else: torchrun did not start it
    monkeypatch.setenv("WORLD_SIZE", "4")
    with Ranks(1.0) as ranks:
        assert (ranks.rank, ranks.world) == (0, 1)
        assert ranks.gather("x") == ["x"]
        assert ranks.lead(lambda: 7) == 7
        assert ranks.deal(1) == [ALONE]
        assert ranks.share_cores("auto") == "auto"
        assert ranks.recall() is None
        with pytest.raises(ZeroDivisionError):
            ranks.lead(lambda: 1 / 0)


def test_torchrun_says_who_a_rank_is(monkeypatch):
    told = {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RESTART_COUNT": 3}
    for name, value in (told | {"TORCHELASTIC_RUN_ID": "none"}).items():
        monkeypatch.setenv(name, str(value))
    ranks = Ranks()
    assert (ranks.rank, ranks.world, ranks.local_rank, ranks.local_world, ranks.restarts) == (5, 8, 1, 2, 3)
    assert ranks.share_cores("auto") == max(1, available_cores() // 2)
    assert ranks.share_cores(3) == 3
    shards = ranks.deal(16)
    assert [(shard.index, shard.size) for shard in shards] == [(10, 16), (11, 16)]
    with pytest.raises(ValueError, match=r"shards=12: it must be a multiple of the 8 ranks"):
        ranks.deal(12)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["memory", "sockets"])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_sums_are_the_same_bits_on_any_number_of_ranks(world, way):
    first, *others = finish(start_ranks(world, TALK, way))
    (total, heard, small, double), told, size = json.loads(first)
    vectors = [torch.randn(1001, generator=torch.Generator().manual_seed(index)) for index in range(12)]
    assert torch.equal(torch.tensor(total), sum_pairs(vectors))
    assert torch.equal(torch.tensor(small), sum_pairs([vector[:3] for vector in vectors]))
    assert double == [12.0, 12.0]
    assert heard == list(range(12))
    assert (told, size) == ("from 0", world)
    assert not any(others)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["memory", "sockets"])
def test_two_shards_on_two_ranks_sum_as_in_one_process(way):
    program = TALK.replace("deal(12)", "deal(2)")
    (one,), (two, _) = (finish(start_ranks(world, program, way)) for world in (1, 2))
    assert json.loads(one)[0] == json.loads(two)[0]


@pytest.mark.slow
def test_what_rank_0_cannot_do_is_told_to_all():
    first, second = finish(start_ranks(2, FAIL))
    assert first == "0 ValueError it cannot be\n"
    assert second == "1 RankLostError rank 0: it cannot be\n"


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_gone_or_stands_still_is_missed(sent):
    one, other = start_ranks(2, WAIT, "3")
    try:
        assert one.stdout.readline() == other.stdout.readline() == "ready\n"
        time.sleep(0.3)
        began = time.monotonic()
        other.send_signal(sent)
        line = one.stdout.readline()
        assert "another of the 2 ranks has ended, or has not answered for rank_timeout=3 s" in line
        assert time.monotonic() - began < 30
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has ended")
def test_a_parent_that_ends_thread_by_thread_asks_only_once(tmp_path):
    """Of each thread the kernel tells; as a second signal that would end the process before it has saved."""
    note = tmp_path / "note"
    subprocess.run([sys.executable, "-c", PARENT, CHILD], cwd=ROOT, env=os.environ | {"NOTE": str(note)}, check=True)
    end = time.monotonic() + 10
    while not (note.exists() and note.read_text().endswith(".")) and time.monotonic() < end:
        time.sleep(0.05)
    assert note.exists(), "it has ended before it saved"
    assert note.read_text() == f"saved after {int(signal.SIGTERM)}."


def test_a_fault_of_the_backend_becomes_one_sentence():
    ranks = Ranks(5.0)
    with pytest.raises(RankLostError, match="rank_timeout=5 s"), ranks.telling():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:525] Connection closed by peer")


def test_without_the_agent_of_torchrun_there_is_no_folder_to_go_on_in(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert Ranks().recall() is None
    Ranks().remember("runs/one")  # nobody to tell


def test_the_store_of_the_agent_keeps_the_folder(monkeypatch):
    store = distributed.dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    for name, value in (told | {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": 0}).items():
        monkeypatch.setenv(name, str(value))
    Ranks().remember("runs/one")
    assert Ranks().recall() is None  # it was not started again
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert Ranks().recall() == "runs/one"

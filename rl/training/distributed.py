"""The shards of a run, dealt out to the ranks that torchrun has started: the only file that knows of ranks.

A rank is a process. Each has the same number of shards; if it has several, each runs in a thread of its own, and they
wait for each other as ranks do. So a run with the same shards computes the same on any number of ranks, bit for bit.
"""

import atexit
import ctypes
import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from rl.shards import ALONE, Shards
from rl.training.shared_memory import SharedMemory, can_share
from rl.training.team import RankLostError, Shard, Team, find_team, muted, sum_pairs
from rl.training.threads import AUTO, available_cores

Value = TypeVar("Value")
log = logging.getLogger(__name__)
GRACE_SECONDS = 10.0
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
FOLDER = "recurrent_ppo/run_dir"
"""Key under which torchrun's store keeps the folder of the run, for ranks that are started again."""


class Ranks:
    """The ranks of a run as one of them sees it; a process that torchrun did not start is the only one.

    Args:
        timeout: seconds that a rank waits for the others before it gives up.

    Attributes:
        rank: the place of this process among them, from 0; rank 0 speaks and writes for all.
        world: how many there are.
        restarts: how often torchrun has started them again.
    """

    def __init__(self, timeout: float = 120.0):
        self.timeout = timeout
        launched = "TORCHELASTIC_RUN_ID" in os.environ
        self.rank, self.world, self.restarts, self.local_rank, self.local_world = (
            int(os.environ.get(name, usual)) if launched else usual
            for name, usual in (
                ("RANK", 0),
                ("WORLD_SIZE", 1),
                ("TORCHELASTIC_RESTART_COUNT", 0),
                ("LOCAL_RANK", 0),
                ("LOCAL_WORLD_SIZE", 1),
            )
        )

        self.shares = can_share(self.world, self.local_world)
        self.shared: SharedMemory | None = None

    def __enter__(self) -> "Ranks":
        """Meet the others."""
        if self.world > 1:
            self._use_device()
            if self.rank > 0:
                logging.disable(logging.WARNING)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
            timeout = timedelta(seconds=self.timeout)
            with self.telling():
                if not dist.is_initialized():  # by an earlier run of this process: ranks can meet only once
                    _meet(backend, timeout, self.restarts)
                self.talk = dist.new_group(backend="gloo", timeout=timeout)
        return self

    def __exit__(self, *_: object) -> None:
        """Speak again."""
        if self.rank > 0:
            logging.disable(logging.NOTSET)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Put a failure to reach another rank into one sentence.

        Raises:
            RankLostError: the block has failed to.
        """
        try:
            yield
        except RuntimeError as error:  # whatever the backend raises
            raise RankLostError(
                f"another of the {self.world} ranks has ended, or has not answered for rank_timeout={self.timeout:g} s"
            ) from error

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks in their order."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        with self.telling():
            if self.shared is not None and (messages := self.shared.gather(pickle.dumps(value))) is not None:
                return [pickle.loads(message) for message in messages]
            dist.all_gather_object(found, value, group=self.talk)
        return found

    def lead(self, make: Callable[[], Value]) -> Value:
        """Let rank 0 make something, and give it to all.

        Raises:
            RankLostError: rank 0 could not, and says why; there it is that error itself.
        """
        if self.world == 1:
            return make()
        try:
            told = (make(), "") if self.rank == 0 else None
        except BaseException as error:
            self.gather((None, str(error) or type(error).__name__))
            raise
        value, fault = self.gather(told)[0]
        if fault:
            raise RankLostError(f"rank 0: {fault}")
        return value

    def sum(self, vectors: list[Tensor]) -> Tensor:
        """Sum vectors ``[P]`` of all shards, of which this rank has ``vectors``: the same bits on any number of ranks.

        Of two shards the sum is the same in any order. Of more, each rank sums a part in the order of the shards, pairs
        first, and the parts are gathered: as many bytes as in a ring.
        """
        if self.world == 1:
            return sum_pairs(vectors)
        with self.telling():
            if shared := self._share(vectors):
                return shared.sum(vectors)
            if self.world == 2 and len(vectors) == 1:
                total = vectors[0].clone()
                dist.all_reduce(total)
                return total
            own = torch.stack(vectors)  # [local, P]
            width = -(-own.shape[1] // self.world)
            own = torch.nn.functional.pad(own, (0, width * self.world - own.shape[1]))
            parts = own.unflatten(1, (self.world, width)).transpose(0, 1).contiguous()  # [world, local, width]
            received = torch.empty_like(parts)  # of each rank, its shards' numbers of this rank's part
            dist.all_to_all_single(received, parts)
            part = sum_pairs(list(received.flatten(0, 1).unbind()))
            total = torch.empty(self.world * width, dtype=part.dtype, device=part.device)
            dist.all_gather(list(total.split(width)), part)
            return total[: vectors[0].numel()].contiguous()

    def _share(self, vectors: list[Tensor]) -> SharedMemory | None:
        """Return what sums vectors through shared memory, if there is such memory; all ranks find the same."""
        vector = vectors[0]
        if not self.shares or vector.device.type != "cpu" or vector.dtype != torch.float32:
            return None
        if self.shared is None or self.shared.length < len(vector):
            try:
                sizes = self.rank, self.world, len(vectors), len(vector)
                self.shared = SharedMemory(*sizes, self.lead, self.gather, self.timeout)
            except OSError as error:
                self.shares = False
                log.warning("there is too little shared memory, so ranks talk through sockets, slower: %s", error)
                return None
        return self.shared

    def deal(self, count: int) -> list[Shards]:
        """Return the shards of this rank, of ``count`` in all.

        Raises:
            ValueError: they cannot be dealt out evenly.
        """
        if count % self.world:
            raise ValueError(f"shards={count}: it must be a multiple of the {self.world} ranks")
        if count == 1:
            return [ALONE]
        team = Team(self, count // self.world)
        return [Shard(team, place) for place in range(team.count)]

    def run(self, works: Sequence[Callable[[], Value]], shards: Sequence[Shards]) -> Value:
        """Do the work of each shard of this rank, the first in this thread, the others in threads of their own.

        Returns:
            What the first of them returned.

        Raises:
            RankLostError: a rank is gone.
            BaseException: that of a shard of this rank, if one failed.
        """
        if len(works) == 1:
            return works[0]()
        team, faults = find_team(shards), list[BaseException]()

        def work_apart(work: Callable[[], Value]) -> None:
            try:
                self._use_device()
                work()
            except BaseException as error:
                faults.append(error)
                team.meeting.abort()

        threads = [threading.Thread(target=work_apart, args=(work,), daemon=True) for work in works[1:]]
        with muted(threads):
            for thread in threads:
                thread.start()
            try:
                value = works[0]()
            except BaseException as error:
                team.meeting.abort()
                for thread in threads:
                    thread.join(GRACE_SECONDS)  # it ends where it hears of it, before its environments are closed
                if isinstance(error, RankLostError) and faults:
                    raise faults[0] from None
                raise
            for thread in threads:
                thread.join()
        if faults:
            raise faults[0]
        return value

    def share_cores(self, threads: Any) -> Any:
        """Return the threads of torch for this rank: ``auto`` shares the cores of the machine out to its ranks."""
        return max(1, available_cores() // self.local_world) if threads == AUTO and self.world > 1 else threads

    def _use_device(self) -> None:
        """Let ``cuda`` mean the device of this rank, in this thread."""
        if self.world > 1 and torch.cuda.is_available():
            torch.cuda.set_device(self.local_rank % torch.cuda.device_count())

    def remember(self, folder: str) -> None:
        """Let ranks that torchrun starts again find the folder of the run."""
        store = self._store()
        if store is not None and self.rank == 0:
            store.set(FOLDER, folder)

    def recall(self) -> str | None:
        """Return the folder that ranks of this job had before torchrun started them again; None if there is none."""
        store = self._store() if self.restarts and self.rank == 0 else None
        if store is None or not store.check([FOLDER]):
            return None
        return str(store.get(FOLDER).decode())

    def _store(self) -> dist.TCPStore | None:
        """Return the store of torchrun's agent, which outlives the ranks; None where the agent has none."""
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            return None
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return dist.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=30))


def _meet(backend: str, timeout: timedelta, restarts: int) -> None:
    """Meet the other ranks, for as long as this process lives.

    The store may be one with what ranks have left there before torchrun started them again.
    """
    store, rank, world = next(dist.rendezvous("env://", timeout=timeout))
    named = dist.PrefixStore(f"restart{restarts}", store)
    dist.init_process_group(backend, store=named, rank=rank, world_size=world, timeout=timeout)
    atexit.register(dist.destroy_process_group)
    if sys.platform == "linux":
        _end_with_parent()


def _end_with_parent() -> None:
    """Have a SIGTERM sent to this process when torchrun is killed: it would go on without it.

    The kernel tells a process of each thread of its parent that has children and ends: two of torchrun's, some time
    apart. So it does by a signal of its own, since a second SIGTERM would end a run before it has saved. Outside the
    main thread, where Python allows no handlers, a SIGTERM ends the process at once in any case.
    """

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGTERM)

    told = signal.SIGTERM
    if threading.current_thread() is threading.main_thread():
        told = signal.SIGRTMAX
        signal.signal(told, end)
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, told)

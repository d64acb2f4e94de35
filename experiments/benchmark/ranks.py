"""Rows about ranks: the same training on one process and on two, and what they spend on talking.

Each rank is a process of its own that reads how long to train and answers with a line of JSON.
"""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import product
from math import log, pi, sqrt
from statistics import mean
from typing import Any, cast

import torch
from torch import Tensor

from experiments.benchmark.rows import Numbers, Row
from experiments.peers.recurrent_ppo import make_training
from experiments.peers.workloads import WORKLOADS
from rl.shards import Shards
from rl.training.distributed import Ranks
from rl.training.sharing import join

RUNS = (("w1", (256, 256)), ("w2", (16, 32)), ("w2", (None, 16)))
"""Workloads, with their environments on one rank and on two: shared out, as many for each, and few shared out."""

BPTT = 16


def make_rows(seconds: float, core_names: list[str]) -> list[Row]:
    """Return a row for each workload, core and number of ranks."""
    rows = []
    for (name, sizes), core in product(RUNS, core_names):
        for world, num_envs in enumerate(sizes, start=1):
            if num_envs is not None:
                ranks = StartedRanks(world, name, core, num_envs)
                label = f"{name} {core}, {num_envs} environments, {world} {'rank' if world == 1 else 'ranks'}"
                rows.append(Row(label, partial(ranks.measure, seconds), ranks.close))
    return rows


class StartedRanks:
    """Ranks that train together.

    Args:
        world: how many.
        workload: name of it.
        core: name of it.
        num_envs: of all of them together.
    """

    def __init__(self, world: int, workload: str, core: str, num_envs: int):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        words = [sys.executable, "-m", "experiments.benchmark.ranks", workload, core, str(num_envs)]
        names = {"WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "none"}
        self.processes = []
        for rank in range(world):
            own = names | {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
            env = os.environ | {name: str(value) for name, value in own.items()}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self.processes.append(subprocess.Popen(words, env=env, **pipes))
        self._read()

    def measure(self, seconds: float, _round: int = 0) -> Numbers:
        """Train for so long: steps per second, and milliseconds of an iteration and of what belongs to it.

        The shortest time that a rank needs for a sum of gradients is its transfer, the rest of the others is waiting
        for that one. ``deviation_ms`` is that of the time between two sums, as if it were normally distributed.
        """
        for process in self.processes:
            with suppress(BrokenPipeError):
                print(seconds, file=process.stdin, flush=True)
        first, *_ = told = self._read()
        iterations, sums = len(first["iterations"]), list(zip(*(one["sums"] for one in told), strict=True))
        found = {
            "steps_per_second": first["env_steps"] / first["wall_seconds"],
            "iteration_ms": 1e3 * mean(first["iterations"]),
        }
        if not sums:
            return found
        waiting = sum(max(both) - min(both) for both in sums)
        return found | {
            "sums": len(sums) / iterations,
            "MB_of_a_sum": first["bytes"] / 1e6,
            "transfer_ms": 1e3 * sum(map(min, sums)) / iterations,
            "waiting_ms": 1e3 * waiting / iterations,
            "gathers_ms": 1e3 * first["gathers"] / iterations,
            "deviation_ms": 1e3 * waiting / len(sums) * sqrt(pi) / 2,  # two of them differ by 2 / sqrt(pi) of it
        }

    def _read(self) -> list[dict[str, Any]]:
        """Read a line of each rank."""
        lines = [process.stdout.readline() for process in self.processes if process.stdout is not None]
        if not all(lines):
            self.close()
            raise RuntimeError("a rank of the benchmark has ended")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End the ranks."""
        for process in self.processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()  # which they take for the end
        for process in self.processes:
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


class Watched:
    """Shards that note how long what they say takes, see ``rl.shards.Shards``.

    Args:
        shards: that are watched.
    """

    def __init__(self, shards: Shards):
        self.shards, self.index, self.size = shards, shards.index, shards.size
        self.bytes = 0  # of a gradient
        self.begin()

    def begin(self) -> None:
        """Forget what was noted."""
        self.sums: list[float] = []  # seconds of each sum of gradients
        self.gathers = 0.0  # seconds of all else

    def __deepcopy__(self, memo: dict) -> "Watched":
        """Return itself, as shards do."""
        return self

    def sum(self, vector: Tensor) -> Tensor:
        """Sum, and note."""
        began = time.perf_counter()
        total = self.shards.sum(vector)
        seconds = time.perf_counter() - began
        if vector.nbytes >= self.bytes:
            self.bytes = vector.nbytes
            self.sums.append(seconds)
        else:
            self.gathers += seconds
        return total

    def gather(self, value: Any) -> list[Any]:
        """Gather, and note."""
        began = time.perf_counter()
        values = self.shards.gather(value)
        self.gathers += time.perf_counter() - began
        return values


def predict_efficiency(
    ranks: int,
    compute_ms: float,
    sums: int,
    megabytes: float,
    deviation_ms: float,
    hop_ms: float = 0.04,
    gigabytes_per_second: float = 2.5,
) -> float:
    """Predict which share of its time a rank computes, if gradients go round in a ring and all wait for the slowest.

    Args:
        ranks: how many, at least 2.
        compute_ms: of a rank in an iteration.
        sums: of gradients in it.
        megabytes: of a gradient.
        deviation_ms: of what a rank computes between two sums; the slowest of N is about sqrt(2 ln N) of them behind.
        hop_ms: until the next rank has a message.
        gigabytes_per_second: of a connection.
    """
    ring = 2 * (ranks - 1) * hop_ms + 2 * megabytes / gigabytes_per_second * (ranks - 1) / ranks
    waiting = deviation_ms * sqrt(2 * log(ranks))
    return compute_ms / (compute_ms + sums * (ring + waiting))


def train(workload: str, core: str, num_envs: int) -> None:
    """Be a rank: train for as many seconds as each line of input says, and answer."""
    torch.set_num_threads(1)
    with Ranks() as ranks, ExitStack() as opened:
        output = opened.enter_context(os.fdopen(os.dup(1), "w"))
        os.dup2(2, 1)
        (shard,) = ranks.deal(ranks.world)
        watched = Watched(shard)
        work = WORKLOADS[workload]
        run = make_training(replace(work, num_envs=num_envs // ranks.world), core, BPTT)
        if shard.size > 1:
            join(run.agent, cast(Shards, watched))
        run()
        print(json.dumps({"ready": ranks.rank}), file=output, flush=True)
        for line in sys.stdin:
            watched.begin()
            steps, iterations, over, began = run.agent.env_steps, list[float](), False, time.perf_counter()
            while not over:
                start = time.perf_counter()
                run()
                iterations.append(time.perf_counter() - start)
                over = shard.gather(time.perf_counter() - began >= float(line))[0]
            wall = time.perf_counter() - began
            answer: dict[str, Any] = {"env_steps": run.agent.env_steps - steps, "wall_seconds": wall}
            answer |= {"iterations": iterations, "sums": watched.sums, "gathers": watched.gathers}
            print(json.dumps(answer | {"bytes": watched.bytes}), file=output, flush=True)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]))

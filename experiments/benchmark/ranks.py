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
from statistics import mean, pstdev
from typing import Any, cast

import torch
from torch import Tensor

from experiments.benchmark.rows import Numbers, Row
from experiments.peers.recurrent_ppo import make_training
from experiments.peers.workloads import WORKLOADS
from rl.agents.sharing import join
from rl.shards import Shards
from rl.training.distributed import Ranks

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

        ``talking_ms`` is what the ranks spend in each other's answers, waiting included, ``spread_ms`` the standard
        deviation of what one computes in an iteration.
        """
        for process in self.processes:
            with suppress(BrokenPipeError):
                print(seconds, file=process.stdin, flush=True)
        told = self._read()
        computing = [whole - talking for one in told for whole, talking in one["iterations"]]
        return {
            "steps_per_second": told[0]["env_steps"] / told[0]["wall_seconds"],
            "iteration_ms": 1e3 * mean(whole for one in told for whole, _ in one["iterations"]),
            "talking_ms": 1e3 * mean(talking for one in told for _, talking in one["iterations"]),
            "spread_ms": 1e3 * pstdev(computing),
            "sums": told[0]["sums"] / len(told[0]["iterations"]),
            "MB_of_a_sum": told[0]["bytes"] / 1e6,
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
    """Shards that count what is said and how long it takes, see ``rl.shards.Shards``.

    Args:
        shards: that are watched.
    """

    def __init__(self, shards: Shards):
        self.shards, self.index, self.size = shards, shards.index, shards.size
        self.seconds, self.sums, self.bytes = 0.0, 0, 0

    def __deepcopy__(self, memo: dict) -> "Watched":
        """Return itself, as shards do."""
        return self

    def sum(self, vector: Tensor) -> Tensor:
        """Sum, and count."""
        began = time.perf_counter()
        total = self.shards.sum(vector)
        self.seconds += time.perf_counter() - began
        self.sums += vector.numel() > 100  # gradients
        self.bytes = max(self.bytes, vector.nbytes)
        return total

    def gather(self, value: Any) -> list[Any]:
        """Gather, and count."""
        began = time.perf_counter()
        values = self.shards.gather(value)
        self.seconds += time.perf_counter() - began
        return values


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
            watched.sums, steps, iterations, over = 0, run.agent.env_steps, [], False
            began = time.perf_counter()
            while not over:
                start, said = time.perf_counter(), watched.seconds
                run()
                iterations.append((time.perf_counter() - start, watched.seconds - said))
                over = shard.gather(time.perf_counter() - began >= float(line))[0]
            answer: dict[str, Any] = {
                "env_steps": run.agent.env_steps - steps,
                "wall_seconds": time.perf_counter() - began,
            }
            answer |= {"iterations": iterations, "sums": watched.sums, "bytes": watched.bytes}
            print(json.dumps(answer), file=output, flush=True)


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2], int(sys.argv[3]))

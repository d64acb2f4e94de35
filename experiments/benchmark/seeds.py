"""Rows about many seeds in one process: what could be gained at most if they shared every call of torch.

A network whose weights have an axis of seeds would do the arithmetic of S agents in the calls of one. So does one agent
with S times as many environments and as many minibatches, and with less work: its products are larger, its weights are
those of one. No network with batched weights and the same operations saves more than an environment step saves there.
"""

import time
from dataclasses import replace
from functools import partial
from itertools import product

from envs.classic_control import CartPoleNoVelocity
from envs.t_maze import TMaze
from experiments.benchmark.rows import Numbers, Row
from experiments.peers.recurrent_ppo import Iterations, make_training
from experiments.peers.serve import repeat
from experiments.peers.workloads import WORKLOADS

COUNTS = (5, 10)
"""Seeds that would share their calls: ten on two cores are five in each of two processes, or ten in one."""

HIDDEN_SIZES = (64, 128)
"""Those of the presets and of the cores by default: the larger the network, the less of its time are calls."""

BPTT = 32


def make_rows(seconds: float, core_names: list[str]) -> list[Row]:
    """Return a row for each core on the T-maze and on CartPole, with the sizes of the presets but for the memory's."""
    kinds = ("t_maze_10", make_t_maze), ("cartpole_no_velocity", make_cartpole)
    rows = []
    for core, (name, make), hidden_size in product(core_names, kinds, HIDDEN_SIZES):
        lone, *shared = (make(core, hidden_size, count) for count in (1, *COUNTS))
        rows.append(Row(f"{name} {core} {hidden_size}", partial(measure_bound, lone, shared, seconds)))
    return rows


def make_t_maze(core: str, hidden_size: int, count: int) -> Iterations:
    """Make training with the sizes of the preset ``t_maze_10``, with ``count`` times as many environments."""
    work = replace(WORKLOADS["w1"], hidden_size=hidden_size, num_envs=64 * count, num_steps=32)
    return make_training(work, core, BPTT, TMaze(work.num_envs, length=10))


def make_cartpole(core: str, hidden_size: int, count: int) -> Iterations:
    """Make training with the sizes of the preset ``cartpole_no_velocity``, likewise."""
    sizes = replace(WORKLOADS["w1"], num_envs=8 * count, num_steps=128, epochs=10, num_minibatches=4)
    return make_training(replace(sizes, hidden_size=hidden_size), core, BPTT, CartPoleNoVelocity(sizes.num_envs))


def measure_bound(lone: Iterations, shared: list[Iterations], seconds: float, _round: int = 0) -> Numbers:
    """Measure CPU microseconds per environment step, alone and where the calls are shared, and how many times less.

    Args:
        lone: the training of one seed.
        shared: the same with the environments of so many seeds, see ``COUNTS``.
        seconds: of each measurement.
    """
    alone = measure_cpu(lone, seconds)
    numbers = {"alone_us": alone}
    for count, run in zip(COUNTS, shared, strict=True):
        spent = measure_cpu(run, seconds)
        numbers |= {f"of_{count}_us": spent, f"of_{count}_times": alone / spent}
    return numbers


def measure_cpu(run: Iterations, seconds: float) -> float:
    """Train for so long; return the CPU microseconds per environment step, after an iteration that warms up."""
    run()
    began = time.process_time()
    steps, _ = repeat(run, seconds)
    return 1e6 * (time.process_time() - began) / steps

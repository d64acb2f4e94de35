"""How fast is a device: what it waits for, its kernels beside those of a library without resets, whole training?"""

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from envs.classic_control import CartPoleNoVelocity
from envs.t_maze import TMaze
from experiments.device_check.findings import Finding
from experiments.peers.recurrent_ppo import Iterations, make_training
from experiments.peers.workloads import WORKLOADS
from rl import cores
from rl.networks.acceleration import Precision

SHAPES = ((32, 64, 64), (16, 128, 128), (32, 512, 128), (32, 4096, 128), (128, 512, 256))
"""Steps, sequences and hidden units of one minibatch; one step in twenty opens an episode."""

FEW_MINIBATCHES: tuple[tuple[str, int, int, int, Precision], ...] = (
    ("gru", 4096, 2, 4, "float32"),
    ("gru", 4096, 2, 4, "tf32"),
    ("gru", 4096, 1, 4, "float32"),
    ("gru", 4096, 1, 4, "tf32"),
    ("lstm", 4096, 2, 4, "float32"),
    ("lstm", 4096, 2, 4, "tf32"),
    ("mingru", 4096, 2, 1, "float32"),
    ("mingru", 4096, 1, 1, "tf32"),
    ("mingru", 16384, 4, 1, "float32"),
)
"""Core, environments in torch, minibatches, epochs and precision of rollouts of 32 steps: large batches suit a GPU."""

SIZES = ((16, 128, 16, 8), (256, 32, 32, 8), (4096, 32, 32, 8), (16384, 32, 32, 16))
"""Environments, steps of each in a rollout, length of the sequences, minibatches."""


def count_waits(device: str, core_names: list[str]) -> Iterator[Finding]:
    """Count how often acting and learning wait for the device, and where; torch tells on CUDA alone."""
    if torch.device(device).type != "cuda":
        yield Finding("waits", note=f"torch does not tell on {device}; pytest --device shadow counts what is read back")
        return
    work = replace(WORKLOADS["w1"], num_envs=64, num_steps=32, hidden_size=64)
    for name, kind in product(core_names, ("numpy", "torch")):
        env = TMaze(work.num_envs, length=5, device=None if kind == "numpy" else device)
        run = make_training(work, name, bptt=16, env=env, device=device)
        for _ in range(3):  # kernels are compiled in the first, graphs recorded in the second
            run()
        collecting, learning = find_waits(run.collect), find_waits(partial(run.agent.learn, run.obs))
        places = ", ".join(f"{place} {number}" for place, number in Counter(collecting + learning).items())
        numbers = {"waits_per_step": len(collecting) / work.num_steps, "waits_per_update": float(len(learning))}
        yield Finding(f"{name}, environments in {kind}", numbers, note=places)


def find_waits(call: Callable[[], object]) -> list[str]:
    """Return the places, ``file:line``, that wait for a CUDA device while ``call`` runs."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # and warns that it is a prototype
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [each for each in caught if "called a synchronizing" in str(each.message)]
    return [f"{Path(each.filename).name}:{each.lineno}" for each in waits]


def measure_kernels(device: str, core_names: list[str]) -> Iterator[Finding]:
    """Time forward and backward pass of one minibatch with resets inside, beside torch's own layer, which has none."""
    libraries = {"gru": nn.GRU, "lstm": nn.LSTM}
    for (steps, sequences, hidden_size), name in product(SHAPES, core_names):
        x = torch.randn(steps, sequences, hidden_size, device=device)
        starts = torch.rand(steps, sequences, device=device) < 1 / 20
        core = getattr(cores, name)(hidden_size, hidden_size=hidden_size).to(device)
        state, weights = core.initial_state(sequences, device), list(core.parameters())

        numbers = {"ms": 1e3 * clock(partial(differentiate, weights, core.unroll, x, state, starts), device)}
        if name in libraries:
            library = libraries[name](hidden_size, hidden_size).to(device)
            pass_through = partial(differentiate, list(library.parameters()), library, x)
            numbers["ms_without_resets"] = 1e3 * clock(pass_through, device)
            numbers["ratio"] = numbers["ms"] / numbers["ms_without_resets"]
        yield Finding(f"{name} {steps} x {sequences}, {hidden_size}", numbers)


def measure_training(device: str, core_names: list[str], seconds: float = 4.0) -> Iterator[Finding]:
    """Train CartPole without velocities for some seconds with each number of environments."""
    for (num_envs, num_steps, bptt, num_minibatches), name, kind in product(SIZES, core_names, ("numpy", "torch")):
        work = replace(WORKLOADS["w1"], hidden_size=128, num_envs=num_envs, num_steps=num_steps)
        work = replace(work, num_minibatches=num_minibatches)
        env = CartPoleNoVelocity(num_envs, device=None if kind == "numpy" else device)
        run = make_training(work, name, bptt, env=env, device=device)
        for _ in range(3):  # kernels are compiled in the first, graphs recorded in the second
            run()
        yield Finding(f"{name}, {num_envs:,} environments in {kind}", time_training(run, device, seconds))


def measure_few_minibatches(device: str, core_names: list[str], seconds: float = 4.0) -> Iterator[Finding]:
    """Train CartPole without velocities for some seconds with few minibatches, in environments of torch."""
    for name, num_envs, num_minibatches, epochs, precision in FEW_MINIBATCHES:
        if name in core_names:
            work = replace(WORKLOADS["w1"], hidden_size=128, num_envs=num_envs, num_steps=32, epochs=epochs)
            work = replace(work, num_minibatches=num_minibatches)
            env = CartPoleNoVelocity(num_envs, device=device)
            run = make_training(work, name, bptt=32, env=env, device=device, precision=precision)
            for _ in range(3):
                run()
            label = f"{name}, {num_envs:,} environments, {num_minibatches} minibatches, {epochs} epochs, {precision}"
            yield Finding(label, time_training(run, device, seconds))


def differentiate(weights: list[nn.Parameter], unroll: Callable[..., tuple[Tensor, Any]], *inputs: Any) -> None:
    """Run forward and backward pass of a layer."""
    torch.autograd.grad(unroll(*inputs)[0].sum(), weights)


def time_training(run: Iterations, device: str, seconds: float) -> dict[str, float]:
    """Return steps per second, the share of the update in the time, and the most memory that was in use."""
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    begun, steps, updating = time.perf_counter(), run.agent.env_steps, 0.0
    while (elapsed := time.perf_counter() - begun) < seconds:
        run.collect()
        wait(device)
        before = time.perf_counter()
        run.agent.learn(run.obs)
        wait(device)
        updating += time.perf_counter() - before
    numbers = {"steps_per_second": (run.agent.env_steps - steps) / elapsed, "share_of_update": updating / elapsed}
    return numbers | ({"peak_MB": torch.cuda.max_memory_allocated() / 1e6} if on_cuda else {})


def clock(call: Callable[[], None], device: str, rounds: int = 5, warm: int = 2) -> float:
    """Return the mean seconds of ``call``, after calls that are not counted."""
    for _ in range(warm):
        call()
    wait(device)
    begun = time.perf_counter()
    for _ in range(rounds):
        call()
    wait(device)
    return (time.perf_counter() - begun) / rounds


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()

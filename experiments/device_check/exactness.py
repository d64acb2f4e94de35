"""Is what a device computes right: replay, outputs and gradients beside those of a CPU in float64, checkpoints?"""

import tempfile
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from envs.t_maze import TMaze
from experiments.device_check.findings import Finding, Numbers
from experiments.peers.recurrent_ppo import make_training
from experiments.peers.workloads import WORKLOADS
from rl import cores, load_agent
from rl.agents.advice import WRONG
from rl.networks.acceleration import Precision

EXACT = 1e-5
"""The ratio of a policy that has not changed may differ from 1 by so much, and float32 from float64."""

BOUNDS: dict[Precision, float] = {"tf32": WRONG["tf32"], "float32": EXACT}
"""How much the ratio may differ in each precision. TF32 is one of CUDA alone; exact arithmetic is last, and stays."""

WORSE = 5.0
"""The errors of float32 on a device may be so many times those on a CPU."""

LAYERS = (1, 2)


def check_replay(device: str, core_names: list[str]) -> Iterator[Finding]:
    """Play rollouts, then compare the probabilities that the update sees first with those that were played."""
    work = replace(WORKLOADS["w1"], num_envs=64, num_steps=32, hidden_size=64, epochs=1, num_minibatches=2)
    on_cuda = torch.device(device).type == "cuda"
    bounds = {precision: BOUNDS[precision] for precision in BOUNDS if on_cuda or precision == "float32"}
    for name, layers, (precision, bound) in product(core_names, LAYERS, bounds.items()):
        envs = TMaze(work.num_envs, length=5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = make_training(work, name, bptt=16, env=envs, device=device, precision=precision, num_layers=layers)
            spread_policy(run.agent.network.heads)
            run()
        said = "; ".join(sorted({str(each.message).partition("\n")[0] for each in caught}))
        numbers = {"ratio_error": run.agent.last_metrics["ratio_error"], "warnings": float(len(caught))}
        label = f"{label_core(name, layers)}, {precision}"
        yield Finding(label, numbers, most={"ratio_error": bound, "warnings": 0.0}, note=said)


def check_parity(device: str, core_names: list[str]) -> Iterator[Finding]:
    """Compare outputs and gradients of each core, starts inside, with those of a CPU in float64."""
    generator = torch.Generator().manual_seed(0)
    x, starts = torch.randn(48, 32, 16, generator=generator), torch.rand(48, 32, generator=generator) < 0.1
    for name, layers in product(core_names, LAYERS):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            core = getattr(cores, name)(16, hidden_size=64, num_layers=layers)
        expected = unroll(core, x, starts, "cpu", torch.float64)
        numbers: Numbers = {}
        for place, kind in (("", device), ("_on_cpu", "cpu")):
            found = unroll(core, x, starts, kind, torch.float32)
            errors = [relative_error(one, other) for one, other in zip(found, expected, strict=True)]
            numbers |= {f"outputs{place}": errors[0], f"gradients{place}": max(errors[1:])}
        allowed = {key: max(EXACT, WORSE * numbers[f"{key}_on_cpu"]) for key in ("outputs", "gradients")}
        yield Finding(label_core(name, layers), numbers, most=allowed)


def check_checkpoints(device: str, core_names: list[str]) -> Iterator[Finding]:
    """Save on one device, load on the other, play the same and learn on."""
    work = replace(WORKLOADS["w1"], num_envs=8, num_steps=32, hidden_size=64)
    for (begins, ends), name in product(((device, "cpu"), ("cpu", device)), core_names[:2]):
        run = make_training(work, name, bptt=16, env=TMaze(work.num_envs, length=5), device=begins)
        run()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "agent.pt"
            run.agent.save(path)
            again = load_agent(path, device=ends, num_envs=work.num_envs)
        run.agent.training = False
        different = 0
        for _ in range(32):
            actions = run.agent.act(run.obs)
            different += int((again.act(run.obs) != actions).sum())
            run.obs = run.envs.step(actions).obs
        yield Finding(f"{name}, {begins} to {ends}", {"other_actions": float(different)}, most={"other_actions": 0.0})


def label_core(name: str, layers: int) -> str:
    """Name a core and its layers."""
    return f"{name}, {layers} layer{'s' if layers > 1 else ''}"


@torch.no_grad()
def spread_policy(heads: nn.Module) -> None:
    """Make a policy far from uniform: near it an error in the memory would not show."""
    for parameter in heads.parameters():
        parameter.mul_(100.0)


def unroll(core: Any, x: Tensor, starts: Tensor, device: str, dtype: torch.dtype) -> list[Tensor]:
    """Return outputs of a core and the gradients of input and weights, on the CPU in float64."""
    core = deepcopy(core).to(device=device, dtype=dtype)
    x = x.to(device=device, dtype=dtype).requires_grad_()
    fresh = core.initial_state(x.shape[1], device)
    state = {name: leaf.to(dtype) if leaf.is_floating_point() else leaf for name, leaf in fresh.items()}
    y, _ = core.unroll(x, state, starts.to(device))
    gradients = torch.autograd.grad(y.square().sum(), [x, *core.parameters()])
    return [leaf.detach().cpu().double() for leaf in (y, *gradients)]


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference in proportion to the largest expected number, or to 1 if that is larger."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1.0))

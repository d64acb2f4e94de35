"""How far a memory reaches as it stands: the gradient k steps back, how long a disturbed state stays disturbed."""

import math

import torch
from torch import Generator, Tensor

from rl.memory_check.comparing import add_noise, draw_sequences, measure_difference, take_steps
from rl.memory_check.model import warm_state
from rl.memory_check.subject import Inputs, Subject
from rl.memory_check.verdicts import Verdict
from rl.types import State

FURTHEST = 256
"""Steps back that are looked at."""

ROWS = 8
FAINT = 1e-6
"""A gradient that is smaller, in proportion to that of the present step, teaches nothing in float32."""

UNITS = 64
"""Numbers of a state that are disturbed, one at a time."""


def check_gradient_reach(subject: Subject, samples: Inputs, generator: Generator, bptt: int | None) -> Verdict:
    """Measure the gradient of an output by the inputs k steps before it.

    Args:
        subject: to be checked.
        samples: inputs, leaves ``[n, D]``.
        generator: draws.
        bptt: steps through which gradients are to flow; None for any.
    """
    name = "gradient_reaches_back"
    state = warm_state(subject, samples, ROWS, generator)
    if not state:
        return Verdict(name, None, "the model has no memory: no gradient reaches a step back", "", {})
    if not any(leaf.is_floating_point() for leaf in samples.values()):
        return Verdict(name, None, "not judged: no gradient can be taken by inputs that are whole numbers", "", {})
    inputs = draw_sequences(samples, FURTHEST + 1, ROWS, generator)
    shares = measure_gradient(subject, inputs, state, generator)
    table = {k: shares[k] for k in _doubling(FURTHEST)}
    strong = [k for k, share in enumerate(shares) if share >= FAINT]
    reach = max(strong, default=0)
    end = None if reach == FURTHEST else reach + 1
    values = measure_values(subject, inputs, state, generator, [k for k in table if 0 < k <= 32])
    numbers = {"k": [*table], "relative_gradient": [*table.values()], "falls_below_1e-6_at": end}
    numbers |= {"relative_value": [values[k] for k in table if 0 < k <= 32], "bptt": bptt}
    cut = [k for k, change in values.items() if change > 1e-3 and max(shares[k:]) == 0.0]
    if reach == 0 or cut:
        k = min(cut, default=1)
        finding = f"no gradient reaches {k} step(s) back"
        finding += ", though what was seen then counts" if cut else ""
        advice = "look for detach, no_grad or a replay step by step in unroll"
        if max(values.values()) <= 1e-3:
            finding += ", and what was seen then changes nothing now"
            advice = "let the memory read the observation, and the output the memory"
        return Verdict(name, False, finding, advice, numbers)
    there = f"more than {FURTHEST} steps back" if end is None else f"{reach} steps back and falls below 1e-6 at {end}"
    wanted = FURTHEST if bptt is None else min(bptt, FURTHEST)
    if reach < wanted - 1:
        advice = (
            f"what lies further back teaches nothing at first, though sequences have {bptt or 'more'} steps: a "
            "larger memory_span (of an LSTM: forget_bias) or attention reaches further"
        )
        return Verdict(name, None, f"the gradient reaches {there}", advice, numbers)
    return Verdict(name, True, f"the gradient reaches {there}", "", numbers)


def _doubling(furthest: int) -> list[int]:
    """List 0, 1, 2, 4, ... up to ``furthest``."""
    return [0, *(1 << n for n in range(furthest.bit_length()) if 1 << n <= furthest)]


def measure_gradient(subject: Subject, inputs: Inputs, state: State, generator: Generator) -> list[float]:
    """Return the norm of d output[T - 1] / d input[T - 1 - k] in proportion to that for k = 0, for each k.

    Args:
        subject: to be checked.
        inputs: leaves ``[T, B, D]``.
        state: before them.
        generator: draws the direction in which outputs are looked at.
    """
    floats = {name: leaf.detach().clone() for name, leaf in inputs.items() if leaf.is_floating_point()}
    leaves = [leaf.requires_grad_() for leaf in floats.values()]
    steps, rows = next(iter(inputs.values())).shape[:2]
    with torch.enable_grad():
        outputs, _ = subject.unroll(inputs | floats, state, torch.zeros(steps, rows, dtype=torch.bool))
    if not outputs.requires_grad:
        return [0.0] * steps
    scale = outputs.detach().flatten(0, 1).std(0, unbiased=False) + 1e-8
    direction = torch.randn(outputs.shape[1:], generator=generator).to(outputs) / scale
    grads = torch.autograd.grad(outputs[-1], leaves, direction, allow_unused=True, materialize_grads=True)
    norms = torch.stack([part.detach().double().square().flatten(1).sum(1) for part in grads]).sum(0).sqrt().flip(0)
    return (norms / norms[0]).tolist() if norms[0] > 0 else [0.0] * steps


@torch.no_grad()
def measure_values(
    subject: Subject, inputs: Inputs, state: State, generator: Generator, distances: list[int]
) -> dict[int, float]:
    """Return how much other inputs k steps back change the last output, in proportion to other inputs now.

    Args:
        subject: to be checked.
        inputs: leaves ``[T, B, D]``.
        state: before them.
        generator: draws the other inputs.
        distances: the k.
    """
    steps = len(next(iter(inputs.values())))
    inputs = take_steps(inputs, slice(max(0, steps - 1 - max(distances)), None))
    steps, rows = next(iter(inputs.values())).shape[:2]
    starts, noisy = torch.zeros(steps, rows, dtype=torch.bool), add_noise(inputs, 1.0, generator)
    outputs, _ = subject.unroll(inputs, state, starts)

    def change_at(step: int) -> float:
        at = (torch.arange(steps) == step).view(-1, 1, 1)
        others = {
            name: torch.where(at.view(-1, *[1] * (leaf.dim() - 1)).to(leaf.device), noisy[name], leaf)
            for name, leaf in inputs.items()
        }
        return measure_difference(subject.unroll(others, state, starts)[0][-1], outputs[-1])

    now = change_at(steps - 1)
    return {k: change_at(steps - 1 - k) / now if now else 0.0 for k in distances}


@torch.no_grad()
def check_time_scales(subject: Subject, samples: Inputs, generator: Generator, bptt: int | None) -> Verdict:
    """Measure after how many steps a disturbance of the state has fallen to 1/e of what it was after the first.

    Numbers of the state are disturbed one at a time, in a memory that was played into. One step spreads a disturbance
    over the state, so that a part that is written anew in every step (h of an LSTM) does not count as fast.

    Args:
        subject: to be checked.
        samples: inputs, leaves ``[n, D]``.
        generator: draws.
        bptt: steps through which gradients are to flow, for the advice; None for any.
    """
    name = "time_scales"
    state = {key: leaf[:1] for key, leaf in warm_state(subject, samples, ROWS, generator, steps=64).items()}
    spread = {key: leaf for key, leaf in state.items() if leaf.is_floating_point() and leaf.numel()}
    sizes = {key: leaf.numel() for key, leaf in spread.items()}
    if not sizes:
        return Verdict(name, None, "the model has no memory", "", {})
    units = torch.randperm(sum(sizes.values()), generator=generator)[:UNITS]
    disturbed = {key: leaf.expand(len(units) + 1, *leaf.shape[1:]).clone() for key, leaf in state.items()}
    first = 0
    for key, size in sizes.items():
        chosen = torch.nonzero((units >= first) & (units < first + size)).flatten()
        step = 0.1 * spread[key].std(unbiased=False) + 1e-3
        disturbed[key].view(len(units) + 1, -1)[chosen, units[chosen] - first] += step
        first += size
    inputs = draw_sequences(samples, FURTHEST, 1, generator)
    lasts = _count_steps_to_fall(subject, inputs, disturbed, [*sizes])
    quantiles = torch.quantile(lasts, torch.tensor([0.1, 0.5, 0.9]))
    low, middle, high = (_in_steps(value) for value in quantiles.tolist())
    finding = f"a disturbance of the state falls to 1/e within {middle} steps (median; 10 %: {low}, 90 %: {high})"
    short = quantiles[2] < (bptt or 8) / 4
    advice = "it fades fast at first, so long delays are found late: "
    advice += "a larger memory_span (of an LSTM: forget_bias) keeps it"
    numbers = {"quantiles": [0.1, 0.5, 0.9], "steps": quantiles.tolist(), "longest_looked_at": FURTHEST}
    return Verdict(name, None, finding, advice if short else "", numbers)


def _in_steps(value: float) -> str:
    return f"more than {FURTHEST}" if value >= FURTHEST else f"{value:.0f}"


def _count_steps_to_fall(subject: Subject, inputs: Inputs, state: State, names: list[str]) -> Tensor:
    """Count the steps until each row of ``state`` but the last has come within 1/e of the last, ``[rows - 1]``."""
    rows = len(state[names[0]])
    starts = torch.zeros(rows, dtype=torch.bool)
    begin, lasts = torch.zeros(rows - 1), torch.full((rows - 1,), float(FURTHEST))
    for t in range(FURTHEST):
        step = {name: leaf[t].expand(rows, *leaf.shape[2:]) for name, leaf in inputs.items()}
        _, state = subject.step(step, state, starts)
        distances = _distances(state, names)
        begin = begin if t else distances
        fallen = distances <= begin / math.e
        lasts = torch.where(fallen & (lasts == FURTHEST), float(t), lasts)
        if bool((lasts < FURTHEST).all()):
            break
    return lasts


def _distances(state: State, names: list[str]) -> Tensor:
    """Return the distance of each row but the last from the last, ``[rows - 1]``, on the CPU."""
    whole = torch.cat([state[name].reshape(len(state[name]), -1) for name in names], dim=1).float()
    return (whole[:-1] - whole[-1]).norm(dim=1).cpu()

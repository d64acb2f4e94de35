"""Checks of a memory alone: what it computes step by step and over sequences, and what reaches across starts and rows.

The sequences are drawn from inputs that were observed, in any order, from a state that was played into.
"""

import torch
from torch import Generator, Tensor

from rl.memory_check.comparing import (
    BOUND,
    add_noise,
    draw_sequences,
    measure_difference,
    measure_state_difference,
    take_rows,
)
from rl.memory_check.subject import Inputs, Subject
from rl.memory_check.verdicts import Verdict
from rl.types import State

STEPS, ROWS = 12, 5
OPENS = 6
"""The step of a sequence that opens an episode, where what is before it is changed."""


@torch.no_grad()
def play_steps(subject: Subject, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
    """Take ``T`` single steps: outputs ``[T, B, P]`` and the last state."""
    outputs = []
    for t in range(len(starts)):
        output, state = subject.step({name: leaf[t] for name, leaf in inputs.items()}, state, starts[t])
        outputs.append(output)
    return torch.stack(outputs), state


@torch.no_grad()
def warm_state(subject: Subject, samples: Inputs, rows: int, generator: Generator, steps: int = STEPS) -> State:
    """Make a state that a few steps were played into."""
    starts = torch.zeros(steps, rows, dtype=torch.bool)
    return play_steps(subject, draw_sequences(samples, steps, rows, generator), subject.initial_state(rows), starts)[1]


def _draw_play(subject: Subject, samples: Inputs, generator: Generator) -> tuple[Inputs, State, Tensor]:
    """Draw sequences, a state that was played into in front of them, and starts anywhere."""
    state = warm_state(subject, samples, ROWS, generator)
    inputs = draw_sequences(samples, STEPS, ROWS, generator)
    return inputs, state, torch.rand(STEPS, ROWS, generator=generator) < 0.2


@torch.no_grad()
def check_unroll(subject: Subject, samples: Inputs, generator: Generator) -> Verdict:
    """Check that sequences are what their single steps are, with starts anywhere.

    Args:
        subject: to be checked.
        samples: inputs, leaves ``[n, D]``.
        generator: draws.
    """
    inputs, state, starts = _draw_play(subject, samples, generator)
    outputs, after = subject.unroll(inputs, state, starts)
    expected, state_then = play_steps(subject, inputs, state, starts)
    difference = measure_difference(outputs, expected)
    of_state = measure_state_difference(after, state_then)
    passed = max(difference, of_state) <= BOUND
    return Verdict(
        "unroll_equals_step",
        passed,
        f"sequences differ from their single steps by {difference:.1e} standard deviations, their last state by "
        f"{of_state:.1e}",
        "" if passed else "the update computes something else than acting: compare unroll with step, starts included",
        {"difference": difference, "state_difference": of_state, "bound": BOUND},
    )


def check_starts(subject: Subject, samples: Inputs, generator: Generator) -> Verdict:
    """Check that nothing of an episode, and no gradient, crosses the start of the next one.

    The inputs before the start, and the state before them, are changed: outputs from the start on must stay.

    Args:
        subject: to be checked.
        samples: inputs, leaves ``[n, D]``.
        generator: draws.
    """
    name = "nothing_crosses_a_start"
    state = warm_state(subject, samples, ROWS, generator)
    if not state:
        return Verdict(name, None, "the model has no memory, so nothing can cross a start", "", {})
    inputs = draw_sequences(samples, STEPS, ROWS, generator)
    noisy = add_noise(inputs, 1.0, generator)
    changed = {key: torch.cat([noisy[key][:OPENS], leaf[OPENS:]]) for key, leaf in inputs.items()}
    other = add_noise(state, 1.0, generator)
    starts = torch.zeros(STEPS, ROWS, dtype=torch.bool)
    starts[OPENS] = True
    worst = torch.zeros(STEPS - OPENS)
    for play in (play_steps, _unroll):
        before, _ = play(subject, inputs, state, starts)
        after, _ = play(subject, changed, other, starts)
        columns = before[OPENS:].flatten(0, 1), after[OPENS:].flatten(0, 1)
        scale = _scales(columns[0])
        steps = [float(((after[t] - before[t]) / scale).abs().max()) for t in range(OPENS, STEPS)]
        worst = torch.maximum(worst, torch.nan_to_num(torch.tensor(steps), nan=torch.inf, posinf=torch.inf))
    gradient = _gradient_across(subject, inputs, state, starts)
    numbers = {"differences_after_the_start": worst.tolist(), "gradient_across": gradient, "bound": BOUND}
    if worst.max() > BOUND:
        wrong = torch.nonzero(worst > BOUND).flatten().tolist()
        late = wrong == [*range(len(wrong))] and len(wrong) < len(worst)
        what = (
            f"for {len(wrong)} step(s), so the memory is cleared too late" if late else "so the memory is not cleared"
        )
        finding = f"the episode before changes outputs after a start by {float(worst.max()):.1e}, {what}"
        return Verdict(name, False, finding, "clear the state of a row in the very step that `starts` names", numbers)
    if gradient > 1e-6:
        finding = f"values do not cross a start, but a gradient does ({gradient:.1e} of that within an episode)"
        advice = "clear the state by a mask of zeros, or select a fresh one: a value that is small is no barrier"
        return Verdict(name, False, finding, advice, numbers)
    finding = (
        f"the episode before changes outputs after a start by {float(worst.max()):.1e} standard deviations, its "
        f"gradient is {gradient:.1e}"
    )
    return Verdict(name, True, finding, "", numbers)


@torch.no_grad()
def _unroll(subject: Subject, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
    return subject.unroll(inputs, state, starts)


def _scales(columns: Tensor) -> Tensor:
    """Return what differences of ``[n, P]`` are measured in; infinite for what a mask forbids."""
    scale = columns.std(0, unbiased=False) + 1e-3 * columns.abs().amax(0) + 1e-8
    return scale.masked_fill(columns.amin(0) < -1e8, float("inf"))


def _gradient_across(subject: Subject, inputs: Inputs, state: State, starts: Tensor) -> float:
    """Return the gradient of outputs after the start by what is before it, in proportion to that by what is after."""
    asked = {name: leaf.detach().clone().requires_grad_() for name, leaf in inputs.items() if leaf.is_floating_point()}
    begins = {name: leaf.detach().clone() for name, leaf in state.items()}
    floats = [leaf.requires_grad_() for leaf in begins.values() if leaf.is_floating_point()]
    with torch.enable_grad():
        outputs, _ = subject.unroll(inputs | asked, begins, starts)
    if not outputs.requires_grad:
        return 0.0
    outputs = outputs[OPENS:]
    total = (outputs / _scales(outputs.detach().flatten(0, 1))).sum()
    leaves = [*asked.values(), *floats]
    found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    grads = [part.detach() for part in found]  # torch 2.8 lets those of unused leaves require one
    of_inputs = grads[: len(asked)]
    before = sum(float(part[:OPENS].square().sum()) for part in of_inputs)
    before += sum(float(part.square().sum()) for part in grads[len(asked) :])
    within = sum(float(part[OPENS:].square().sum()) for part in of_inputs)
    return (before / within) ** 0.5 if within else before**0.5


@torch.no_grad()
def check_rows(subject: Subject, samples: Inputs, generator: Generator) -> Verdict:
    """Check that each row of a batch is on its own: neither the others nor their order change it.

    Args:
        subject: to be checked.
        samples: inputs, leaves ``[n, D]``.
        generator: draws.
    """
    inputs, state, starts = _draw_play(subject, samples, generator)
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = take_rows(inputs, order, 1), take_rows(state, order, 0), starts[:, order]
    noisy_inputs, noisy_state = add_noise(inputs, 1.0, generator), add_noise(state, 1.0, generator)
    first = torch.arange(ROWS) == 0
    changed = {name: torch.where(_along(first, leaf, 1), noisy_inputs[name], leaf) for name, leaf in inputs.items()}
    other = {name: torch.where(_along(first, leaf, 0), noisy_state[name], leaf) for name, leaf in state.items()}
    by_order = by_others = 0.0
    for play in (play_steps, _unroll):
        outputs, _ = play(subject, inputs, state, starts)
        ordered, _ = play(subject, *moved)
        beside, _ = play(subject, changed, other, starts)
        by_order = max(by_order, measure_difference(ordered, outputs[:, order.to(outputs.device)]))
        by_others = max(by_others, measure_difference(beside[:, 1:], outputs[:, 1:]))
    passed = max(by_order, by_others) <= BOUND
    return Verdict(
        "environments_do_not_mix",
        passed,
        f"another order of the environments changes outputs by {by_order:.1e} standard deviations, another episode in "
        f"one of them those of the others by {by_others:.1e}",
        "" if passed else "look for a mean over the batch (batch norm), or for an axis taken for another",
        {"by_order": by_order, "by_others": by_others, "bound": BOUND},
    )


def _along(flags: Tensor, leaf: Tensor, axis: int) -> Tensor:
    """Bring ``flags [B]`` into a shape that broadcasts along ``axis`` of a leaf."""
    return flags.to(leaf.device).view(*[1] * axis, -1, *[1] * (leaf.dim() - axis - 1))

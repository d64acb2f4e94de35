"""Checks of a rollout: starts where episodes ended, a replay that is what was acted, every step once."""

import torch
from torch import Tensor

from rl.memory_check.comparing import BOUND, measure_difference, measure_state_difference
from rl.memory_check.subject import Learner, Replayed, Trace
from rl.memory_check.verdicts import Verdict

RATIO_BOUND = 1e-4
"""Largest error of a probability ratio that is 1 but for rounding."""


OTHER_FEATURES = "the encoder makes other features of the same observations than when the agent acted"


def check_stored_starts(trace: Trace) -> Verdict:
    """Check that the learner has stored a start exactly where an episode began.

    Args:
        trace: of a rollout.
    """
    wrong = trace.starts != trace.opens
    count, ends = int(wrong.sum()), int((trace.terminated | trace.truncated).sum())
    numbers = {"wrong": count, "starts": int(trace.opens.sum()), "ends": ends}
    if not count:
        finding = f"{numbers['starts']} starts stand where the environments began episodes, {ends} ended"
        return Verdict("starts_follow_ends", True, finding, "", numbers)
    late = bool((trace.starts[2:] == trace.opens[1:-1]).all()) and bool(trace.opens[1:-1].any())
    finding = f"{count} of {wrong.numel()} steps are marked wrongly as starts" + (
        ": each one a step late" if late else ""
    )
    advice = "a start belongs to the first observation of an episode, the step after terminated or truncated"
    return Verdict("starts_follow_ends", False, finding, advice, numbers | {"late": late})


def check_replay(learner: Learner, trace: Trace, replayed: list[Replayed]) -> Verdict:
    """Check that minibatches replayed with unchanged weights give what acting gave: ratio 1, the same states.

    Args:
        learner: made both.
        trace: of the rollout.
        replayed: an epoch of it.
    """
    name = "replay_is_exact"
    if not replayed:
        return Verdict(name, None, "nothing was replayed: the rollout is too short for a sequence", "", {})
    ratio = max((_ratio_error(mb) for mb in replayed if mb.ratio is not None), default=None)
    outputs = max(_output_difference(trace, mb) for mb in replayed)
    states = max(_state_difference(trace, mb) for mb in replayed)
    numbers = {"ratio_error": ratio, "output_difference": outputs, "state_difference": states}
    numbers |= {"ratio_bound": RATIO_BOUND, "bound": BOUND}
    measured = "" if ratio is None else f"the probability ratio is off 1 by {ratio:.1e} at most; "
    measured += f"outputs differ by {outputs:.1e} standard deviations, the states that they begin from by {states:.1e}"
    if max(outputs, states) <= BOUND and (ratio or 0.0) <= RATIO_BOUND:
        return Verdict(name, True, measured, "", numbers)
    cause, advice = _find_cause(learner, trace, replayed, states)
    return Verdict(name, False, f"{cause}: {measured}", advice, numbers | {"cause": cause})


def _find_cause(learner: Learner, trace: Trace, replayed: list[Replayed], states: float) -> tuple[str, str]:
    """Say in a few words why a replay is not exact, and what to do."""
    if any(not _in_order(trace, mb) for mb in replayed):
        return "sequences are not in the order of time", "shuffle whole sequences, never the steps inside them"
    if any(_input_difference(trace, mb) > BOUND for mb in replayed):
        return (
            OTHER_FEATURES,
            "running moments may change after an update alone, never between acting and replay; nothing in the encoder "
            "may be random",
        )
    if states > BOUND:
        fresh = learner.initial_state(1)
        zero = all(
            bool((leaf == fresh[name].to(leaf)).all())
            for mb in replayed
            for name, leaf in mb.state.items()
            if leaf.is_floating_point()
        )
        if zero:
            return (
                "sequences begin from a fresh state instead of the one that the agent had",
                "store the state before each sequence and unroll from it, or warm it up by burn_in",
            )
        return (
            "sequences begin from other states than those that the agent had",
            "compare what is stored with the state before each step: order of the parts (hidden, cell), rows, steps",
        )
    if any(bool((mb.starts != _pick(trace.opens, mb)).logical_and(mb.index >= 0).any()) for mb in replayed):
        return "starts in the replay are not those of the episodes", "cut observations and starts by the same steps"
    return (
        "the replay computes something else than acting did, from the same states and starts",
        "compare unroll with step, old_log_probs with the actions they belong to, and look for dropout",
    )


def _pick(column: Tensor, mb: Replayed) -> Tensor:
    """Return ``column [T, B, ...]`` at the steps of a minibatch, ``[L, N, ...]``; of padding, that of step 0."""
    index = mb.index.clamp_min(0).to(column.device)
    return column.flatten(0, 1)[index.flatten()].unflatten(0, mb.index.shape)


def _ratio_error(mb: Replayed) -> float:
    assert mb.ratio is not None  # the caller has asked
    errors = (mb.ratio.detach().double().cpu() - 1.0).abs().masked_fill(mb.index < 0, 0.0)
    return float(torch.nan_to_num(errors, nan=torch.inf, posinf=torch.inf).max())


def _output_difference(trace: Trace, mb: Replayed) -> float:
    """Return the largest difference of outputs, in standard deviations over the whole rollout."""
    acted = trace.outputs.flatten(0, 1)
    replayed, counts = mb.outputs.detach().flatten(0, 1), (mb.index >= 0).flatten().to(acted.device)
    now = acted.clone()
    now[mb.index.flatten().to(acted.device)[counts]] = replayed[counts]
    return measure_difference(now, acted)


def _input_difference(trace: Trace, mb: Replayed) -> float:
    """Return the largest difference of what the memory reads, where it is known."""
    counts, worst = mb.index.flatten() >= 0, 0.0
    for name, leaf in (mb.inputs or {}).items():
        now, then = (
            part.flatten(0, 1)[counts.to(leaf.device)].float() for part in (leaf, _pick(trace.inputs[name], mb))
        )
        worst = max(worst, measure_difference(now, then))
    return worst


def _state_difference(trace: Trace, mb: Replayed) -> float:
    """Return the largest difference of the states that sequences begin from, where the agent's were noted."""
    if not mb.state:
        return 0.0
    rows = trace.starts.shape[1]
    first = mb.index[0]
    step, env = first // rows, first % rows
    known = (first >= 0) & (step % trace.stride == 0)
    if not known.any():
        return 0.0
    stored = {name: leaf[(step // trace.stride)[known], env[known]] for name, leaf in trace.states.items()}
    begun = {name: leaf.detach()[known] for name, leaf in mb.state.items()}
    opens = trace.opens[step[known], env[known]]
    kept = ~opens  # what is cleared at once may be anything
    if not kept.any():
        return 0.0
    parts = ({name: leaf[kept] for name, leaf in leaves.items()} for leaves in (begun, stored))
    return measure_state_difference(*parts)


def _in_order(trace: Trace, mb: Replayed) -> bool:
    """Say whether each step of a sequence is followed by the next one of the same environment."""
    rows, (now, after) = trace.starts.shape[1], (mb.index[:-1], mb.index[1:])
    return bool(((after - now == rows) | (now < 0) | (after < 0)).all())


def check_minibatch_order(trace: Trace, one: list[Replayed], other: list[Replayed], exact: bool | None) -> Verdict:
    """Check that a step is replayed alike in whatever minibatch it comes.

    Args:
        trace: of the rollout.
        one: an epoch.
        other: an epoch in another order.
        exact: what ``check_replay`` has said.
    """
    name = "minibatch_order_is_irrelevant"
    if not exact:
        return Verdict(name, None, "not judged, for the replay is not exact or there is none", "", {})
    outputs = []
    for epoch in (one, other):
        whole = torch.full_like(trace.outputs.flatten(0, 1), float("nan"))
        for mb in epoch:
            counts = (mb.index >= 0).flatten()
            whole[mb.index.flatten()[counts].to(whole.device)] = mb.outputs.detach().flatten(0, 1)[counts]
        outputs.append(whole)
    both = torch.isfinite(outputs[0]).all(1) & torch.isfinite(outputs[1]).all(1)
    difference = measure_difference(outputs[0][both], outputs[1][both])
    passed = difference <= BOUND
    finding = f"in another order of the minibatches outputs differ by {difference:.1e} standard deviations"
    advice = "" if passed else "look for a state that is kept between minibatches, or a mean over the batch"
    return Verdict(name, passed, finding, advice, {"difference": difference, "bound": BOUND})


def check_every_step(learner: Learner, trace: Trace, replayed: list[Replayed]) -> Verdict:
    """Check that an epoch trains every step of the rollout exactly once.

    Args:
        learner: made both.
        trace: of the rollout.
        replayed: an epoch of it.
    """
    name = "every_step_is_trained_once"
    if not learner.every_step_once:
        return Verdict(name, None, "not for this agent: it draws sequences at random, again and again", "", {})
    counts = torch.zeros(trace.starts.numel(), dtype=torch.int64)
    for mb in replayed:
        index = mb.index.flatten().cpu()
        counts += torch.bincount(index[index >= 0], minlength=len(counts))
    missing, twice = int((counts == 0).sum()), int((counts > 1).sum())
    passed = missing == twice == 0
    finding = f"of {len(counts)} steps {missing} are left out in an epoch, {twice} come more than once"
    advice = "" if passed else "shuffle pairs of (sequence, environment) and split them, without drawing twice"
    return Verdict(name, passed, finding, advice, {"steps": len(counts), "left_out": missing, "twice": twice})


def check_gradient_length(learner: Learner, trace: Trace, replayed: list[Replayed]) -> Verdict:
    """Check that the gradient through time ends with the sequence, after ``bptt`` steps.

    Args:
        learner: made both.
        trace: of the rollout.
        replayed: an epoch of it.
    """
    name, bptt = "gradient_stops_at_bptt", learner.bptt
    lengths = [int((mb.index >= 0).sum(0).max()) for mb in replayed]
    longest = max(lengths, default=0)
    allowed = len(trace.starts) if bptt is None else bptt
    leaks = any(leaf.requires_grad for mb in replayed for leaf in mb.state.values())
    numbers = {"longest": longest, "bptt": bptt, "begins_with_a_gradient": leaks}
    if leaks or longest > allowed:
        finding = f"sequences have {longest} steps, {allowed} are allowed" + (
            ", and the state before them asks for a gradient" if leaks else ""
        )
        return Verdict(name, False, finding, "cut sequences at bptt and detach the state that they begin from", numbers)
    finding = f"the gradient ends with the sequences, which have {longest} steps"
    if longest == 1:
        advice = "no gradient passes through time, so what to remember is never learned: raise bptt"
        return Verdict(name, None, finding, advice, numbers)
    return Verdict(name, True, finding, "", numbers)

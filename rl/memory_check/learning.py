"""Checks of what is learned from a rollout: its returns and advantages, and what an update does to stored states."""

import torch
from torch import Tensor

from rl.memory_check.comparing import measure_difference, take_steps
from rl.memory_check.subject import Learner, Replayed, Subject, Trace
from rl.memory_check.verdicts import Verdict
from rl.types import CutEpisodes, Observation, State

TARGET_BOUND = 1e-3
"""Largest difference of returns and advantages, in standard deviations."""

ABSURD, STALE = 10.0, 1.0
"""Relative differences of stored and recomputed states."""


@torch.no_grad()
def values_of(subject: Subject, cut: CutEpisodes) -> Tensor:
    """Compute V of what closed episodes, under the state then, ``[K]``, in float64 on the CPU."""
    no_starts = torch.zeros(len(cut.env_ids), dtype=torch.bool)
    outputs, _ = subject.step(subject.encode(cut.obs), cut.state, no_starts)
    return outputs[:, -1].double().cpu()


def recompute_targets(subject: Subject, trace: Trace, values: Tensor) -> tuple[Tensor, Tensor]:
    """Compute returns and advantages ``[T, B]`` by the plain rule, step by step in float64.

    V of what follows is 0 after a termination, V(final observation) after a truncation, else V of the next step.

    Args:
        subject: gives V of final observations.
        trace: of a rollout.
        values: ``[T, B]``, V when the agent acted, float64 on the CPU.
    """
    following = torch.cat([values[1:], values_of(subject, trace.last).unsqueeze(0)])
    for cut in trace.cuts:
        following[cut.step, torch.from_numpy(cut.env_ids)] = values_of(subject, cut)
    following[trace.terminated] = 0.0
    ended = trace.terminated | trace.truncated
    advantages, later = torch.zeros_like(values), torch.zeros_like(values[0])
    for t in reversed(range(len(values))):
        errors = trace.rewards[t].double() + trace.gamma * following[t] - values[t]
        later = errors + trace.gamma * trace.gae_lambda * later * (~ended[t])
        advantages[t] = later
    return advantages + values, advantages


def check_targets(learner: Learner, trace: Trace, other_features: bool = False) -> Verdict:
    """Check that returns and advantages are what the plain rule gives for what was really played.

    Args:
        learner: made the trace.
        trace: of a rollout.
        other_features: the encoder changes before the update, so that V of what closed episodes is another.
    """
    name = "targets_are_right"
    if other_features:
        return Verdict(name, None, "not judged, for the encoder has changed since the agent acted", "", {})
    if trace.values is None or trace.returns is None or trace.advantages is None:
        return Verdict(name, None, "not for this agent: it learns from no advantages", "", {})
    values = trace.outputs[..., -1].double().cpu()
    returns, advantages = recompute_targets(learner, trace, values)
    given, used = trace.returns.double().cpu(), trace.advantages.double().cpu()
    by_return = measure_difference(given.reshape(-1, 1), returns.reshape(-1, 1))
    by_advantage = measure_difference(_normalise(used).reshape(-1, 1), _normalise(advantages).reshape(-1, 1))
    truncated, terminated = int(trace.truncated.sum()), int(trace.terminated.sum())
    numbers = {"return_difference": by_return, "advantage_difference": by_advantage, "bound": TARGET_BOUND}
    numbers |= {"terminated": terminated, "truncated": truncated}
    seen = f"{terminated} episodes terminated and {truncated} were truncated"
    finding = f"returns differ from the plain rule by {by_return:.1e} standard deviations, advantages by "
    finding += f"{by_advantage:.1e}; {seen}"
    if max(by_return, by_advantage) <= TARGET_BOUND:
        return Verdict(name, True, finding, "", numbers)
    cause, advice = "advantages are others, though returns are right", "compare how advantages are normalised"
    if by_return > TARGET_BOUND:
        cause, advice = _find_cause(learner, trace, values, given)
    return Verdict(name, False, f"{cause}: {finding}", advice, numbers | {"cause": cause})


def add_rewards(trace: Trace, n_step: int) -> tuple[Tensor, Tensor]:
    """Add the discounted rewards of n steps, or of those left in the episode; return also the factor of what follows.

    The factor is gamma^m after m steps, 0 if the episode terminated in one of them. NaN where the rollout ends first.

    Args:
        trace: of a rollout.
        n_step: n.
    """
    steps, rows = trace.rewards.shape
    sums, factors = torch.full((2, steps, rows), float("nan"), dtype=torch.float64)
    rewards, terminated, truncated = (part.tolist() for part in (trace.rewards, trace.terminated, trace.truncated))
    for t in range(steps):
        for row in range(rows):
            total, factor = 0.0, 1.0
            for at in range(t, min(t + n_step, steps)):
                total += factor * rewards[at][row]
                factor = 0.0 if terminated[at][row] else factor * trace.gamma
                if terminated[at][row] or truncated[at][row] or at == t + n_step - 1:
                    sums[t, row], factors[t, row] = total, factor
                    break
    return sums, factors


def check_n_step(trace: Trace, replayed: list[Replayed]) -> Verdict:
    """Check that rewards of n steps, and what the value after them counts with, are those of what was really played.

    Args:
        trace: of a rollout of a learner with ``n_step``.
        replayed: minibatches of it.
    """
    name, n_step = "targets_are_right", trace.n_step or 1
    if not replayed:
        return Verdict(name, None, "nothing was replayed: the rollout is too short for a sequence", "", {})
    sums, factors = (part.flatten() for part in add_rewards(trace, n_step))
    index = torch.cat([mb.index.flatten() for mb in replayed])
    counted = (index >= 0) & torch.isfinite(sums[index])
    index = index[counted]
    given = [torch.cat([getattr(mb, part).flatten() for mb in replayed])[counted] for part in ("rewards", "factors")]
    by_reward = measure_difference(given[0].view(-1, 1), sums[index].view(-1, 1))
    by_factor = float((given[1].double() - factors[index]).abs().max()) if len(index) else 0.0
    numbers = {"reward_difference": by_reward, "factor_difference": by_factor, "n_step": n_step, "bound": TARGET_BOUND}
    finding = f"rewards of {n_step} steps differ from the plain rule by {by_reward:.1e} standard deviations, "
    finding += f"the factor of what follows them by {by_factor:.1e}, in {len(index)} replayed steps"
    if max(by_reward, by_factor) <= TARGET_BOUND:
        return Verdict(name, True, finding, "", numbers)
    if bool(((given[1] == 0) & (factors[index] > 0)).any()):
        finding = f"a truncation is taken for a termination: {finding}"
        return Verdict(name, False, finding, "keep the two flags apart: what follows a truncation is not 0", numbers)
    return Verdict(name, False, finding, "compare where rewards end with their episode, gamma and n_step", numbers)


def _normalise(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.std(unbiased=False) + 1e-8)


def _find_cause(subject: Subject, trace: Trace, values: Tensor, given: Tensor) -> tuple[str, str]:
    """Say in a few words what is wrong with returns: what they would be with a usual fault is compared with them."""
    first = Trace(**vars(trace))
    first.truncated, first.cuts = torch.zeros_like(trace.truncated), []
    first.terminated = trace.terminated | trace.truncated
    if _explains(subject, first, values, given):
        return (
            "a truncation is taken for a termination",
            "keep the two flags apart: the future of a truncated episode is worth V(final observation), not 0",
        )
    # without its cut, V of the next step stands there, that of the observation after the reset and the clearing
    second = Trace(**vars(trace))
    second.cuts = []
    uncleared = Trace(**vars(trace))
    uncleared.cuts = [CutEpisodes(cut.step, cut.env_ids, _obs_after(trace, cut), cut.state) for cut in trace.cuts]
    if _explains(subject, second, values, given) or _explains(subject, uncleared, values, given):
        return (
            "truncated episodes take V of the observation after the reset",
            "take V of the observation that closed the episode (final_obs), under the state after its last step",
        )
    third = Trace(**vars(trace))
    fresh = subject.initial_state(1)
    third.cuts = [
        CutEpisodes(
            *(cut.step, cut.env_ids, cut.obs),
            {key: fresh[key].expand_as(leaf).clone() for key, leaf in cut.state.items()},
        )
        for cut in trace.cuts
    ]
    if _explains(subject, third, values, given):
        return (
            "V of a final observation is computed with a fresh state",
            "compute it under the state that followed the last step of the episode",
        )
    return (
        "returns or advantages are others",
        "compare the V that each step is followed by, gamma, gae_lambda, and where advantages end with their episode",
    )


def _obs_after(trace: Trace, cut: CutEpisodes) -> Observation:
    """Return the observations that came after the resets, leaves ``[K, ...]``."""
    step, env_ids = cut.step + 1, torch.from_numpy(cut.env_ids)
    leaves = {name: leaf[step] for name, leaf in trace.obs.items()} if step < len(trace.starts) else trace.last.obs
    return {name: leaf[env_ids.to(leaf.device)] for name, leaf in leaves.items()}


def _explains(subject: Subject, trace: Trace, values: Tensor, given: Tensor) -> bool:
    returns, _ = recompute_targets(subject, trace, values)
    return measure_difference(given.reshape(-1, 1), returns.reshape(-1, 1)) <= TARGET_BOUND


@torch.no_grad()
def check_staleness(learner: Learner, trace: Trace) -> Verdict:
    """Measure how far stored states are from what the weights after the update would have made; the agent has learned.

    Args:
        learner: has learned from the rollout.
        trace: of it, from before.
    """
    name = "stored_states_stay_fresh"
    if not trace.states:
        return Verdict(name, None, "the model has no memory", "", {})
    steps, length = len(trace.starts), learner.bptt or max(1, len(trace.starts) // 2)
    if length % trace.stride:
        length = trace.stride
    inputs, state = learner.encode(trace.obs), {key: leaf[0] for key, leaf in trace.states.items()}
    changes = []
    for begin in range(length, steps, length):
        chunk = slice(begin - length, begin)
        _, state = learner.unroll(take_steps(inputs, chunk), state, trace.opens[chunk])
        stored = {key: leaf[begin // trace.stride] for key, leaf in trace.states.items()}
        changes.append(_measure_change(state, stored))
    if not changes:
        return Verdict(name, None, "a rollout is one sequence, which begins where the last one ended", "", {})
    change = float(torch.tensor(changes).mean())
    numbers = {"relative_change": change, "at_every": length}
    finding = f"after one update the states that sequences begin from are {change:.0%} off those of the new weights"
    if not change < ABSURD:
        return Verdict(name, False, finding, "lower learning_rate: one update has made another memory", numbers)
    advice = "lower learning_rate or epochs, or set burn_in or refresh_states, which renew them"
    return Verdict(name, None, finding, advice if change > STALE else "", numbers)


def _measure_change(now: State, stored: State) -> float:
    """Return ||stored - now|| / ||now|| over all leaves of floats."""
    pairs = [(now[key].double(), leaf.double()) for key, leaf in stored.items() if leaf.is_floating_point()]
    change = sum(float((one - other).square().sum()) for one, other in pairs)
    size = sum(float(one.square().sum()) for one, _ in pairs)
    return (change / size) ** 0.5 if size else 0.0

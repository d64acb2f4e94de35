"""Live diagnostics of PPO: which steps of a rollout are measured, and what a stored state is compared with.

Everything is measured on a few environments, so it costs less than two minibatches. Nothing is drawn at random and no
weight changes: an update that is diagnosed learns what it would have learned anyway.
"""

import numpy as np
import torch
from torch import Tensor

from rl.networks import ActorCritic
from rl.networks.diagnostics import (
    Difference,
    MemoryInputs,
    count_history,
    measure_dead_features,
    measure_gates,
    measure_memory,
)
from rl.ppo.losses import ppo_loss
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.ppo.update import PPO
from rl.types import Observation, State, Targets

ROWS = 8
"""Environments that are looked at."""

STEPS = 32
"""Steps of them at which features and gates are."""


def spread(count: int, most: int) -> slice:
    """Return a slice that takes at most ``most`` of ``count`` things, evenly spread."""
    return slice(None, None, -(-count // most))


def diagnose_rollout(
    network: ActorCritic, buffer: RolloutBuffer, targets: Targets, ppo: PPO, progress: float
) -> dict[str, Tensor]:
    """Measure features, memory and gates on a rollout that ``network`` has played.

    Args:
        network: with the weights that played the rollout.
        buffer: the rollout.
        targets: of it.
        ppo: hyperparameters of the update that comes.
        progress: share of training done, for those that are annealed.

    Returns:
        See ``rl.networks.diagnostics``; of a core without a state the features alone. With a separate critic, it is the
        policy's memory that is looked at.
    """
    rows, every = spread(buffer.num_envs, ROWS), -(-buffer.size // STEPS)
    trunk, stride = network.actor, buffer.stride
    with torch.no_grad():
        features = trunk.features(_take(buffer.obs, slice(0, buffer.size, every), rows))  # [steps, rows, D]
    found = measure_dead_features(trunk.encoder, features)
    if not buffer.state:
        return found
    stored = slice(0, -(-buffer.size // stride), -(-every // stride))  # the steps at which there are states
    at_steps = slice(0, buffer.size, stored.step * stride)
    if at_steps.step != every:
        with torch.no_grad():
            features = trunk.features(_take(buffer.obs, at_steps, rows))
    state = {name: leaf[stored, rows].flatten(0, 1) for name, leaf in buffer.state.items()}
    starts = buffer.starts[at_steps, rows].flatten().to(features.device, non_blocking=True)
    found |= measure_gates(trunk.core, features.flatten(0, 1), state, starts)

    starts = buffer.starts[: buffer.size, rows].cpu()
    first, length = choose_sequences(starts, buffer.chunks(ppo.bptt))
    mb = buffer.read(targets, first, torch.arange(buffer.num_envs)[rows], length)
    with torch.no_grad():
        features = trunk.features(mb.obs)
        of_critic = None if network.critic is None else network.remember(mb.obs, mb.state, mb.starts)[2]
    now = ppo.coefficients(progress)

    def loss(outputs: Tensor) -> Tensor:
        params, values = network.decode(outputs, outputs if of_critic is None else of_critic, mb.obs)
        log_probs, entropies = network.head.evaluate(params, mb.actions)
        return ppo_loss(log_probs, values, entropies, mb, now)[0]

    longest = int(count_history(starts).max())
    return found | measure_memory(trunk.core, MemoryInputs(features, mb.state, mb.starts), loss, longest)


def choose_sequences(starts: Tensor, chunks: list[tuple[int, int]]) -> tuple[Tensor, int]:
    """Choose of each environment the sequence that reaches farthest back in an episode, the first one of several.

    Args:
        starts: ``[T, N]`` bool.
        chunks: from ``RolloutBuffer.chunks``.

    Returns:
        The first step of each sequence ``[N]``, and their length.
    """
    length = min(length for _, length in chunks)
    reach = torch.stack([count_history(starts[begin : begin + length]).amax(0) for begin, _ in chunks])  # [chunks, N]
    return torch.tensor([begin for begin, _ in chunks])[reach.argmax(0)], length


@torch.no_grad()
def measure_staleness(
    network: ActorCritic, buffer: RolloutBuffer, ppo: PPO, last: tuple[State, np.ndarray | Tensor] | None
) -> dict[str, Tensor]:
    """Measure how far the states that sequences begin with are from what the current weights make of the rollout.

    The states are those in front of every sequence but the first of each environment, after its burn-in if there is
    one, and the state after the rollout, with which the next rollout begins. They are compared with what comes of the
    rollout's first state and its observations, |stored - recomputed| / |recomputed|. States that a start clears do not
    count.

    Args:
        network: with its current weights.
        buffer: the rollout.
        ppo: hyperparameters of the update.
        last: the state after the rollout, leaves ``[B, ...]``, and where episodes start then, ``[B]`` bool; None if it
            is not known.

    Returns:
        ``state_staleness``; nothing if there is no state to compare.
    """
    found, rows = Difference(), spread(buffer.num_envs, ROWS)
    if not buffer.state:
        return {}
    for begin, right in buffer.recompute(network.unroll, ppo.bptt, rows, to_the_end=last is not None):
        if begin == buffer.size:
            assert last is not None  # or it would end before
            used, starts = {name: leaf[rows] for name, leaf in last[0].items()}, torch.as_tensor(last[1])[rows]
        else:
            warm = ppo.burn_in if ppo.burn_in <= begin else 0
            used, starts = buffer.state_before(begin - warm, rows), buffer.starts[begin, rows]
            if warm:
                steps = slice(begin - warm, begin)
                *_, used = network.unroll(_take(buffer.obs, steps, rows), used, buffer.starts[steps, rows])
        found.add(used, right, ~starts.to(buffer.values.device, non_blocking=True))
    return found.compute()


def name_remedy(ppo: PPO, num_steps: int) -> str:
    """Say what to do about stale states: the first state of a rollout is never renewed, so longer ones help."""
    renewed = ppo.burn_in or ppo.refresh_states or ppo.bptt is None or ppo.bptt >= num_steps
    return "raise num_steps" if renewed else "set agent.refresh_states=true or agent.burn_in"


def _take(obs: Observation, steps: slice, rows: slice) -> Observation:
    """Return ``[steps, rows, ...]`` of leaves ``[T, B, ...]``."""
    return {name: leaf[steps, rows] for name, leaf in obs.items()}

"""Live diagnostics of quantile networks: which sequences of a replay are measured.

Nothing is drawn at random, no priority and no weight changes: training goes on as it would have gone on anyway.
"""

import torch
from torch import Tensor

from rl.iqn.sequence_replay import SequenceReplay
from rl.networks import QuantileNetwork
from rl.networks.diagnostics import (
    Difference,
    MemoryInputs,
    count_history,
    measure_dead_features,
    measure_gates,
    measure_memory,
)
from rl.types import ReplayBatch

SEQUENCES = 8
"""So many are looked at."""


def diagnose_replay(network: QuantileNetwork, replay: SequenceReplay, burn_in: int, bptt: int) -> dict[str, Tensor]:
    """Measure features, memory, gates and stored states on sequences that are spread over the replay.

    The gradient that is measured is that of the values of the actions taken.

    Args:
        network: with its current weights.
        replay: has at least one whole sequence.
        burn_in: steps of warm-up in front of the trained ones.
        bptt: trained steps of a sequence.

    Returns:
        See ``rl.networks.diagnostics``; of a core without a state the features alone.
    """
    slots = replay.ready().nonzero().squeeze(1)
    slots = slots[:: -(-len(slots) // SEQUENCES)]
    mb, core = replay.read(slots, torch.ones(len(slots), device=replay.device)), network.trunk.core
    with torch.no_grad():
        features = network.trunk.features(mb.obs)  # [M, N, D]
    found = measure_dead_features(network.trunk.encoder, features)
    if not mb.state:
        return found
    found |= measure_gates(core, features[0], mb.state, mb.starts[0]) | _measure_staleness(network, replay, burn_in, mb)
    trained, state = slice(burn_in, burn_in + bptt), mb.state
    if burn_in:
        with torch.no_grad():
            _, state = core.unroll(features[:burn_in], state, mb.starts[:burn_in])
    obs = {name: leaf[trained] for name, leaf in mb.obs.items()}
    taken = network.head.codes(mb.actions[trained]).unsqueeze(-1)

    def loss(outputs: Tensor) -> Tensor:
        return network.action_values(outputs, obs).gather(-1, taken).sum()

    starts, final = mb.starts.cpu(), mb.final.cpu()
    given = MemoryInputs(features[trained], state, starts[trained])
    longest = int(count_history(starts).max())
    return found | measure_memory(core, given, loss, longest, counts=~final[trained])


@torch.no_grad()
def _measure_staleness(
    network: QuantileNetwork, replay: SequenceReplay, burn_in: int, mb: ReplayBatch
) -> dict[str, Tensor]:
    """Measure how far stored states, after their burn-in, are from what the current weights make of the steps before.

    Looked at are the states one stride after the first of each sequence, which are compared with what comes of the
    first. So this is a lower bound: the first ones are stale, too. Where a sequence does not hold as much as stride and
    burn-in it is not known.
    """
    begin = replay.stride
    ready = begin + burn_in
    if ready >= replay.length:
        return {}

    def unroll(steps: slice, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return network.unroll({name: leaf[steps] for name, leaf in mb.obs.items()}, state, mb.starts[steps])[1]

    right = unroll(slice(0, ready), mb.state)
    slots = (mb.slots + replay.num_envs) % len(replay.priorities)  # the ring ends and goes on at its beginning
    used = {name: leaf.index_select(0, slots) for name, leaf in replay.state.items()}
    if burn_in:
        used = unroll(slice(begin, ready), used)
    difference = Difference()
    difference.add(used, right, ~mb.starts[ready])
    return difference.compute()

"""Less memory for more time: activations that are computed again where the backward pass needs them."""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rl.networks import ActorCritic
from rl.types import Sequences


def replay_in_parts(network: ActorCritic, mb: Sequences, parts: int) -> tuple[Tensor, ...]:
    """Run a network over the sequences of a minibatch, so many parts of them one after the other.

    Of a part nothing is held but its inputs and outputs; its backward pass runs it again first. So at any time the
    activations of one part are there. Values and gradients are those of one piece; the time is that of one forward
    pass more.

    Source: Chen et al. (2016), "Training Deep Nets with Sublinear Memory Cost", cut by sequences and not by layers.

    Args:
        network: gives parameters and values.
        mb: N sequences of L steps.
        parts: of which none is empty if there are as many sequences.

    Returns:
        Distribution parameters ``[L, N, P]``, values ``[L, N]``, and the errors of a ``recall``, ``[L, N]``.
    """
    if parts == 1 or not torch.is_grad_enabled():
        return network.replay(mb.obs, mb.state, mb.starts)
    starts = mb.starts.chunk(parts, dim=1)
    obs = _chunk(mb.obs, parts, dim=1, count=len(starts))
    states = _chunk(mb.state, parts, dim=0, count=len(starts))
    done = [  # nothing is drawn at random in there: dropout has counters
        checkpoint(network.replay, *given, use_reentrant=False, preserve_rng_state=False)
        for given in zip(obs, states, starts, strict=True)
    ]
    return tuple(torch.cat(pieces, dim=1) for pieces in zip(*done, strict=True))


def _chunk(leaves: dict[str, Tensor], parts: int, dim: int, count: int) -> list[dict[str, Tensor]]:
    pieces = {name: leaf.chunk(parts, dim) for name, leaf in leaves.items()}
    return [{name: of_leaf[index] for name, of_leaf in pieces.items()} for index in range(count)]

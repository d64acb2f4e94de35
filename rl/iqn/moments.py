"""Running moments of observations, in a quantile network and in the network that values what follows."""

import torch

from rl.networks import QuantileNetwork
from rl.shards import Shards
from rl.types import Observation


def update_moments(network: QuantileNetwork, target: QuantileNetwork, obs: Observation, shards: Shards) -> None:
    """Take observations into the moments of both networks.

    Args:
        network: whose moments change.
        target: gets the same ones.
        obs: what was observed, leaves ``[n, ...]``.
        shards: of the run, whose observations are taken in together.

    Raises:
        FloatingPointError: an observation is not finite or too large; the moments are as they were.
    """
    before = [leaf.clone() for leaf in network.buffers()]
    try:
        if not all(shards.gather(all(bool(torch.isfinite(leaf).all()) for leaf in obs.values()))):
            raise FloatingPointError("an observation is not finite: nothing was learned from it")
        network.update_moments(obs)
    except FloatingPointError:
        for leaf, was in zip(network.buffers(), before, strict=True):
            leaf.copy_(was)  # of several observations the first ones may have been taken in
        raise
    for behind, ahead in zip(target.buffers(), network.buffers(), strict=True):
        behind.copy_(ahead)

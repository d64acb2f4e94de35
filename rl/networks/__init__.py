"""From observations to features, from features to distributions."""

from rl.networks.actor_critic import ActorCritic
from rl.networks.encoders import Encoder
from rl.networks.heads import make_head
from rl.networks.quantile_network import QuantileNetwork

__all__ = ["ActorCritic", "Encoder", "QuantileNetwork", "make_head"]

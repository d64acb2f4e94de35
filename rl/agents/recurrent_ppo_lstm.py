"""Recurrent PPO with an LSTM and one action head, for any observation."""

from collections.abc import Callable
from typing import Any

from gymnasium import spaces

from rl.agents.client_options import ONE_ENVIRONMENT, is_sizes, options_from_sizes
from rl.agents.interface import merged_signature
from rl.agents.recurrent_ppo import RecurrentPPO
from rl.cores import lstm
from rl.types import Core


class RecurrentPPOLSTM(RecurrentPPO):
    """:class:`RecurrentPPO` with an LSTM unless another ``core`` is given.

    Instead of Gymnasium spaces the first two arguments may be ``input_size`` (an int or a shape) and the number of
    actions, followed by the options of the older social-dilemma agents, see
    :func:`rl.agents.client_options.options_from_sizes`; ``normalise_returns`` is then on and ``gae_lambda`` 0.8, which
    suits the single environment of such a client.
    """

    def __init__(
        self,
        observation_space: spaces.Space | int | tuple[int, ...] | None = None,
        action_space: spaces.Space | int | None = None,
        layer_size: int = 64,
        epsilon: float = 0.0,
        epsilon_min: float = 0.0,
        device: str = "cpu",
        seed: int | None = None,
        *,
        core: Callable[..., Core] = lstm,
        **options: Any,
    ):
        if is_sizes(observation_space, options):
            observation_space, action_space, core, options = options_from_sizes(
                observation_space, action_space, core, ONE_ENVIRONMENT | options
            )
        super().__init__(
            observation_space, action_space, layer_size, epsilon, epsilon_min, device, seed, core=core, **options
        )


RecurrentPPOLSTM.__signature__ = merged_signature(RecurrentPPOLSTM, RecurrentPPO)

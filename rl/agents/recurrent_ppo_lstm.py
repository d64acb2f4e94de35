"""Recurrent PPO with an LSTM and one action head, for any observation."""

from collections.abc import Callable
from typing import Any, Unpack

from gymnasium import spaces

from rl.agents.client_options import (
    SINGLE_ENV_DEFAULTS,
    ClientOptions,
    as_spaces,
    translate_options,
    uses_client_options,
)
from rl.agents.recurrent_ppo import RecurrentPPO
from rl.cores import lstm
from rl.types import Core


class RecurrentPPOLSTM(RecurrentPPO):
    """Recurrent PPO with an LSTM unless another ``core`` is given.

    Instead of Gymnasium spaces the first two arguments may be ``input_size`` (an int or a shape) and the number of
    actions, followed by the options of the older social-dilemma agents, see
    ``rl.agents.client_options.translate_options``; ``normalise_returns`` is then on and ``gae_lambda`` 0.8, which
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
        **options: Unpack[ClientOptions],
    ):
        given: dict[str, Any] = {**options}
        if uses_client_options(observation_space, given):
            observation_space, action_space, core, given = translate_options(
                observation_space, action_space, core, SINGLE_ENV_DEFAULTS | given
            )
        observation_space, action_space = as_spaces(observation_space, action_space)
        super().__init__(
            observation_space, action_space, layer_size, epsilon, epsilon_min, device, seed, core=core, **given
        )

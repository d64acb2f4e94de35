"""The arguments of a recurrent PPO agent as keyword arguments."""

from collections.abc import Callable, Sequence

from rl.encoders.mlp import Activation
from rl.networks.acceleration import Precision
from rl.networks.encoders import ImageEncoding, ImageLayout
from rl.ppo.options import PPOOptions
from rl.types import Core, FeatureEncoder


class RecurrentPPOOptions(PPOOptions, total=False):
    """The keyword arguments of ``RecurrentPPO``, for agents that pass them on; a test holds both alike."""

    memory_span: float | None
    encoder: Callable[..., FeatureEncoder | None]
    num_envs: int | None
    num_steps: int
    total_steps: int | None
    state_stride: int | None
    separate_critic: bool
    critic_core: Callable[..., Core] | None
    head_layers: Sequence[int] | None
    value_head_layers: Sequence[int] | None
    head_activation: Activation
    normalise_observations: bool
    normalise_returns: bool
    previous_action_reward: bool
    noise_correlation: float
    image_layout: ImageLayout
    image_encoding: ImageEncoding
    ignore_leaves: Sequence[str]
    action_names: Sequence[str] | None
    compile_encoder: bool
    precision: Precision
    diagnostics_every: int | None

"""The hyperparameters of IQN as keyword arguments."""

from typing import TypedDict

from rl.schedules import Schedule


class IQNOptions(TypedDict, total=False):
    """The keyword arguments of ``rl.iqn.IQN``, for agents that pass them on; a test holds both alike."""

    batch_size: int
    bptt: int
    burn_in: int
    capacity: int
    learning_starts: int
    replay_ratio: float
    gamma: float
    n_step: int
    num_quantiles: int
    num_target_quantiles: int
    kappa: float
    reward_scale: float
    value_rescaling: bool
    target_interval: int
    target_share: float
    priority_exponent: float
    priority_correction: float
    priority_peak: float
    learning_rate: float
    learning_rate_schedule: Schedule
    learning_rate_final: float | None
    learning_rate_warmup: float
    max_grad_norm: float
    graphs: bool

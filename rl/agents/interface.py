"""What an IQN-style client touches beside the agent's own methods."""

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from rl.checks import within

if TYPE_CHECKING:
    from rl.agents.recurrent_ppo import RecurrentPPO


class StepMemory:
    """The ``memory`` of an agent for clients that store transitions there instead of calling ``add_memory_ppo``.

    It holds no data of its own: the rollout buffer or the replay does. A recurrent agent needs no stack of frames, so
    ``n_frames`` is 1 and :meth:`current_state` has no rows to put in front of the current observation.
    """

    n_frames = 1
    extra_data = frozenset()

    def __init__(self, agent: "RecurrentPPO"):
        self._agent = agent

    def __len__(self) -> int:
        """Transitions that there are to train on."""
        return self._agent.rollout_size

    def current_state(self) -> np.ndarray:
        """The ``n_frames - 1`` earlier frames: ``[0, F]``."""
        return np.zeros((0, sum(int(np.prod(space.shape)) for space in self._agent.leaves.values())), dtype=np.float32)

    def add(self, obs: object, action: object, reward: float, done: bool, **extra: object) -> None:
        """The outcome of the last ``take_action``; observation and action are known from there."""
        self._agent.add_memory_ppo(reward, done)

    def add_empty(self) -> None:
        """Frame stacks are padded by this; here there is nothing to pad."""

    def clear(self) -> None:
        """Called between epochs by clients; the rollout is kept until it is trained on."""


def epsilon_decay(agent: "RecurrentPPO", rate: float) -> None:
    """``epsilon`` shrinks by the share ``rate``, not below ``epsilon_min``."""
    agent.epsilon = max(agent.epsilon * (1.0 - rate), agent.epsilon_min)


def set_epsilon(agent: "RecurrentPPO", epsilon: float) -> None:
    """Sets ``epsilon``."""
    within(0.0, 1.0, epsilon=epsilon)
    agent.epsilon = epsilon


def rows_of(name: str, value: Any, num_envs: int, dtype: type) -> np.ndarray:
    """``value`` as one number for each environment, ``[B]``; a scalar goes to all of them.

    Raises:
        ValueError: there are more or fewer numbers than environments.
    """
    array = np.asarray(value, dtype=dtype)
    if array.shape == (num_envs,):
        return array
    if array.ndim and array.size != num_envs:
        raise ValueError(f"{name} has shape {array.shape}, but ({num_envs},) is expected")
    return np.broadcast_to(array.reshape(-1), (num_envs,)).copy()


def outcome_of_step(
    num_envs: int, reward: Any, done: Any, truncated: Any, ignored: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What a client tells of a step as rewards, terminated, truncated, ignored, ``[B]`` each; termination wins.

    Raises:
        ValueError: a reward that is not finite, or arrays of a wrong shape.
    """
    rewards = rows_of("reward", reward, num_envs, np.float32)
    terminated = rows_of("done", done, num_envs, bool)
    truncated = rows_of("truncated", truncated, num_envs, bool) & ~terminated
    ignored = rows_of("ignored", ignored, num_envs, bool)
    if not np.isfinite(rewards).all():
        raise ValueError(f"reward={reward} is not finite: environment {int(np.argmin(np.isfinite(rewards)))} sent it")
    return rewards, terminated, truncated, ignored


def action_code(action: np.ndarray, space: spaces.Space) -> Any:
    """One action as IQN-style clients take it: an int for discrete spaces, the array itself for others.

    The branches of a MultiDiscrete space are the digits of a mixed-radix number, the first one weighing most.
    """
    if isinstance(space, spaces.Discrete):
        return int(action)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.ravel_multi_index(action - space.start, space.nvec))
    return action


def merged_signature(function: object, forwarded: object) -> inspect.Signature:
    """The signature of ``function`` with ``**kwargs`` replaced by the parameters that it forwards them to."""
    own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = {p.name for p in own}
    more = [p for p in inspect.signature(forwarded).parameters.values() if p.name not in names]
    positional = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    keyword = [p for p in own if p.kind is p.KEYWORD_ONLY] + [p.replace(kind=p.KEYWORD_ONLY) for p in more]
    return inspect.Signature(positional + keyword)

"""The words of an IQN-style client, as a facade over ``act``, ``observe``, ``learn`` and ``reset``.

Environment loops that were written for an IQN drive our agents unchanged through these; our own code does without.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces

from rl.agents.loading import agent_from_file
from rl.checkpoint import load_checkpoint, naming_file, save_checkpoint
from rl.checks import within


class ClientLoop(ABC):
    """The calls of a client's loop, under their older names, and its checkpoints.

    Attributes:
        device: where the agent lies.
    """

    device: torch.device

    @abstractmethod
    def act(self, observation: Any) -> Any:
        """Choose actions, see ``rl.types.Agent.act``."""

    @abstractmethod
    def observe(
        self, rewards: Any, terminated: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """Take in what came of them, see ``rl.types.Agent.observe``."""

    @abstractmethod
    def learn(self, next_observation: Any = None) -> float:
        """Learn from what was collected, see ``rl.types.Agent.learn``."""

    @abstractmethod
    def reset(self) -> None:
        """Close unfinished episodes, see ``rl.types.Agent.reset``."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Collect what a checkpoint holds, see ``rl.types.Agent.state_dict``."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back, see ``rl.types.Agent.load_state_dict``."""

    def save(self, path: str | Path) -> None:
        """Write a checkpoint; the folder is made if it is missing."""
        save_checkpoint({"agent": self.state_dict()}, path)

    def load(self, path: str | Path) -> None:
        """Read what ``save`` or the trainer wrote, onto the agent's device.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, foreign, or of an agent of another shape.
        """
        content = load_checkpoint(path, map_location=self.device)
        with naming_file(path, content):
            self.load_state_dict(content["agent"])

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str = "cpu",
        num_envs: int | None = None,
        trust: Iterable[str] = (),
        **changes: Any,
    ) -> Self:
        """Construct and load an agent of this class that plays, see ``rl.load_agent``.

        Raises:
            ValueError: as ``rl.load_agent``, and for an agent of another class.
        """
        agent: Self = agent_from_file(path, device, num_envs, trust, changes, cls)
        return agent

    def take_action(self, state: Any) -> Any:
        """Act on an observation, which clients call a state."""
        return self.act(state)

    def add_memory_ppo(
        self, reward: Any, done: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """Observe what came of the last action; ``done`` means that the episode terminated."""
        self.observe(reward, done, truncated, final_observation, ignored)

    def add_memory(
        self, reward: Any, done: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """Observe what came of the last action, as ``add_memory_ppo``."""
        self.observe(reward, done, truncated, final_observation, ignored)

    def train_step(self, next_observation: Any = None) -> np.ndarray:
        """Learn; return the mean loss as a 0-d array, 0.0 if there was nothing to train on."""
        return np.array(self.learn(next_observation))

    def start_epoch_action(self, **_: Any) -> None:
        """Begin an epoch: an unfinished one is closed as a truncation, nothing stored is lost."""
        self.reset()

    def end_epoch_action(self, **_: Any) -> None:
        """End an epoch, as ``start_epoch_action``."""
        self.reset()


class Client(ClientLoop):
    """All that an IQN-style client touches of a single agent.

    Attributes:
        epsilon: read and decayed by the client; a PPO policy explores by sampling and ignores it.
        epsilon_min: floor of ``epsilon_decay``.
        batched: False for the form with one environment, where actions are codes.
        action_space: of one environment.
        leaves: of the observation space, by name.
        memory: see ``StepMemory``.
    """

    epsilon: float
    epsilon_min: float
    batched: bool
    action_space: spaces.Space
    leaves: dict[str, spaces.Space]

    def __init__(self) -> None:
        self.memory = StepMemory(self)

    @property
    @abstractmethod
    def rollout_size(self) -> int:
        """Transitions that there are to train on."""

    @property
    @abstractmethod
    def pending_action(self) -> np.ndarray | None:
        """All branches ``[B, branches]`` of the actions that wait for their outcome; None if none do."""

    def take_action(self, state: Any) -> Any:
        """Act on an observation, which clients call a state; a single action comes as ``action_code``."""
        action = self.act(state)
        return action if self.batched else action_code(action, self.action_space)

    @property
    def rollout_memory(self) -> dict[str, range]:
        """For clients that ask ``len(rollout_memory["states"])`` before they train."""
        return {"states": range(self.rollout_size)}

    def get_dual_action(self) -> tuple[int, ...] | None:
        """Return all branches of the action that waits for its outcome, None if none does (single form)."""
        return None if self.pending_action is None else tuple(self.pending_action[0].tolist())

    def epsilon_decay(self, rate: float) -> None:
        """Shrink ``epsilon`` by the share ``rate``, not below ``epsilon_min``."""
        self.epsilon = max(self.epsilon * (1.0 - rate), self.epsilon_min)

    def set_epsilon(self, epsilon: float) -> None:
        """Set ``epsilon``.

        Raises:
            ValueError: it is not in 0 ... 1.
        """
        within(0.0, 1.0, epsilon=epsilon)
        self.epsilon = epsilon


class StepMemory:
    """The ``memory`` of an agent for clients that store transitions there instead of calling ``add_memory_ppo``.

    It holds no data of its own: the rollout buffer or the replay does. A recurrent agent needs no stack of frames, so
    ``n_frames`` is 1 and ``current_state`` has no frames to put in front of the current observation.
    """

    n_frames = 1
    extra_data: frozenset[str] = frozenset()

    def __init__(self, agent: Client):
        self._agent = agent

    def __len__(self) -> int:
        """Count the transitions that there are to train on."""
        return self._agent.rollout_size

    def current_state(self) -> np.ndarray:
        """Return the ``n_frames - 1`` earlier frames: ``[0, F]``."""
        sizes = [int(np.prod(space.shape or ())) for space in self._agent.leaves.values()]
        return np.zeros((0, sum(sizes)), dtype=np.float32)

    def add(self, obs: object, action: object, reward: float, done: bool, **extra: object) -> None:
        """Store what came of the last action; observation and action are known from there."""
        self._agent.observe(reward, done)

    def add_empty(self) -> None:
        """Do nothing: there are no frames to pad."""

    def clear(self) -> None:
        """Do nothing: clients call it between epochs, but a rollout is kept until it is trained on."""


def action_code(action: Any, space: spaces.Space) -> Any:
    """Encode one action as IQN-style clients take it: an int for discrete spaces, the array itself for others.

    The branches of a MultiDiscrete space are the digits of a mixed-radix number, the first one weighing most.
    """
    if isinstance(space, spaces.Discrete):
        return int(action)
    if isinstance(space, spaces.MultiDiscrete):
        return int(np.ravel_multi_index(tuple(action - space.start), tuple(space.nvec)))
    return action

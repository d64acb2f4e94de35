"""Steps any vector environment, returns one uniform StepResult whatever its autoreset mode, and counts episodes."""

from collections import deque
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from torch import Tensor

from rl.shards import ALONE, Shards
from rl.spaces import leaf_arrays, stack_rows
from rl.training.tensors import HostView, find_tensor_envs, speaks_tensors


@dataclass
class StepResult:
    """What one step of B environments brought.

    Attributes:
        obs: the observation to act on next, ``[B, ...]``; a new episode's first one where one ended (SAME_STEP).
        rewards: float32 ``[B]``.
        terminated: bool ``[B]``.
        truncated: bool ``[B]``.
        final_obs: the observation after the last action, ``[B, ...]``, read where ``truncated``; None if nowhere.
        ignored: bool ``[B]``: no transition, the environment only used the step to reset itself (NEXT_STEP), or
            no agent is in the row (``info["ignored"]`` of an environment that declares it).
        unchanged: float32 ``[B]``, the rewards as the environment paid them, where the agent is given others
            (``info["unchanged_rewards"]`` of one that declares it); None where they are ``rewards``.
    """

    obs: Any
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_obs: Any
    ignored: np.ndarray
    unchanged: np.ndarray | None = None

    @property
    def paid(self) -> np.ndarray:
        """What returns are counted in, float32 ``[B]``."""
        return self.rewards if self.unchanged is None else self.unchanged

    @property
    def ended(self) -> np.ndarray:
        """Where the next observation opens an episode, bool ``[B]``."""
        return self.terminated | self.truncated | self.ignored


class CopyObservation(gymnasium.ObservationWrapper):
    """A wrapper whose observations are new arrays, for the environment may use one array for ever.

    In SAME_STEP mode the reset would then overwrite what closed the episode, and V of a cut one would be that of the
    next episode's beginning. Copies in worker processes cannot be wrapped from here: an environment for them must
    return new arrays itself.
    """

    copies_observations = True

    def observation(self, observation: Any) -> Any:
        """Return a copy."""
        return deepcopy(observation)


class VectorEnvAdapter:
    """A vector environment in SAME_STEP or NEXT_STEP autoreset mode, with one meaning of a step.

    In NEXT_STEP mode the step after an end ignores the action, pays nothing and returns the first observation of the
    next episode. It is marked as ``ignored``; agents leave it out of their rollouts. In either mode an environment that
    declares ``metadata["ignores_steps"] = True`` may mark steps itself, by a bool array ``[B]`` under ``ignored`` in
    its info: a row whose agent is dead while others of its world still play, say. What follows an ignored step opens an
    episode or is ignored too. In any other environment such a key means nothing. Likewise one that declares
    ``metadata["changes_rewards"] = True`` tells under ``unchanged_rewards`` what returns are to be counted in.

    Args:
        envs: the environment.
        final_obs_of_terminated: give ``final_obs`` where ``terminated``, too.
        tensors: leave an environment of tensors as it is, for an agent that plays whole rollouts in it; ``step`` is not
            for these. Otherwise its tensors become arrays.

    Attributes:
        tensors: the environment of tensors that an agent may play whole rollouts in; None if there is none.

    Raises:
        ValueError: the environment has another autoreset mode.
    """

    def __init__(self, envs: VectorEnv, final_obs_of_terminated: bool = False, tensors: bool = False):
        self.tensors = find_tensor_envs(envs) if tensors else None
        if speaks_tensors(envs) and self.tensors is None:
            envs = HostView(envs)
        mode = read_autoreset_mode(envs)
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise ValueError(f"autoreset mode {mode} of {envs} is not supported: use SAME_STEP or NEXT_STEP")
        copies = envs.unwrapped
        if mode == AutoresetMode.SAME_STEP and isinstance(copies, SyncVectorEnv):
            copies.envs = [env if hasattr(env, "copies_observations") else CopyObservation(env) for env in copies.envs]
        self.envs = envs
        self.ignores_steps = bool(envs.metadata.get("ignores_steps", False))
        self.changes_rewards = bool(envs.metadata.get("changes_rewards", False))
        self.resets_on_next_step = mode == AutoresetMode.NEXT_STEP
        self.final_obs_of_terminated = final_obs_of_terminated
        self.resetting = np.zeros(envs.num_envs, dtype=bool)  # rows that use the next step to reset themselves

    def reset(self, seed: int | None) -> Any:
        """Begin B episodes; return their first observations."""
        self.resetting = np.zeros(self.envs.num_envs, dtype=bool)
        obs = self.envs.reset(seed=seed)[0]
        return obs if self.tensors is None else leaf_arrays(self.envs.single_observation_space, obs)

    def step(self, actions: np.ndarray) -> StepResult:
        """Take ``actions [B, ...]``; return what came of them.

        Raises:
            ValueError: an episode was truncated, and the environment does not tell what closed it.
        """
        obs, rewards, *flags, info = self.envs.step(actions)
        terminated, truncated = (np.asarray(flag, dtype=bool) for flag in flags)  # 0 and 1 would pick rows by number
        ignored = self.resetting | info["ignored"] if self.ignores_steps and "ignored" in info else self.resetting
        final_obs = None
        if truncated.any() or (self.final_obs_of_terminated and terminated.any()):
            final_obs = obs if self.resets_on_next_step else info.get("final_obs")
            if final_obs is None:
                raise ValueError(
                    f"{self.envs} ended an episode, but its info has no 'final_obs', the observation that closed it"
                )
            if isinstance(final_obs, np.ndarray) and final_obs.dtype == object:  # as Gymnasium's own vectors give it
                final_obs = stack_rows(list(final_obs), self.envs.single_observation_space)
        if self.resets_on_next_step:
            self.resetting = terminated | truncated
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which the agent refuses in a sentence
            paid = np.asarray(rewards, dtype=np.float32)
            unchanged = np.asarray(info["unchanged_rewards"], dtype=np.float32) if self.changes_rewards else None
        return StepResult(obs, paid, terminated, truncated, final_obs, ignored, unchanged)

    def drain_statistics(self) -> dict[str, float]:
        """Return what an environment with ``drain_statistics`` counted since the last call, by TensorBoard tag."""
        drain = getattr(self.envs.unwrapped, "drain_statistics", None)
        return drain() if drain is not None else {}

    def state_dict(self) -> Any:
        """Return the state of an environment that has one; None of any other."""
        keeper = find_state_keeper(self.envs)
        return None if keeper is None else keeper.state_dict()

    def load_state_dict(self, state: Any, resetting: np.ndarray) -> None:
        """Put an environment that has been reset back where it was, see ``state_dict`` and ``resetting``."""
        find_state_keeper(self.envs).load_state_dict(state)
        self.resetting = resetting


def find_state_keeper(envs: VectorEnv) -> Any:
    """Return the environment, or its outermost wrapper, whose ``state_dict`` holds all of it; None if it has none."""
    if not hasattr(envs.unwrapped, "state_dict"):
        return None
    while isinstance(envs, VectorWrapper) and not hasattr(envs, "state_dict"):
        envs = envs.env
    return envs


def read_autoreset_mode(envs: VectorEnv) -> Any:
    """Return the autoreset mode of a vector environment.

    Its metadata tells it. But before Gymnasium 1.4 all vectors of one class of environments shared theirs, which told
    the mode of the vector that was made last.
    """
    base = envs.unwrapped
    if isinstance(base, (SyncVectorEnv, AsyncVectorEnv)) and envs.metadata is base.metadata:
        return base.autoreset_mode
    return envs.metadata.get("autoreset_mode")


class Episodes:
    """Statistics of training episodes: returns and lengths, for B environments at once.

    Args:
        num_envs: B.
        window: how many of the last returns ``recent`` holds.
    """

    def __init__(self, num_envs: int, window: int = 100):
        self.returns, self.lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
        self.recent: deque[float] = deque(maxlen=window)
        self.new: list[tuple[float, int]] = []  # return and length of those that ended since the last drain
        self.pending: list[tuple[Tensor, Tensor]] = []  # rollouts that lie on a device still

    def add(self, step: StepResult) -> None:
        """Count one step of all environments; an ignored one has no length."""
        self._add(step.paid, step.terminated | step.truncated, ~step.ignored)

    def add_rollout(self, rewards: Tensor, ended: Tensor) -> None:
        """Count a rollout, each ``[T, B]``, once it is asked for; until then nothing waits for the device."""
        self.pending.append((rewards.clone(), ended.clone()))

    def count(self) -> None:
        """Count the rollouts that are not counted yet."""
        for rewards, ended in self.pending:
            for paid, over in zip(rewards.cpu().numpy(), ended.cpu().numpy(), strict=True):
                self._add(paid, over, np.ones_like(over))
        self.pending = []

    def _add(self, rewards: np.ndarray, ended: np.ndarray, counted: np.ndarray) -> None:
        self.returns += rewards
        self.lengths += counted
        if ended.any():
            returns = self.returns[ended].tolist()
            self.new += zip(returns, self.lengths[ended].tolist(), strict=True)
            self.recent.extend(returns)
            self.returns[ended], self.lengths[ended] = 0.0, 0

    def drop_open(self) -> None:
        """Forget the episodes that have not ended, which will not go on."""
        self.count()
        self.returns[:], self.lengths[:] = 0.0, 0

    def drain(self, shards: Shards = ALONE) -> dict[str, float]:
        """Return means over the episodes of all shards that ended since the last call, by TensorBoard tag.

        It is empty if none did.
        """
        self.count()
        told = shards.gather(self.new)
        self.recent.extend(value for index, part in enumerate(told) if index != shards.index for value, _ in part)
        self.new = []
        if not any(told):
            return {}
        returns, lengths = zip(*(episode for part in told for episode in part), strict=True)
        return {"charts/episodic_return": float(np.mean(returns)), "charts/episodic_length": float(np.mean(lengths))}

    def state_dict(self) -> dict[str, Any]:
        """Collect all that counting needs to go on, as plain Python values."""
        self.count()
        return {"returns": self.returns.tolist(), "lengths": self.lengths.tolist(), "recent": list(self.recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.returns, self.lengths = np.array(state["returns"]), np.array(state["lengths"], dtype=np.int64)
        self.recent = deque(state["recent"], maxlen=self.recent.maxlen)


Stepper = VectorEnvAdapter  # its earlier name, for scripts that were written for it

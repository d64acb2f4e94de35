"""Vector environments whose simulator speaks torch already, those of ManiSkill and Isaac Lab say, with one meaning."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

if TYPE_CHECKING:
    import torch

FINAL_KEYS = ("final_obs", "final_observation")  # of Gymnasium, and of ManiSkill as of Gymnasium before 1.0

log = logging.getLogger(__name__)


class TensorVectorEnv(VectorEnv):
    """A vector environment that resets ended rows within a step and returns tensors, in the form of this project.

    Such environments differ in what they tell of the observation that closed an episode, after which it was reset:

    - ``ManiSkillVectorEnv`` has it for all rows under ``info["final_observation"]``, in steps in which a row ends:
      ``final_key="final_observation"``. In all other steps the observations themselves are the final ones.
    - Isaac Lab's environments are reset before they are observed, so nobody ever sees it: ``final_key=None``. The info
      has no ``final_obs`` then. An agent can but take V of the last observation acted on in place of V of what followed
      a truncation, a step too early; a line in the log says so, once. The next episode's first observation, which
      stands in its place, is never taken for it.

    Rewards become float32 and flags bool, in new tensors, for Isaac Lab writes the flags of the next step over those of
    the last. Observations are handed on as they are and need to be valid until the next step only. The host asks one
    question alone, whether an episode ended, in a step in which an environment with a ``final_key`` left that key out.
    ManiSkill has just asked the same.

    The state of such a simulator cannot be stored, so a resumed run begins new episodes.

    Args:
        env: the environment: ``reset(seed=, options=)``, ``step(actions)``, ``num_envs``, ``single_observation_space``
            and ``single_action_space`` as a vector environment of Gymnasium has them. It need not be of that class.
        final_key: the key of ``info`` that holds final observations, ``[B, ...]`` in each leaf; None if there is none.
        group: the leaf of a dict of observations that is the observation, if there is one of that name. Isaac Lab's
            other groups are for a critic in training: they hold what a policy is not to know. None keeps all.
        device: on which tensors are handed out; None for that of the environment.

    Raises:
        ValueError: the environment resets in another mode or not at all.

    Sources: ``mani_skill/vector/wrappers/gymnasium.py`` of ManiSkill 3.0.1; ``direct_rl_env.py`` and
    ``manager_based_rl_env.py`` of Isaac Lab 2.3.2.
    """

    gives_tensors = True

    def __init__(self, env: Any, final_key: str | None = None, group: str | None = "policy", device: str | None = None):
        import torch

        self.env, self.final_key, self.num_envs = env, final_key, int(env.num_envs)
        self.name = type(getattr(env, "unwrapped", env)).__name__
        mode = (getattr(env, "metadata", None) or {}).get("autoreset_mode", AutoresetMode.SAME_STEP)
        if AutoresetMode(mode) != AutoresetMode.SAME_STEP or not getattr(env, "auto_reset", True):
            raise ValueError(f"{self.name}: it must reset ended rows within the step (SAME_STEP)")
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.device = torch.device(env.device if device is None else device)
        space = env.single_observation_space
        self.group = group if isinstance(space, spaces.Dict) and group in space.spaces else None
        self.single_observation_space = space if self.group is None else space[self.group]
        self.single_action_space = env.single_action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        if final_key is None:
            _warn_of_no_final_obs(self.name)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin B episodes.

        Returns:
            The first observations ``[B, ...]`` and an empty info.
        """
        observations, _ = self.env.reset(seed=seed, options=options)
        return self._show(observations), {}

    def step(self, actions: Any) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Act in every row.

        Args:
            actions: a tensor ``[B, ...]`` of the batched action space, or an array.

        Returns:
            Observations ``[B, ...]``, rewards float32 ``[B]``, terminated and truncated, bool ``[B]``, and an info that
            has ``final_obs [B, ...]`` if the environment has a ``final_key``; all are tensors on ``device``.

        Raises:
            ValueError: rewards or flags have another shape than ``[B]``, or final observations are there although
                ``final_key`` is None, or missing in a step in which an episode ended.
        """
        import torch

        observations, rewards, terminated, truncated, info = self.env.step(
            torch.as_tensor(actions, device=self.env.device)
        )
        paid = self._copy(rewards, torch.float32, "rewards")
        ended = self._copy(terminated, torch.bool, "terminated"), self._copy(truncated, torch.bool, "truncated")
        shown = self._show(observations)
        if self.final_key is None:
            if there := [key for key in FINAL_KEYS if key in info]:
                raise ValueError(f"{self.name} gives final observations: set final_key={there[0]!r}")
            return shown, paid, *ended, {}
        if self.final_key in info:
            return shown, paid, *ended, {"final_obs": self._show(info[self.final_key])}
        if (ended[0] | ended[1]).any():
            raise ValueError(f"{self.name} ended an episode without info[{self.final_key!r}]: set final_key=None")
        return shown, paid, *ended, {"final_obs": shown}

    def close_extras(self, **kwargs: Any) -> None:
        """End the environment."""
        self.env.close()

    def _show(self, observations: Any) -> Any:
        """Return the chosen group of observations on ``device``."""
        chosen = observations if self.group is None else observations[self.group]
        return _map(lambda leaf: leaf.to(self.device), chosen)

    def _copy(self, values: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
        """Return one value for each row as a new tensor.

        Raises:
            ValueError: there is another number of them.
        """
        if tuple(values.shape) != (self.num_envs,):
            raise ValueError(f"{self.name}, {name}.shape={tuple(values.shape)}: it must be ({self.num_envs},)")
        return values.detach().to(self.device, dtype, copy=True)


@cache
def _warn_of_no_final_obs(name: str) -> None:
    """Say once of each kind of environment what is not known of truncated episodes."""
    log.warning(
        "%s does not show what closed an episode: where one is truncated, its future is worth V of the last "
        "observation acted on, a step too early",
        name,
    )


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    """Return a tensor, or a dict of such at any depth, with a function applied to every tensor."""
    if isinstance(value, dict):
        return {key: _map(function, part) for key, part in value.items()}
    return function(value)

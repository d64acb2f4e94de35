"""Environments that give tensors, for whoever wants arrays."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv, VectorWrapper


def speaks_tensors(envs: VectorEnv) -> bool:
    """Tell whether a vector environment says, by ``gives_tensors = True``, that it gives and takes tensors."""
    return bool(getattr(envs.unwrapped, "gives_tensors", False))


def find_tensor_envs(envs: VectorEnv) -> Any:
    """Return the environment of tensors inside wrappers that only check it; None if another wrapper changes it."""
    inner: Any = envs
    while isinstance(inner, VectorWrapper):
        if not getattr(inner, "only_checks", False):
            return None
        inner = inner.env
    return inner if speaks_tensors(envs) else None


class HostView(VectorWrapper):
    """Arrays in place of the tensors of an environment; each step waits for its device."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin episodes."""
        obs, info = self.env.reset(seed=seed, options=options)
        return to_host(obs), to_host(info)

    def step(self, actions: np.ndarray) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take ``actions [B, ...]``."""
        device: Any = self.env.unwrapped
        continuous = isinstance(self.env.single_action_space, spaces.Box)
        taken = torch.as_tensor(np.asarray(actions, dtype=np.float32 if continuous else np.int64))
        obs, rewards, terminated, truncated, info = self.env.step(taken.to(device.device))
        return to_host(obs), to_host(rewards), to_host(terminated), to_host(truncated), to_host(info)


def to_host(value: Any) -> Any:
    """Turn tensors inside dicts and tuples into arrays of their own; anything else stays as it is."""
    if isinstance(value, torch.Tensor):
        return value.cpu().numpy().copy()
    if isinstance(value, dict):
        return {key: to_host(part) for key, part in value.items()}
    return tuple(map(to_host, value)) if isinstance(value, tuple) else value

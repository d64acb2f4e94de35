"""Environments of Brax and of MuJoCo Playground: JAX steps all copies at once, and torch reads what it computed."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.checks import one_of, positive
from envs.jitted import choose_kept, compile_functions, is_key, make_space, name_leaves, to_numbers

if TYPE_CHECKING:
    import torch

Hidden = Sequence[int] | Mapping[str, Sequence[int]] | Literal["velocities"]

VELOCITIES: dict[tuple[str, str], Sequence[int]] = {
    ("brax", "ant"): range(13, 27),
    ("brax", "fast"): (1,),
    ("brax", "halfcheetah"): range(8, 17),
    ("brax", "hopper"): range(5, 11),
    ("brax", "inverted_double_pendulum"): (5, 6, 7),
    ("brax", "inverted_pendulum"): (2, 3),
    ("brax", "pusher"): range(7, 14),
    ("brax", "reacher"): (6, 7),
    ("brax", "swimmer"): range(3, 8),
    ("brax", "walker2d"): range(8, 17),
    ("playground", "CartpoleBalance"): (3, 4),
    ("playground", "CartpoleBalanceSparse"): (3, 4),
    ("playground", "CartpoleSwingup"): (3, 4),
    ("playground", "CartpoleSwingupSparse"): (3, 4),
    ("playground", "PendulumSwingup"): (2,),
}
"""Components of the observations that are velocities, by suite and id, as long as the arguments are the defaults."""


class BraxEnv(VectorEnv):
    """Copies of an environment of Brax or MuJoCo Playground, computed on the agent's device, as tensors of torch.

    Observations, rewards and flags are the memory that JAX wrote, so they are to be read only. They are new in every
    step and stay as they are. Nothing is read to the host, but on a CPU a step waits for its results.

    An ended row restarts within the step, from a start state drawn anew. Brax's ``AutoResetWrapper`` and, unless told
    otherwise, Playground's wrapper put a row back to one start state that it had first, with the same goal every time.
    An agent with a memory would not be tested by it, and no return would tell, so neither is used here. Start states
    are drawn for all rows in every step, for to ask whether any is needed would be a question to the host.

    The limit of ``max_episode_steps`` truncates; an episode that ends by itself in that very step is terminated alone.
    ``info["final_obs"]`` always holds what all rows showed after the action, before any restart.

    JAX has a pool of threads of its own, one for each core, whatever torch is set to; ``taskset`` limits both. On a
    GPU it takes memory as needed, not three quarters of it at once, unless the variable
    ``XLA_PYTHON_CLIENT_PREALLOCATE`` says so.

    Args:
        id: of the environment, "inverted_pendulum" or "PendulumSwingup" say.
        num_envs: the number of copies, B.
        suite: "brax", or "playground" for MuJoCo Playground.
        max_episode_steps: the steps after which an episode is truncated.
        hide: components that are left out of the observation: their indices, or for an observation of several leaves
            those of each leaf by its name. "velocities" stands for those in ``VELOCITIES``.
        device: of the tensors, as torch names it; "cuda" needs a JAX that was built for it.
        **kwargs: the environment's own arguments, ``backend="spring"`` say; for Playground, keys of its configuration.
            Its physics are those of JAX (``impl="jax"``) unless told otherwise.

    Raises:
        ModuleNotFoundError: the package is not installed; the sentence names the extra.
        ValueError: an unknown id or device, or components to hide that there are not.

    Source: Freeman et al. 2021, "Brax", https://github.com/google/brax; Zakka et al. 2025, "MuJoCo Playground",
    https://github.com/google-deepmind/mujoco_playground.
    """

    gives_tensors = True

    def __init__(
        self,
        id: str = "inverted_pendulum",
        num_envs: int = 1,
        suite: Literal["brax", "playground"] = "brax",
        max_episode_steps: int = 1000,
        hide: Hidden = (),
        device: str = "cpu",
        **kwargs: Any,
    ):
        positive(num_envs=num_envs, max_episode_steps=max_episode_steps)
        one_of(("brax", "playground"), suite=suite)
        load = find_environment(id, suite)
        import jax
        import torch

        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.num_envs, self.id, self.suite = num_envs, id, suite
        self.device = torch.device(device)
        self._place = find_jax_device(self.device)
        with jax.default_device(self._place):
            env = load(**kwargs)
            shown = jax.eval_shape(env.reset, jax.random.key(0)).obs
        if hide == "velocities":
            if (suite, id) not in VELOCITIES:
                known = ", ".join(name for where, name in VELOCITIES if where == suite)
                raise ValueError(f"hide='velocities' is known of {known}: for {id} it must be a list of indices")
            hide = VELOCITIES[suite, id]
        kept = choose_kept(shown, hide)
        self._begin, self._advance = compile_functions(env, num_envs, max_episode_steps, kept)
        self._carry: Any = None  # the key, the states of all rows, the steps of their episodes
        self.single_observation_space = make_space(shown, kept)
        self.single_action_space = spaces.Box(-1.0, 1.0, (env.action_size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin B episodes; without a seed they differ from those before.

        Returns:
            The first observations ``[B, ...]`` and an empty info.
        """
        import jax
        import torch

        super().reset(seed=seed)
        key = jax.device_put(jax.random.key(int(self.np_random.integers(2**31))), self._place)
        self._carry, obs = self._begin(key)
        return jax.tree.map(torch.from_dlpack, obs), {}

    def step(self, actions: Any) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Act in every row, and restart the rows that end.

        Args:
            actions: float32 ``[B, A]`` within -1 to 1, best on ``device``.

        Returns:
            Observations ``[B, ...]``, rewards float32 ``[B]``, terminated and truncated, bool ``[B]``, and the info
            with ``final_obs [B, ...]``; all are tensors on ``device``.

        Raises:
            ResetNeeded: ``reset`` was never called.
            ValueError: the actions have another shape.
        """
        import jax
        import torch

        if self._carry is None:
            raise ResetNeeded("Call reset() before step().")
        taken = torch.as_tensor(actions, dtype=torch.float32, device=self.device).detach().contiguous()
        if taken.shape != self.action_space.shape:
            raise ValueError(f"actions.shape={tuple(taken.shape)}: it must be {self.action_space.shape}")
        self._carry, outcome = self._advance(self._carry, jax.dlpack.from_dlpack(taken))
        obs, final_obs, rewards, terminated, truncated = jax.tree.map(torch.from_dlpack, outcome)
        return obs, rewards, terminated, truncated, {"final_obs": final_obs}

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly: arrays by their places in the state, and numpy's generator."""
        if self._carry is None:
            self.reset()
        arrays = {name: np.array(to_numbers(leaf)) for name, leaf in name_leaves(self._carry)}
        return {"arrays": arrays, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the ``state_dict()`` of an environment made with the same arguments.

        Raises:
            ValueError: ``state`` has other arrays, or arrays of other shapes.
        """
        import jax

        own, arrays = self.state_dict()["arrays"], state["arrays"]
        if arrays.keys() != own.keys() or any(np.shape(arrays[name]) != own[name].shape for name in own):
            raise ValueError(f"The state does not belong to {self.num_envs} copies of {self.id} of this version.")
        self.np_random.bit_generator.state = state["rng"]

        def put(name: str, leaf: Any) -> Any:
            numbers = jax.device_put(np.asarray(arrays[name], dtype=own[name].dtype), self._place)
            return jax.random.wrap_key_data(numbers) if is_key(leaf) else numbers

        leaves = [put(name, leaf) for name, leaf in name_leaves(self._carry)]
        self._carry = jax.tree.unflatten(jax.tree.structure(self._carry), leaves)


def find_environment(id: str, suite: str) -> Callable[..., Any]:
    """Return the function that makes one environment of ``id`` from its own arguments.

    Raises:
        ModuleNotFoundError: the package of the suite is not installed; the sentence names the extra.
        ValueError: the suite has no such environment; the sentence names the nearest ids.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs memory of the same GPU
    package = {"brax": "brax", "playground": "mujoco_playground"}[suite]
    if importlib.util.find_spec(package) is None:
        extra = f'pip install "recurrent-ppo[{suite}]"'
        raise ModuleNotFoundError(f"{id} needs the package {package}, which is not installed: {extra}.", name=package)
    if suite == "brax":
        module = importlib.import_module("brax.envs")
        known = list(module._envs)
    else:
        module = importlib.import_module("mujoco_playground").registry
        known = list(module.ALL_ENVS)

    if id not in known:
        nearest = difflib.get_close_matches(id, known, n=3, cutoff=0.4) or known
        raise ValueError(f"Unknown environment id {id!r} of {suite}; known are {', '.join(nearest)}.")
    if suite == "brax":
        return partial(module.get_environment, id)
    return lambda **kwargs: module.load(id, config_overrides={"impl": "jax"} | kwargs)


def find_jax_device(device: torch.device) -> Any:
    """Return the device that JAX has in the place of a device of torch.

    Raises:
        ValueError: JAX cannot use it.
    """
    import jax

    try:
        return jax.local_devices(backend=device.type)[device.index or 0]
    except (RuntimeError, IndexError) as error:
        hint = "; a GPU of NVIDIA needs pip install 'jax[cuda12]'" if device.type == "cuda" else ""
        raise ValueError(f"device={device}: JAX cannot use it here{hint} ({str(error).splitlines()[0]})") from error

"""Any environment that Gymnasium can make, as a SAME_STEP vector environment."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv

from envs.checks import one_of, positive
from envs.guest_vector import adapt
from envs.guests import MaskUse, vectorise
from envs.same_step_autoreset import SameStepAutoreset
from envs.workers import faster_mode
from envs.wrapping import wrap_one

Wrapper = Callable[..., Any]
"""A function from one environment to another: a Gymnasium wrapper, or one of PettingZoo's."""

VERSION = re.compile(r"-v\d+$")
PETTINGZOO = re.compile(r"^[\w.]+\.\w+_v\d+$")  # mpe2.simple_spread_v3
ONE = "it must make a gymnasium.Env of the one it is given"
MODES = ("sync", "async", "auto", "vector_entry_point")
MUJOCO = ("Ant-", "HalfCheetah-", "Hopper-", "Humanoid", "Inverted", "Pusher-", "Reacher-", "Swimmer-", "Walker2d-")
MEMORY_GYM = ("Endless-", "MortarMayhem", "MysteryPath", "SearingSpotlights")
# Packages without which environments are not there, most of which register them when imported: how ids begin, module,
# what pip is told to install. Memory Gym asks for one old version of Gymnasium alone, so no extra can hold it.
SIDE_PACKAGES = (
    (("MiniGrid-", "BabyAI-"), "minigrid", '"recurrent-ppo[envs]"'),
    (("popgym-",), "popgym", '"recurrent-ppo[envs]"'),
    (("ALE/",), "ale_py", '"recurrent-ppo[atari]"'),
    (MUJOCO, "mujoco", '"recurrent-ppo[mujoco]"'),
    (MEMORY_GYM, "memory_gym", "--no-deps memory-gym"),
)


def make_gymnasium(
    id: str,
    num_envs: int,
    wrappers: Sequence[Wrapper | str | Mapping[str, Any]] = (),
    vectorization_mode: str = "sync",
    action_mask: MaskUse = "auto",
    frame_skip: int = 1,
    frame_stack: int = 1,
    **kwargs: Any,
) -> VectorEnv:
    """Build copies of an environment that Gymnasium knows, with SAME_STEP autoreset.

    Each copy is in a ``Guest``, which copies its observations, checks what it returns, and tells what it raises.

    Args:
        id: the environment's id; "module:Id" imports the module first.
        num_envs: the number of copies.
        wrappers: applied to every single environment, in order. Each is a callable, the dotted path of one, or a
            mapping with the dotted path under ``path`` (or ``_target_``) and the wrapper's keyword arguments beside it.
        vectorization_mode: "sync", "async" (one process per copy: slower, unless a step takes milliseconds), "auto"
            for the faster of the two, measured here (see ``faster_mode``), or "vector_entry_point" for the
            environment's own vectorised form, which takes no wrappers. Such a form usually resets one step late;
            CartPole's is adapted here. Any other keeps the mode that its ``metadata["autoreset_mode"]`` tells, since
            not every one can be adapted (see ``SameStepAutoreset``).
        action_mask: "auto" uses ``info["action_mask"]`` where there is one, see ``envs.action_mask.ActionMask``;
            "ignore" does not.
        frame_skip: steps that each action lasts, whose rewards are added, see ``envs.wrapping``. Where the environment
            has an argument of that name itself, as those of MuJoCo do, it is that argument.
        frame_stack: observations that are shown at once, see ``envs.wrapping``.
        **kwargs: the environment's own arguments.

    Raises:
        ValueError: an unknown id, wrapper or mode.
        ModuleNotFoundError: the environment's package is not installed.
        UserCodeError: the environment's own code has a fault.
    """
    positive(num_envs=num_envs, frame_skip=frame_skip, frame_stack=frame_stack)
    _import_side_package(id)
    _check_known(id)
    if frame_skip > 1 and _takes_frame_skip(id):
        kwargs["frame_skip"], frame_skip = frame_skip, 1
    if vectorization_mode == "vector_entry_point":
        if wrappers or frame_skip > 1 or frame_stack > 1:
            allowed = "'sync', 'async' or 'auto' where there are wrappers"
            raise ValueError(f"vectorization_mode='vector_entry_point': it must be {allowed}")
        env = gymnasium.make_vec(id, num_envs=num_envs, vectorization_mode=vectorization_mode, **kwargs)
        return SameStepAutoreset(env) if isinstance(env, CartPoleVectorEnv) else adapt(env, num_envs, id)
    one_of(MODES, vectorization_mode=vectorization_mode)
    resolved = [resolve_wrapper(wrapper) for wrapper in wrappers]

    def make_one() -> gymnasium.Env:
        env = gymnasium.make(id, disable_env_checker=True, **kwargs)
        for number, wrapper in enumerate(resolved):
            env = wrapper(env)
            if not isinstance(env, gymnasium.Env):
                raise TypeError(f"wrappers[{number}]={wrappers[number]} made a {type(env).__name__}: {ONE}")
        return wrap_one(env, frame_skip, frame_stack)

    def make(mode: str) -> VectorEnv:
        return vectorise(make_one, num_envs, id, action_mask, workers=mode == "async")

    return make(faster_mode(make) if vectorization_mode == "auto" else vectorization_mode)


def _import_side_package(id: str) -> None:
    """Import the package that ``id`` needs, if it is one of SIDE_PACKAGES and not of somebody who has registered it."""
    known = gymnasium.registry.get(id)
    if known is not None and not str(known.entry_point).startswith("gymnasium.envs."):
        return
    for prefixes, module, source in SIDE_PACKAGES:
        if id.startswith(prefixes):
            require(module, id, source)
            importlib.import_module(module)


def require(package: str, what: str, source: str) -> None:
    """Check that a package is installed.

    Args:
        package: that is imported.
        what: needs it.
        source: what pip is told to install.

    Raises:
        ModuleNotFoundError: it is not; the sentence names all three.
    """
    if importlib.util.find_spec(package) is None:
        raise ModuleNotFoundError(
            f"{what} needs the package {package}, which is not installed: pip install {source}.", name=package
        )


def complete_id(id: str, prefix: str, suffix: str) -> str:
    """Return the id that a short one stands for; one that ends with a version is whole.

    Args:
        id: "Pong" or "ALE/Pong-v5" say.
        prefix: of the ids of a package.
        suffix: the version that is meant where none is given.
    """
    return id if VERSION.search(id) else f"{prefix}{id}{suffix}"


def _check_known(id: str) -> None:
    """Check that Gymnasium knows ``id``.

    Raises:
        ValueError: it does not; the sentence names the nearest ids.
        ModuleNotFoundError: the module in front of it cannot be found.
    """
    module, _, name = id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there, and a package that it imports is not
            where = "it is looked for on the Python path and in the working folder"
            raise ModuleNotFoundError(f"{id!r}: there is no module {error.name}; {where}", name=error.name) from error
    if name not in gymnasium.registry:
        nearest = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.4)
        hint = f"the nearest known ids are {', '.join(nearest)}" if nearest else "no known id is similar"
        if PETTINGZOO.search(id):
            hint = "those of PettingZoo go with env=pettingzoo"
        raise ValueError(f"Unknown environment id {id!r}; {hint}.")


def _takes_frame_skip(id: str) -> bool:
    """Say whether an environment that Gymnasium knows has an argument ``frame_skip`` itself."""
    point = gymnasium.registry[id.rpartition(":")[2]].entry_point
    creator = load_env_creator(point) if isinstance(point, str) else point
    return creator is not None and "frame_skip" in inspect.signature(creator).parameters


def resolve_wrapper(wrapper: Wrapper | str | Mapping[str, Any]) -> Wrapper:
    """Return what ``wrapper`` stands for: itself, what a dotted path names, or that with keyword arguments.

    Raises:
        ValueError: it is none of these, or nothing can be imported from the path.
    """
    if callable(wrapper):
        return wrapper
    arguments = dict(wrapper) if isinstance(wrapper, Mapping) else {"path": wrapper}
    path = arguments.pop("path", None) or arguments.pop("_target_", None)
    if not isinstance(path, str) or "." not in path:
        raise ValueError(f"wrapper={wrapper!r}: it must be a callable, a dotted path or a mapping with a 'path'")
    module, _, name = path.rpartition(".")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"No wrapper can be imported from {path!r}: {error}.") from error
    return partial(function, **arguments)


class DropObservation(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """A wrapper that removes components of a one-dimensional ``Box`` observation, for instance the velocities.

    Args:
        env: a single environment.
        indices: of the components to remove.

    Raises:
        ValueError: the observation is of another kind, or nothing would be left of it.
    """

    def __init__(self, env: gymnasium.Env, indices: Sequence[int]):
        RecordConstructorArgs.__init__(self, indices=list(indices))
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise ValueError(f"observation_space={space}: it must be a one-dimensional Box")
        dropped = set(indices)
        if not dropped <= set(range(space.shape[0])) or len(dropped) == space.shape[0]:
            raise ValueError(f"indices={sorted(dropped)}: it must be some, but not all, of 0 to {space.shape[0] - 1}")
        self._kept = np.array([index for index in range(space.shape[0]) if index not in dropped])
        self.observation_space = spaces.Box(space.low[self._kept], space.high[self._kept], dtype=space.dtype)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return the components that are kept, ``[D]``."""
        return observation[self._kept]

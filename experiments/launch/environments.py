"""Construct environments: as many as are needed, made all at once or one at a time, in the named wrappers."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv
from hydra.utils import instantiate

from envs.guest_vector import adapt
from envs.workers import close
from envs.wrapping import wrap_many, wrap_one

WRAPPERS = {
    name: parameter
    for name, parameter in inspect.signature(wrap_many, eval_str=True).parameters.items()
    if name not in ("envs", "name")
}
"""Keys of every environment whose target has no argument of that name itself."""


def construct_environments(target: Callable[..., Any], checked: dict[str, Any], num_envs: int) -> VectorEnv:
    """Call the target of the node of the environments, which may make all of them or one at a time.

    Args:
        target: what the node names.
        checked: the node, as ``experiments.launch.check.check_node`` returns it.
        num_envs: how many are needed; a target that takes no such argument is called without.

    Raises:
        TypeError, ValueError: what it makes cannot be used.
    """
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    one = isinstance(target, type) and issubclass(target, gymnasium.Env)
    many = "num_envs" in parameters or (takes_any and not one)
    wrappers = {key: checked[key] for key in WRAPPERS if key in checked and key not in parameters}
    frames = {key: value for key, value in wrappers.items() if key.startswith("frame_")}
    own = {key: value for key, value in checked.items() if key not in wrappers}
    call = partial(instantiate, own, **({"num_envs": num_envs} if many else {}))

    def make() -> Any:
        made = call()
        return wrap_one(made, **frames) if isinstance(made, gymnasium.Env) else made

    name, made = f"env._target_={checked['_target_']}", make()
    if isinstance(made, gymnasium.Env):
        wrappers = {key: value for key, value in wrappers.items() if key not in frames}
    envs = adapt(made, num_envs, name, make)
    try:
        return wrap_many(envs, name, **wrappers)
    except ValueError:
        close(envs)
        raise

"""Batches of an environment written in JAX: the two functions that are compiled, and what is left of observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces


def compile_functions(
    env: Any, num_envs: int, max_episode_steps: int, kept: dict[str, np.ndarray]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what begins episodes in all rows, and what steps all rows and restarts those that end.

    Args:
        env: one environment of Brax or Playground: ``reset(key)`` and ``step(state, action)`` return a state with
            ``obs``, ``reward`` and ``done``.
        num_envs: B.
        max_episode_steps: the steps after which an episode is truncated.
        kept: see ``choose_kept``.

    Returns:
        ``begin(key) -> carry, obs`` and ``advance(carry, actions) -> carry, (obs, final_obs, rewards, terminated,
        truncated)``, each compiled once, at its first call. ``carry`` is what the next step needs.
    """
    import jax
    from jax import numpy as jnp

    def show(obs: Any) -> Any:
        if isinstance(obs, Mapping):
            return {name: leaf[..., kept[name]] if name in kept else leaf for name, leaf in obs.items()}
        return obs[..., kept[""]] if "" in kept else obs

    def draw(key: Any) -> Any:
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def begin(key: Any) -> tuple[Any, Any]:
        key, part = jax.random.split(key)
        state = jax.tree.map(lambda leaf: _as(leaf, leaf.dtype), draw(part))  # as in a step: it is compiled once
        return (key, state, jnp.zeros(num_envs, jnp.int32)), show(state.obs)

    def advance(carry: Any, actions: Any) -> tuple[Any, Any]:
        key, before, elapsed = carry
        key, part = jax.random.split(key)
        after, elapsed = jax.vmap(env.step)(before, actions), elapsed + 1
        after = jax.tree.map(lambda new, old: _as(new, old.dtype), after, before)
        terminated = after.done.astype(bool)
        truncated = (elapsed >= max_episode_steps) & ~terminated
        ended = terminated | truncated
        state = jax.tree.map(lambda new, old: jnp.where(_widen(ended, new.ndim), new, old), draw(part), after)
        outcome = show(state.obs), show(after.obs), after.reward.astype(jnp.float32), terminated, truncated
        return (key, state, jnp.where(ended, 0, elapsed)), outcome

    return jax.jit(begin), jax.jit(advance)


def choose_kept(shown: Any, hide: Sequence[int] | Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Return the indices that are left of each leaf of which something is hidden; the name of a single leaf is empty.

    Args:
        shown: an observation with ``shape [..., D]`` in every leaf.
        hide: the indices that are hidden.

    Raises:
        ValueError: there is no such leaf or component, or nothing would be left of a leaf.
    """
    leaves = dict(shown) if isinstance(shown, Mapping) else {"": shown}
    hidden = dict(hide) if isinstance(hide, Mapping) else {"": hide} if len(hide) else {}
    kept = {}
    for name, indices in hidden.items():
        if name not in leaves:
            has = f"the leaves {', '.join(leaves)}" if isinstance(shown, Mapping) else f"no leaf {name!r}"
            raise ValueError(f"hide={hide}: the observation has {has}")
        size = leaves[name].shape[-1]
        dropped = set(indices)
        if not dropped <= set(range(size)) or len(dropped) == size:
            raise ValueError(f"hide={sorted(dropped)}: it must be some, but not all, of 0 to {size - 1}")
        kept[name] = np.array([index for index in range(size) if index not in dropped])
    return kept


def make_space(shown: Any, kept: dict[str, np.ndarray]) -> spaces.Space:
    """Return the space of one observation; without bounds but those of whole numbers, for Brax declares none.

    Args:
        shown: an observation with ``shape`` and ``dtype`` in every leaf.
        kept: see ``choose_kept``.
    """

    def make(name: str, leaf: Any) -> spaces.Box:
        shape = (*leaf.shape[:-1], len(kept[name])) if name in kept else leaf.shape
        dtype = np.dtype(leaf.dtype)
        low, high = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        return spaces.Box(low, high, shape, dtype)

    if isinstance(shown, Mapping):
        return spaces.Dict({name: make(name, leaf) for name, leaf in shown.items()})
    return make("", shown)


def name_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Return the leaves of a tree of JAX, each with the path to it."""
    import jax

    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def is_key(leaf: Any) -> bool:
    """Tell whether a leaf holds keys of JAX's generators, which are no numbers."""
    import jax

    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_numbers(leaf: Any) -> Any:
    """Return a leaf as numbers: keys as what they are made of."""
    import jax

    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _as(leaf: Any, dtype: Any) -> Any:
    """Return a leaf in a type, as no weak one of JAX's."""
    return leaf if is_key(leaf) else leaf.astype(dtype)


def _widen(flags: Any, ndim: int) -> Any:
    """Return flags ``[B]`` as ``[B, 1, ...]`` of so many axes."""
    return flags.reshape(-1, *[1] * (ndim - 1))

"""The functions that are compiled, by a toy in JAX, and what is left of observations."""

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from envs.jitted import choose_kept, compile_functions, is_key, make_space, name_leaves, to_numbers

FLAT = SimpleNamespace(shape=(4,), dtype=np.float32)
LEAVES = {"state": FLAT, "image": SimpleNamespace(shape=(5, 5, 3), dtype=np.uint8)}
B, LIMIT = 3, 4
NEEDED = "jax comes with the extra `brax`"


def test_what_is_left():
    assert choose_kept(FLAT, ()) == {}
    assert choose_kept(FLAT, [1, 3])[""].tolist() == [0, 2]
    assert choose_kept(LEAVES, {"state": [0]})["state"].tolist() == [1, 2, 3]
    assert make_space(FLAT, {}) == spaces.Box(-np.inf, np.inf, (4,), np.float32)
    space = make_space(LEAVES, choose_kept(LEAVES, {"state": [0]}))
    assert space["state"].shape == (3,) and space["image"] == spaces.Box(0, 255, (5, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("shown", "hide", "said"),
    [
        (FLAT, [4], r"hide=\[4\]: it must be some, but not all, of 0 to 3"),
        (FLAT, [0, 1, 2, 3], "some, but not all"),
        (FLAT, [-1], "some, but not all"),
        (FLAT, {"state": [0]}, "the observation has no leaf 'state'"),
        (LEAVES, [0], "the observation has the leaves state, image"),
        (LEAVES, {"pixels": [0]}, "the observation has the leaves state, image"),
    ],
)
def test_what_cannot_be_hidden(shown, hide, said):
    with pytest.raises(ValueError, match=said):
        choose_kept(shown, hide)


@pytest.fixture
def toy():
    """``begin`` and ``advance`` of three rows, which show a random goal and the steps of the episode; action 1 ends."""
    jax = pytest.importorskip("jax", reason=NEEDED)
    from jax import numpy as jnp

    class State(dict):
        __getattr__ = dict.__getitem__

    jax.tree_util.register_pytree_node(
        State,
        lambda state: (list(state.values()), tuple(state)),
        lambda names, parts: State(zip(names, parts, strict=True)),
    )

    class Toy:
        def reset(self, key):
            key, part = jax.random.split(key)
            obs = jnp.stack([jax.random.uniform(part), 0.0])
            return State(obs=obs, reward=0.0, done=0.0, key=key)

        def step(self, state, action):
            done = jnp.where(action[0] > 0, 1, 0)
            return State(obs=state.obs.at[1].add(1), reward=1, done=done, key=jax.random.split(state.key)[0])

    return compile_functions(Toy(), B, LIMIT, {})


def start(begin, seed=0):
    import jax

    carry, obs = begin(jax.random.key(seed))
    return carry, np.array(obs)


def act(advance, carry, *actions):
    carry, outcome = advance(carry, np.array(actions, np.float32)[:, None])
    return carry, *map(np.array, outcome)


def test_rows_restart_at_states_of_their_own(toy):
    """No row sees the goal of another, nor one of its own again: Brax's own wrapper would show one for ever."""
    begin, advance = toy
    carry, obs = start(begin)
    goals = [obs[:, 0]]
    for step in range(1, 3 * LIMIT + 1):
        carry, obs, final_obs, rewards, terminated, truncated = act(advance, carry, 0, 0, 0)
        assert not terminated.any() and rewards.tolist() == [1, 1, 1]
        assert final_obs.tolist() == [[goal, (step - 1) % LIMIT + 1] for goal in goals[-1]]
        assert truncated.all() if step % LIMIT == 0 else not truncated.any()
        if truncated.all():
            goals.append(obs[:, 0])
        assert obs[:, 1].tolist() == [step % LIMIT] * B
    assert len(np.unique(goals)) == 4 * B


def test_the_limit_is_no_end(toy):
    """What ends by itself is terminated, in the last step, too; rows are counted apart."""
    begin, advance = toy
    carry, obs = start(begin)
    carry, after, final_obs, _, terminated, truncated = act(advance, carry, 1, 0, 0)
    assert terminated.tolist() == [True, False, False] and not truncated.any()
    assert after[:, 1].tolist() == [0, 1, 1] and final_obs[:, 1].tolist() == [1, 1, 1]
    assert after[0, 0] != obs[0, 0] and after[1:, 0].tolist() == obs[1:, 0].tolist()
    for _ in range(2):
        carry, *_ = act(advance, carry, 0, 0, 0)
    _, after, final_obs, _, terminated, truncated = act(advance, carry, 0, 1, 0)
    assert terminated.tolist() == [False, True, False] and truncated.tolist() == [False, False, True]
    assert after[:, 1].tolist() == [3, 0, 0] and final_obs[:, 1].tolist() == [3, 4, 4]


def test_each_function_is_compiled_once(toy):
    """Although the toy's rewards and flags are of other types in a reset than in a step."""
    begin, advance = toy
    carry, _ = start(begin)
    for _ in range(LIMIT + 1):
        carry, *outcome = act(advance, carry, 0, 1, 0)
    assert begin._cache_size() == advance._cache_size() == 1
    assert [part.dtype for part in outcome] == [np.float32, np.float32, np.float32, bool, bool]


def test_seeds(toy):
    begin, _ = toy
    assert start(begin, 1)[1].tolist() == start(begin, 1)[1].tolist() != start(begin, 2)[1].tolist()


def test_leaves_by_name(toy):
    leaves = dict(name_leaves(start(toy[0])[0]))
    assert len(leaves) == 6 and sum(map(is_key, leaves.values())) == 2  # the environment's own and the toy's
    assert all(to_numbers(leaf).dtype.kind in "fiub" for leaf in leaves.values())

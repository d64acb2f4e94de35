import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.same_step_autoreset import SameStepAutoreset
from envs.single_env import SingleEnv


def make_sync(mode, task, parameters, copy=True):
    return SyncVectorEnv([lambda: SingleEnv(task, **parameters)] * 4, copy=copy, autoreset_mode=mode)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize(
    ("task", "parameters"),
    [("envs.t_maze:TMaze", {"length": 2}), ("envs.probes:SpaceProbe", {"observation": "dict", "episode_length": 3})],
)
def test_every_row_equals_same_step(mode, task, parameters):
    # Without copies, the environment overwrites in the reset what its step returned.
    adapted = SameStepAutoreset(make_sync(mode, task, parameters, copy=False))
    expected = make_sync(AutoresetMode.SAME_STEP, task, parameters)
    assert adapted.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert adapted.env.autoreset_mode is mode
    expected.action_space.seed(0)
    np.testing.assert_equal(adapted.reset(seed=5), expected.reset(seed=5))
    ends = 0
    for _ in range(200):
        actions = expected.action_space.sample()
        *left, left_info = adapted.step(actions)
        *right, right_info = expected.step(actions)
        np.testing.assert_equal(left, right)
        assert left_info.keys() == right_info.keys()
        for row in np.flatnonzero(left_info.get("_final_obs", [])):
            ends += 1
            final = left_info["final_obs"]
            final = {key: value[row] for key, value in final.items()} if isinstance(final, dict) else final[row]
            np.testing.assert_equal(final, right_info["final_obs"][row])
        np.testing.assert_equal(left_info.get("_final_obs"), right_info.get("_final_obs"))
    assert ends > 40


class InfoEnv(gymnasium.Env):
    """Tells its step in the info: 0 from the reset, 1, 2, 3 from the steps of an episode of `length` steps."""

    observation_space = gymnasium.spaces.Discrete(10)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length):
        self.length = length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return 0, {"count": 0, "nested": {"mask": np.array([True, False])}, "fresh": 7}

    def step(self, action):
        self.count += 1
        info = {"count": self.count, "nested": {"mask": np.array([False, True])}, "going": self.count}
        return self.count, 1.0, self.count == self.length, False, info


def test_infos_equal_same_step():
    def make(mode):
        return SyncVectorEnv([lambda: InfoEnv(2), lambda: InfoEnv(3), lambda: InfoEnv(3)], autoreset_mode=mode)

    adapted, expected = SameStepAutoreset(make(AutoresetMode.NEXT_STEP)), make(AutoresetMode.SAME_STEP)
    adapted.reset()
    expected.reset()
    told = set()
    for _ in range(12):
        left, right = adapted.step(np.zeros(3, dtype=int))[4], expected.step(np.zeros(3, dtype=int))[4]
        told |= set(right)
        for key in ("count", "fresh", "going"):  # of both, of the reset alone, of the step alone
            np.testing.assert_equal(left.get(key, np.zeros(3)), right.get(key, np.zeros(3)))
            never = np.zeros(3, dtype=bool)
            np.testing.assert_equal(left.get(f"_{key}", never), right.get(f"_{key}", never))
        np.testing.assert_equal(left["nested"]["mask"], right["nested"]["mask"])
        for row in np.flatnonzero(left.get("_final_info", [])):
            assert left["final_info"]["count"][row] == right["final_info"]["count"][row]
    assert told >= {"count", "fresh", "going"}


def test_cartpole_vector_env_has_no_dead_rows():
    env = SameStepAutoreset(CartPoleVectorEnv(num_envs=16, max_episode_steps=30))
    reference = gymnasium.make("CartPole-v1").unwrapped
    observations, _ = env.reset(seed=0)
    reference.reset()
    rng, elapsed, ends = np.random.default_rng(0), np.zeros(16, dtype=int), np.zeros(2, dtype=int)
    for _ in range(200):
        before = env.env.state.T.copy()
        actions = rng.integers(2, size=16)
        observations, rewards, terminated, truncated, info = env.step(actions)
        assert (rewards == 1).all()
        elapsed += 1
        ended = terminated | truncated
        np.testing.assert_array_equal(truncated, elapsed == 30)
        for row in range(16):
            reference.state, reference.steps_beyond_terminated = before[row], None
            expected, _, expected_terminated, _, _ = reference.step(actions[row])
            result = info["final_obs"] if ended[row] else observations
            np.testing.assert_allclose(result[row], expected, atol=1e-6)
            assert terminated[row] == expected_terminated
        if ended.any():
            np.testing.assert_array_equal(info["_final_obs"], ended)
            assert (np.abs(observations[ended]) <= 0.05).all()
        elapsed[ended] = 0
        ends += [terminated.sum(), truncated.sum()]
    assert (ends > 5).all()


def test_an_environment_that_ignores_the_mask_is_refused():
    class Derived(CartPoleVectorEnv):
        """Not the known class, so it is asked with a mask, which it ignores."""

    env = SameStepAutoreset(Derived(num_envs=8))
    env.reset(seed=0)
    with pytest.raises(TypeError, match=r"ignores reset.*cannot be used in SAME_STEP mode"):
        for _ in range(60):
            env.step(np.ones(8, dtype=int) * (np.arange(8) % 2))


class Careless(gymnasium.vector.VectorEnv):
    """Two rows, of which the first ends; a reset with a mask draws the second part of the other row anew, too."""

    num_envs = 2

    def step(self, actions):
        parts = {"kept": np.array([1, 2]), "drawn": np.array([1, 2])}
        return parts, np.zeros(2), np.array([True, False]), np.zeros(2, dtype=bool), {}

    def reset(self, *, seed=None, options=None):
        return {"kept": np.array([0, 2]), "drawn": np.array([0, 0])}, {}


def test_every_part_of_an_observation_must_be_kept():
    with pytest.raises(TypeError, match="ignores reset"):
        SameStepAutoreset(Careless()).step(np.zeros(2, dtype=int))


def test_rows_of_cartpole_that_end_together_start_apart():
    env = SameStepAutoreset(CartPoleVectorEnv(num_envs=3, max_episode_steps=2))
    env.reset(seed=0)
    env.step(np.zeros(3, dtype=int))
    observations, _, _, truncated, _ = env.step(np.zeros(3, dtype=int))
    assert truncated.all() and len(np.unique(observations, axis=0)) == 3
    np.testing.assert_array_equal(observations, env.env.state.T.astype(np.float32))


def test_ends_in_arrays_that_are_used_again_are_kept():
    """The reset writes over them."""

    class Reusing(SyncVectorEnv):
        def step(self, actions):
            obs, rewards, terminated, truncated, info = super().step(actions)
            self.kept = rewards, terminated, truncated
            return obs, rewards, terminated, truncated, info

        def reset(self, *, seed=None, options=None):
            for array in getattr(self, "kept", ()):
                array[:] = 0
            return super().reset(seed=seed, options=options)

    envs = [lambda: SingleEnv("envs.probes:Counter", episode_length=2)] * 2
    adapted = SameStepAutoreset(Reusing(envs, autoreset_mode=AutoresetMode.DISABLED))
    adapted.reset(seed=0)
    ends = []
    for _ in range(4):
        *_, terminated, truncated, _ = adapted.step(np.zeros(2, dtype=np.int64))
        ends.append((terminated | truncated).tolist())
    assert ends == [[False, False], [True, True]] * 2

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from envs.classic_control import PendulumNoVelocity
from envs.probes import Counter
from rl.memory_check.environments import watch
from rl.memory_check.final_observations import FinalObservations
from rl.memory_check.play import RandomPlay


class Drift(gymnasium.Env):
    """A position that drifts by 1 in each step, from a random place, shown in a new array or always the same."""

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, reuses=False):
        self.reuses, self.seen = reuses, np.zeros(2, dtype=np.float32)

    def show(self):
        self.seen[:] = self.position, -self.position
        return self.seen if self.reuses else self.seen.copy()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.random()
        return self.show(), {}

    def step(self, action):
        self.position += 1.0
        return self.show(), 1.0, False, False, {}


class ResetsEarly(gymnasium.Wrapper):
    """Resets by itself where an episode ends, and returns the first observation of the next one."""

    def step(self, action):
        obs, *rest = self.env.step(action)
        if rest[1] or rest[2]:
            obs = self.env.reset()[0]
        return obs, *rest


def vector(make, mode=AutoresetMode.SAME_STEP):
    return SyncVectorEnv([make] * 3, autoreset_mode=mode)


def limited(reuses=False):
    return TimeLimit(Drift(reuses), 10)


def finals_of(envs, mode=AutoresetMode.SAME_STEP, steps=200):
    watcher = FinalObservations(envs.single_observation_space, mode is AutoresetMode.NEXT_STEP)
    watch(envs, 0, steps, RandomPlay(envs, 0), [watcher])
    return watcher.verdict()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_real_final_observations_pass_in_either_mode_also_from_an_array_that_is_used_again(mode):
    for reuses in (False, True):
        verdict = finals_of(vector(lambda reuses=reuses: limited(reuses), mode), mode)
        assert verdict.passed is True and verdict.numbers["equal_to_the_next_first_one"] == 0
        assert verdict.numbers["compared"] >= 48


def test_the_observation_of_the_reset_in_place_of_the_final_one_is_a_fault():
    """In one array for all: the reset overwrites it, and no copy is made."""

    class Overwrites(SyncVectorEnv):
        def step(self, actions):
            obs, *rest, info = super().step(actions)
            return obs, *rest, info | ({"final_obs": obs} if "final_obs" in info else {})

    verdict = finals_of(Overwrites([limited] * 3, autoreset_mode=AutoresetMode.SAME_STEP))
    assert verdict.passed is False and "equal the first one of the next episode" in verdict.finding


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_an_environment_that_has_reset_itself_is_found_by_what_its_ends_look_like(mode):
    verdict = finals_of(vector(lambda: ResetsEarly(limited()), mode), mode)
    assert verdict.passed is False and "look like those that open one" in verdict.finding


def test_a_cut_without_a_final_observation_is_a_fault():
    class Silent(SyncVectorEnv):
        def step(self, actions):
            return *super().step(actions)[:4], {}

    verdict = finals_of(Silent([limited] * 3, autoreset_mode=AutoresetMode.SAME_STEP))
    assert verdict.passed is False and verdict.finding.startswith("60 truncated episodes have no final observation")


def test_ends_that_look_like_beginnings_are_no_proof_where_everything_does():
    """An observation that never changes, and one whose first ones cover all that is ever seen."""

    class Still(Counter):
        def _observe(self):
            return super()._observe() * [0, 1]

    still = finals_of(Still(3, 5, end="truncated"))
    assert still.passed is None and "may be chance" in still.finding
    assert finals_of(PendulumNoVelocity(3), steps=650).passed is True


def test_first_observations_that_are_all_alike_do_not_hide_the_fault():
    """What opens an episode is always [0, row] here; that cuts show it, too, is no chance."""

    class Wrong(Counter):
        def step(self, actions):
            obs, *rest, info = super().step(actions)
            return obs, *rest, info | ({"final_obs": obs} if info else {})

    assert finals_of(Counter(3, 5, end="truncated")).passed is True
    assert finals_of(Wrong(3, 5, end="truncated")).passed is False


class Parts(Counter):
    """Shows a counter in two leaves, of which one may be that of the next episode where one ends."""

    def __init__(self, wrong=()):
        super().__init__(3, 5, end="truncated")
        self.wrong = wrong
        leaf = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.single_observation_space = spaces.Dict({"count": leaf, "other": leaf})
        self.shift = np.zeros(3)

    def _start(self, rows):
        self.shift[rows] = self.np_random.random(len(rows))

    def _observe(self):
        count = (self.elapsed_steps + self.shift).astype(np.float32)[:, None]
        return {"count": count, "other": count * 2}

    def step(self, actions):
        obs, *rest, info = super().step(actions)
        if info:
            info["final_obs"] |= {name: obs[name] for name in self.wrong}
        return obs, *rest, info


def test_one_leaf_that_is_overwritten_is_named():
    assert finals_of(Parts()).passed is True
    verdict = finals_of(Parts(["other"]))
    assert verdict.passed is False and verdict.finding.startswith("in all 117 final observations 'other' is that of")


def test_a_leaf_that_goes_on_from_episode_to_episode_is_worth_a_note():
    class Total(Parts):
        total = 0

        def _advance(self, actions):
            self.total += 1
            return super()._advance(actions)

        def _observe(self):
            return super()._observe() | {"other": np.full((3, 1), self.total, dtype=np.float32)}

    verdict = finals_of(Total())
    assert verdict.passed is None and "'other'" in verdict.finding

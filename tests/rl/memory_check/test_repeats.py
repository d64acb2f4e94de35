import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.delayed_recall import DelayedRecall
from envs.single_env import SingleEnv
from rl.memory_check.play import RandomPlay
from rl.memory_check.repeats import check_repeats

RECALL = "envs.delayed_recall:DelayedRecall"


class Reuses(DelayedRecall):
    """Writes every observation into one array."""

    def _observe(self):
        if not hasattr(self, "kept"):
            self.kept = super()._observe()
        self.kept[:] = super()._observe()
        return self.kept


class ReusesOne(SingleEnv):
    """A single environment that writes every observation into one array."""

    def _first(self, observations):
        if not hasattr(self, "kept"):
            self.kept = super()._first(observations)
        self.kept[:] = super()._first(observations)
        return self.kept


def verdicts_of(envs, steps=60):
    return {verdict.check: verdict for verdict in check_repeats(envs, 3, steps, RandomPlay(envs, 3))}


def test_our_environments_and_third_party_vectors_repeat_themselves():
    assert [verdict.passed for verdict in verdicts_of(DelayedRecall(3)).values()] == [True, True]
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        envs = SyncVectorEnv([lambda: SingleEnv(RECALL)] * 3, autoreset_mode=mode)
        verdicts = verdicts_of(envs)
        assert [*verdicts] == ["arrays_are_not_used_again", "same_seed_same_episodes", "order_does_not_matter"]
        assert [verdict.passed for verdict in verdicts.values()] == [True, True, True]


def test_an_array_of_observations_that_is_used_again_is_seen():
    verdict = verdicts_of(Reuses(3))["arrays_are_not_used_again"]
    assert verdict.passed is None and "observations" in verdict.numbers["reused"]


def test_a_vector_that_copies_observations_still_hands_out_the_final_one_as_it_is():
    envs = SyncVectorEnv([lambda: ReusesOne(RECALL)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    assert verdicts_of(envs)["arrays_are_not_used_again"].numbers["reused"] == ["final observations"]


@pytest.mark.parametrize("name", ["rewards", "terminated", "truncated"])
def test_an_array_of_rewards_or_flags_that_is_used_again_is_seen(name):
    class ReusesColumns(DelayedRecall):
        kept = None

        def step(self, actions):
            obs, *columns, info = super().step(actions)
            place = ("rewards", "terminated", "truncated").index(name)
            columns[2] = columns[2] | (self.elapsed_steps == 5)
            kept = self.__dict__.setdefault("_kept", columns[place].copy())
            kept[:] = columns[place]
            columns[place] = kept
            return obs, *columns, info

    assert verdicts_of(ReusesColumns(3))["arrays_are_not_used_again"].numbers["reused"] == [name]


def test_draws_that_no_seed_governs_are_told_with_the_step():
    class Unseeded(DelayedRecall):
        def _start(self, rows):
            self.cue[rows] = np.random.default_rng().integers(1 << 40, size=len(rows)) % self.num_cues

    verdict = verdicts_of(Unseeded(64))["same_seed_same_episodes"]
    assert verdict.passed is None and verdict.numbers["first_difference"] == 0
    assert verdict.finding == "with the same seed and actions, the reset returned something else"


def test_environments_that_share_a_generator_depend_on_their_order():
    shared = {}

    class Shares(SingleEnv):
        def reset(self, *, seed=None, options=None):
            obs, info = super().reset(seed=seed, options=options)
            if seed == 3:
                shared["rng"] = np.random.default_rng(0)
            return obs, info

        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, float(shared["rng"].integers(10)), *rest

    envs = SyncVectorEnv([lambda: Shares(RECALL)] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
    verdicts = verdicts_of(envs)
    assert verdicts["same_seed_same_episodes"].passed is True
    assert verdicts["order_does_not_matter"].passed is None
    assert verdicts["order_does_not_matter"].numbers["first_difference"] >= 1


def test_random_play_takes_allowed_actions_only():
    class Masked(DelayedRecall):
        def __init__(self, num_envs):
            super().__init__(num_envs)
            self.single_observation_space = spaces.Dict({"action_mask": spaces.MultiBinary(4)})

    play = RandomPlay(Masked(2), 0)
    obs = {"action_mask": np.array([[0, 1, 0, 1], [0, 0, 1, 0]], dtype=np.int8)}
    drawn = np.stack([play(obs, np.ones(2, dtype=bool)) for _ in range(50)])
    assert set(drawn[:, 0]) == {1, 3} and set(drawn[:, 1]) == {2}

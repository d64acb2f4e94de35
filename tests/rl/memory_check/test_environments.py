import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from envs.bernoulli_bandit import BernoulliBandit
from envs.classic_control import CartPoleNoVelocity, MountainCarContinuousNoVelocity, PendulumNoVelocity
from envs.copy_sequence import CopySequence
from envs.delayed_recall import DelayedRecall
from envs.memory_grid import MemoryGrid
from envs.probes import SpaceProbe
from envs.repeat_previous import RepeatPrevious
from envs.single_env import SingleEnv
from envs.state_punishment import StatePunishment
from envs.t_maze import TMaze
from envs.witness_vote import WitnessVote
from rl.memory_check import check_environment, regression
from rl.memory_check.environments import claims_memory_gap
from tests.envs.field_tasks import FIELD_TASKS

CHECKS = [
    "arrays_are_not_used_again",
    "same_seed_same_episodes",
    "truncation_is_told_apart",
    "final_observations_are_real",
    "observations_are_in_their_space",
    "rewards_are_finite",
    "observations_vary",
    "something_is_to_be_remembered",
]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Regressions that only run: what they find stands in other tests."""
    monkeypatch.setattr(regression, "STEPS", 5)


def check(envs, steps=100, **options):
    verdicts = check_environment(envs, seed=0, steps=steps, **options)
    envs.close()
    return {verdict.check: verdict for verdict in verdicts}


@pytest.mark.parametrize(
    "make",
    [
        *(BernoulliBandit, CartPoleNoVelocity, CopySequence, DelayedRecall, MemoryGrid, RepeatPrevious, TMaze),
        *(MountainCarContinuousNoVelocity, PendulumNoVelocity, StatePunishment, WitnessVote),
        *(make for make, _ in FIELD_TASKS.values()),
    ],
)
def test_our_environments_have_no_fault(make):
    verdicts = check(make(6))
    assert [*verdicts] == CHECKS
    assert not [verdict for verdict in verdicts.values() if verdict.passed is False]


class Sums(gymnasium.Env):
    """Observations in a dict: the sum of actions, in an array that is used again, and the step; pays the sum."""

    observation_space = spaces.Dict({"sum": spaces.Box(-50, 50, (1,), np.float32), "step": spaces.Discrete(11)})
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self):
        self.sum = np.zeros(1, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sum[:], self.steps = self.np_random.random(), 0
        return {"sum": self.sum, "step": self.steps}, {}

    def step(self, action):
        self.sum += action
        self.steps += 1
        return {"sum": self.sum, "step": self.steps}, float(self.sum[0]), False, False, {}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_vector_of_gymnasium_whose_copies_use_their_arrays_again(mode):
    verdicts = check(SyncVectorEnv([lambda: TimeLimit(Sums(), 10)] * 3, autoreset_mode=mode))
    assert [name for name in verdicts if name != "order_does_not_matter"] == CHECKS
    assert not [verdict for verdict in verdicts.values() if verdict.passed is False]
    final = verdicts["final_observations_are_real"]
    assert final.passed is True and final.numbers["equal_to_the_next_first_one"] == 0
    assert (verdicts["arrays_are_not_used_again"].passed is None) is (mode is AutoresetMode.SAME_STEP)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_worker_processes(mode):
    """There the reset overwrites the final observation before it is sent, which no adapter can mend."""
    make = [lambda: TimeLimit(Sums(), 10)] * 2
    verdicts = check(AsyncVectorEnv(make, autoreset_mode=mode))
    assert verdicts["order_does_not_matter"].passed is True
    same_step = mode is AutoresetMode.SAME_STEP
    assert verdicts["final_observations_are_real"].passed is not same_step
    faults = [name for name, verdict in verdicts.items() if verdict.passed is False]
    assert faults == (["final_observations_are_real"] if same_step else [])


def test_a_policy_is_asked_with_what_opens_an_episode():
    asked = []

    def act(obs, opens):
        asked.append((obs.copy(), opens.copy()))
        return np.zeros(3, dtype=np.int64)

    check(DelayedRecall(3, delay=4), steps=20, act=act)
    assert len(asked) == 5 + 20  # a quarter is played again later, without asking
    for obs, opens in asked:
        assert opens.all() == obs[:, :4].any()  # the cue is shown where an episode opens
    assert [bool(opens.all()) for _, opens in asked[5:]] == [t % 5 == 0 for t in range(20)]


def test_verdicts_depend_on_the_seed_alone():
    first = check_environment(SpaceProbe(4, "dict"), seed=3, steps=60)
    assert first == check_environment(SpaceProbe(4, "dict"), seed=3, steps=60)
    assert first != check_environment(SpaceProbe(4, "dict"), seed=4, steps=60)


def test_what_an_environment_claims_is_read_through_a_vector():
    assert claims_memory_gap(DelayedRecall(2)) and not claims_memory_gap(SpaceProbe(2))
    assert claims_memory_gap(SyncVectorEnv([lambda: SingleEnv("envs.t_maze:TMaze")]))
    assert not claims_memory_gap(PendulumNoVelocity(2))


def test_steps_below_one_are_refused():
    with pytest.raises(ValueError, match=r"^steps=0: it must be a whole number of at least 1$"):
        check_environment(DelayedRecall(2), seed=0, steps=0)

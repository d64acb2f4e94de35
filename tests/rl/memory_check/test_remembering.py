import numpy as np
import pytest
from gymnasium import spaces

from envs.batched_env import BatchedEnv
from envs.classic_control import MountainCarContinuousNoVelocity
from envs.delayed_recall import DelayedRecall
from envs.t_maze import TMaze
from rl.memory_check import regression, remembering
from rl.memory_check.environments import claims_memory_gap, watch
from rl.memory_check.features import list_branches
from rl.memory_check.history import Steps
from rl.memory_check.play import RandomPlay
from rl.memory_check.probe import Scores
from rl.memory_check.recording import Recording
from rl.memory_check.remembering import judge_memory


class ShowsAlways(DelayedRecall):
    """Shows the cue all the time."""

    def _observe(self):
        obs = super()._observe()
        obs[:, : self.num_cues] = np.eye(self.num_cues)[self.cue]
        return obs


class ShowsNever(DelayedRecall):
    """Shows no cue."""

    def _observe(self):
        obs = super()._observe()
        obs[:, : self.num_cues] = 0
        return obs


class Echo(BatchedEnv):
    """Pays for the last action but one, and shows nothing."""

    state_names = ("last",)

    def __init__(self, num_envs):
        super().__init__(num_envs, spaces.Box(0, 1, (1,), np.float32), spaces.Box(-1, 1, (1,), np.float32), 20)
        self.last = np.zeros(num_envs)

    def _start(self, rows):
        self.last[rows] = 0

    def _advance(self, actions):
        rewards, self.last = self.last**2, actions[:, 0]
        return rewards, np.zeros(self.num_envs, dtype=bool)

    def _observe(self):
        return np.zeros((self.num_envs, 1), dtype=np.float32)


def judge(envs, steps, claims_gap=None):
    recording = Recording(envs.num_envs, envs.single_observation_space, envs.single_action_space, steps)
    watch(envs, 0, steps, RandomPlay(envs, 0), [recording])
    claims = claims_memory_gap(envs) if claims_gap is None else claims_gap
    return judge_memory(recording.steps(), list_branches(envs.single_action_space), claims, 0)


@pytest.fixture
def quick(monkeypatch):
    """Regressions of fewer steps, enough for what is easily seen."""
    monkeypatch.setattr(regression, "STEPS", 150)
    monkeypatch.setattr(regression, "BATCH", 256)
    monkeypatch.setattr(regression, "PATIENCE", 50)


def test_a_cue_that_is_shown_once_has_to_be_remembered(quick):
    verdict = judge(DelayedRecall(32, delay=4), 200)
    assert verdict.passed is True and verdict.numbers["reward_source"] in verdict.finding
    assert verdict.numbers["reward_present"] < 0.1 and verdict.numbers["reward_history"] > 0.9


def test_an_own_action_has_to_be_remembered(quick):
    verdict = judge(Echo(32), 200)
    assert verdict.passed is True and verdict.numbers["reward_source"] == "the last 4 steps"


def test_a_cue_that_is_shown_all_the_time_is_a_fault_where_memory_is_claimed_to_pay(quick):
    verdict = judge(ShowsAlways(32, delay=4), 200)
    assert verdict.passed is False and "shown all the time" in verdict.finding
    assert verdict.numbers["reward_present"] > 0.95


def test_a_cue_that_is_never_shown_cannot_be_told_from_chance(quick):
    verdict = judge(ShowsNever(32, delay=4), 200)
    assert verdict.passed is None and "the cue is never shown" in verdict.finding


@pytest.mark.parametrize(
    ("envs", "steps", "told"),
    [
        (TMaze(32, length=30), 130, "the action and the step of the episode alone predict the reward"),
        (MountainCarContinuousNoVelocity(8), 600, "the action and the step of the episode alone predict the reward"),
        (TMaze(2, length=3), 30, "what is paid differs in too few episodes"),
        (ShowsAlways(4, delay=300), 100, "every reward was 0"),
    ],
)
def test_where_random_actions_do_not_get_to_what_matters_the_check_cannot_tell(quick, envs, steps, told):
    verdict = judge(envs, steps)
    assert verdict.passed is None and verdict.finding.startswith(f"cannot tell: {told}")
    assert "act=" in verdict.advice


def score(clock, present, history, error=0.01, occasions=100):
    gains = present - clock, error, history - present, error
    return Scores(clock, present, history, *gains, "the last 4 steps", occasions)


NOTHING = score(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("reward", "rest", "claims", "passed", "told"),
    [
        (score(0.0, 0.5, 0.54), NOTHING, False, True, "predicts the reward better than the present: R2 0.54 against"),
        (score(0.0, 0.5, 0.52), NOTHING, False, None, "the past adds nothing to the present observation"),  # < 3 errors
        (score(0.0, 0.5, 0.519, 1e-4), NOTHING, False, None, "the past adds nothing"),  # < 0.02
        (score(0.0, 0.5, 0.9, occasions=9), NOTHING, False, None, "cannot tell: neither"),
        (None, score(0.0, 0.4, 0.6), False, True, "predicts what is paid later better"),
        (None, score(0.0, 0.4, 0.4), True, None, "adds nothing to the present observation in predicting what is paid"),
        (score(0.0, 0.96, 0.96), NOTHING, True, False, "is predicted from the present observation alone (R2 0.96)"),
        (score(0.0, 0.96, 0.96), NOTHING, False, None, "is predicted from the present observation alone (R2 0.96)"),
        (score(0.0, 0.94, 0.94), NOTHING, True, None, "the past adds nothing"),
        (score(0.96, 0.97, 0.97), NOTHING, True, None, "cannot tell: the action and the step of the episode alone"),
        (score(0.5, 0.5, 0.5), NOTHING, True, None, "cannot tell: neither the present observation nor the past"),
        (None, None, True, None, "cannot tell: every reward was 1"),
        (score(0, 1, 1, occasions=5), score(0, 0, 1, occasions=3), True, None, "cannot tell: what is paid differs in"),
    ],
)
def test_what_the_scores_mean(monkeypatch, reward, rest, claims, passed, told):
    given = iter([reward, rest])
    monkeypatch.setattr(remembering, "score_predictions", lambda *args: next(given))
    steps = Steps(*np.zeros((3, 4, 1)), np.ones(4), np.arange(4), np.zeros(4, dtype=bool))
    verdict = judge_memory(steps, [], claims, 0)
    assert verdict.passed is passed and told in verdict.finding

"""Returns and advantages by hand, the faults that they show, and how stale states are."""

import numpy as np
import pytest
import torch

from rl.memory_check import Replayed
from rl.memory_check.learning import add_rewards, check_n_step, check_staleness, check_targets, recompute_targets
from rl.types import CutEpisodes


@pytest.fixture
def subject(leaky):
    subject = leaky(0.5)
    subject.bptt = 2
    return subject


@pytest.fixture
def trace(subject, make_trace):
    """One row of four steps: values 2, 3, 4, 4; truncated after step 1 at observation 7, under the state 3: V = 8.5.

    After the last step 1 is observed under the state 4: V = 3. gamma = lambda = 1/2, all rewards 1:

    step 3: delta = 1 + 3/2 - 4 = -1.5; step 2: 1 + 4/2 - 4 = -1, advantage -1 - 1.5/4 = -1.375
    step 1: delta = 1 + 8.5/2 - 3 = 2.25; step 0: 1 + 3/2 - 2 = 0.5, advantage 0.5 + 2.25/4 = 1.0625
    """
    opens = torch.tensor([[True], [False], [True], [False]])
    obs = torch.tensor([2.0, 2.0, 4.0, 2.0]).view(4, 1, 1)
    columns = {"rewards": torch.ones(4, 1), "gamma": 0.5, "gae_lambda": 0.5}
    columns["truncated"] = torch.tensor([[False], [True], [False], [False]])
    trace = make_trace(subject, obs, opens, **columns)
    trace.cuts = [CutEpisodes(1, np.array([0]), {"obs": torch.tensor([[7.0]])}, {"s": torch.tensor([[3.0]])})]
    trace.last = CutEpisodes(4, np.array([0]), {"obs": torch.tensor([[1.0]])}, {"s": torch.tensor([[4.0]])})
    trace.advantages = torch.tensor([[1.0625], [2.25], [-1.375], [-1.5]])
    trace.returns = trace.advantages + trace.values
    return trace


def test_targets_by_hand(subject, trace):
    assert trace.outputs.flatten().tolist() == [2.0, 3.0, 4.0, 4.0]
    returns, advantages = recompute_targets(subject, trace, trace.outputs[..., -1].double())
    assert advantages.flatten().tolist() == [1.0625, 2.25, -1.375, -1.5]
    assert returns.flatten().tolist() == [3.0625, 5.25, 2.625, 2.5]
    verdict = check_targets(subject, trace)
    assert verdict.passed and verdict.numbers["truncated"] == 1 and verdict.numbers["terminated"] == 0


def test_advantages_may_be_moved_and_scaled(subject, trace):
    trace.advantages = (trace.advantages - trace.advantages.mean()) / 3.0
    assert check_targets(subject, trace).passed
    trace.advantages[0] += 0.1
    verdict = check_targets(subject, trace)
    assert verdict.passed is False and verdict.finding.startswith("advantages are others, though returns are right")
    trace.advantages[0] -= 0.1
    trace.advantages *= -1.0
    assert check_targets(subject, trace).passed is False


def test_a_termination_is_worth_nothing(subject, trace):
    """1 - 3 = -2 at step 1, and 0.5 - 2/4 = 0 at step 0."""
    trace.terminated, trace.truncated, trace.cuts = trace.truncated, trace.terminated, []
    _, advantages = recompute_targets(subject, trace, trace.outputs[..., -1].double())
    assert advantages.flatten().tolist() == [0.0, -2.0, -1.375, -1.5]


@pytest.mark.parametrize(
    ("second", "cause"),
    [
        (-2.0, "a truncation is taken for a termination"),
        (0.0, "truncated episodes take V of the observation after the reset"),  # 1 + 4/2 - 3
        (0.75, "truncated episodes take V of the observation after the reset"),  # before its clearing: 1 + 5.5/2 - 3
        (1.5, "V of a final observation is computed with a fresh state"),  # 1 + 7/2 - 3
        (1.0, "returns or advantages are others"),
    ],
)
def test_the_cause_is_told(subject, trace, second, cause):
    trace.advantages = torch.tensor([[0.5 + second / 4], [second], [-1.375], [-1.5]])
    trace.returns = trace.advantages + trace.values
    verdict = check_targets(subject, trace)
    assert verdict.passed is False and verdict.finding.startswith(cause) and verdict.advice


def test_the_last_step_counts(subject, trace):
    """Its future was left out: 1 - 4 = -3 at step 3."""
    trace.advantages = torch.tensor([[1.0625], [2.25], [-1.0 - 3.0 / 4], [-3.0]])
    trace.returns = trace.advantages + trace.values
    assert check_targets(subject, trace).passed is False


def test_what_cannot_be_judged(subject, trace):
    assert check_targets(subject, trace, other_features=True).passed is None
    trace.values = None
    assert check_targets(subject, trace).finding.startswith("not for this agent")


def test_rewards_of_three_steps_by_hand(trace):
    """gamma = 1/2, rewards 1, 2, 4, 8; truncated after step 1: 1 + 2/2 and a quarter of what follows."""
    trace.rewards = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    sums, factors = add_rewards(trace, 3)
    assert sums[:2].flatten().tolist() == [2.0, 2.0] and factors[:2].flatten().tolist() == [0.25, 0.5]
    assert torch.isnan(sums[2:]).all()  # the rollout ends before three steps have come
    trace.terminated = trace.truncated.clone()
    assert add_rewards(trace, 3)[1][:2].flatten().tolist() == [0.0, 0.0]
    sums, factors = add_rewards(trace, 1)
    assert sums.flatten().tolist() == [1.0, 2.0, 4.0, 8.0] and factors.flatten().tolist() == [0.5, 0.0, 0.5, 0.5]


def test_rewards_of_n_steps_are_compared(trace):
    trace.n_step = 1
    index = torch.tensor([[0, 1, -1]])
    mb = Replayed(index, {}, index > 5, torch.zeros(1, 3, 1))
    mb.rewards, mb.factors = torch.tensor([[1.0, 1.0, 77.0]]), torch.tensor([[0.5, 0.5, 77.0]])
    assert check_n_step(trace, [mb]).passed
    mb.rewards[0, 1] = 1.5
    assert check_n_step(trace, [mb]).passed is False
    mb.rewards[0, 1], mb.factors[0, 1] = 1.0, 0.0
    assert check_n_step(trace, [mb]).finding.startswith("a truncation is taken for a termination")
    mb.factors[0, 1] = 0.25
    assert "compare where rewards end" in check_n_step(trace, [mb]).advice
    assert check_n_step(trace, []).passed is None


def test_staleness_by_hand(leaky, trace):
    """The state before step 2 was 3; with a decay of 1 the same steps make 4 of it."""
    now = leaky(1.0)
    now.bptt = 2
    verdict = check_staleness(now, trace)
    assert verdict.passed is None and verdict.numbers["relative_change"] == pytest.approx(1 / 4)
    assert "25% off" in verdict.finding and not verdict.advice


def test_states_that_are_very_stale(leaky, trace):
    """2 decay + 2 = 3 / 2.5 = 1.2 at -0.4: 150 % off; 0.1 at -0.95: 2900 %."""
    for decay, passed, share in ((-0.4, None, "150%"), (-0.95, False, "2900%")):
        now = leaky(decay)
        now.bptt = 2
        verdict = check_staleness(now, trace)
        assert verdict.passed is passed and share in verdict.finding and verdict.advice


def test_states_that_are_no_numbers_any_more(leaky, trace):
    now = leaky(float("nan"))
    now.bptt = 2
    assert check_staleness(now, trace).passed is False


def test_a_rollout_of_one_sequence_has_no_stale_states(leaky, trace):
    subject = leaky(0.9)
    subject.bptt = 4
    assert "one sequence" in check_staleness(subject, trace).finding

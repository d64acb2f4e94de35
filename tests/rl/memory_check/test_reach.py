"""The reach of a memory with a known decay: gradient decay^k, and a disturbance that falls as decay^t."""

import pytest
import torch

from rl.memory_check.reach import check_gradient_reach, check_time_scales

SAMPLES = {"x": torch.linspace(-1, 1, 32).unsqueeze(1)}


def reach(subject, bptt=8):
    return check_gradient_reach(subject, SAMPLES, torch.Generator().manual_seed(0), bptt)


def time_scales(subject, bptt=8):
    return check_time_scales(subject, SAMPLES, torch.Generator().manual_seed(0), bptt)


def test_the_gradient_of_a_known_decay(leaky):
    verdict = reach(leaky(0.5))
    assert verdict.passed and verdict.finding == "the gradient reaches 19 steps back and falls below 1e-6 at 20"
    table = dict(zip(verdict.numbers["k"], verdict.numbers["relative_gradient"], strict=True))
    assert [*table] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    for k in (0, 1, 2, 4, 8, 16, 32):
        assert table[k] == pytest.approx(0.5**k, rel=1e-4)
    assert verdict.numbers["falls_below_1e-6_at"] == 20  # 2^-20 = 0.95e-6


def test_a_reach_that_is_shorter_than_the_sequences_is_no_fault_but_worth_knowing(leaky):
    verdict = reach(leaky(0.5), bptt=64)
    assert verdict.passed is None and "though sequences have 64 steps" in verdict.advice
    assert reach(leaky(0.5), bptt=20).passed  # of 20 steps the first is 19 before the last


@pytest.mark.parametrize("bptt", [32, None])
def test_a_memory_that_keeps_everything_reaches_as_far_as_is_looked(leaky, bptt):
    verdict = reach(leaky(1.0), bptt)
    assert verdict.passed and verdict.finding == "the gradient reaches more than 256 steps back"


def test_a_gradient_that_does_not_pass_is_a_fault_even_where_values_do_not_show_it(leaky):
    subject = leaky(0.0)
    verdict = reach(subject)
    assert verdict.passed is False and verdict.finding.startswith("no gradient reaches 1 step(s) back, and")


def test_outputs_without_a_gradient_are_a_fault(leaky):
    subject = leaky(0.5)
    whole = subject.unroll
    subject.unroll = lambda *args: (whole(*args)[0].detach(), whole(*args)[1])
    assert reach(subject).passed is False


@pytest.mark.parametrize(("decay", "steps"), [(0.5, 2), (0.9, 10)])  # 0.9^9 = 0.387 > 1/e > 0.9^10 = 0.349
def test_the_time_scale_of_a_known_decay(leaky, decay, steps):
    verdict = time_scales(leaky(decay))
    assert verdict.passed is None and verdict.numbers["steps"] == [steps] * 3
    assert f"falls to 1/e within {steps} steps (median" in verdict.finding


def test_a_memory_that_keeps_everything_has_no_time_scale_that_is_seen(leaky):
    verdict = time_scales(leaky(1.0))
    assert "within more than 256 steps" in verdict.finding and not verdict.advice


def test_a_memory_that_fades_fast_gets_advice(leaky):
    assert time_scales(leaky(0.5), bptt=32).advice
    assert not time_scales(leaky(0.9), bptt=32).advice


def test_without_a_memory_nothing_is_judged(leaky):
    subject = leaky(0.5)
    subject.initial_state = lambda rows: {}
    subject.step = lambda inputs, state, starts: (inputs["x"], {})
    assert reach(subject).passed is None and time_scales(subject).passed is None

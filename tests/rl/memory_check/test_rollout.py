"""Checks of a rollout on one made by hand: four steps in two rows, replayed as two sequences of two steps each."""

from types import SimpleNamespace

import pytest
import torch

from rl.memory_check import Replayed
from rl.memory_check.rollout import (
    check_every_step,
    check_gradient_length,
    check_minibatch_order,
    check_replay,
    check_stored_starts,
)

OPENS = torch.tensor([[1, 1], [0, 0], [0, 1], [0, 0]], dtype=torch.bool)


@pytest.fixture
def subject(leaky):
    subject = leaky(0.5)
    subject.bptt, subject.every_step_once = 2, True
    return subject


@pytest.fixture
def trace(subject, make_trace):
    return make_trace(subject, torch.tensor([[1.0, 2.0], [3.0, 5.0], [7.0, 11.0], [13.0, 17.0]]).unsqueeze(-1), OPENS)


@pytest.fixture
def replay(subject, trace):
    """``replay((step, row), ...)``: a minibatch of sequences of two steps that begin there."""

    def make(*begins):
        index = torch.tensor([[(step + k) * 2 + row for step, row in begins] for k in range(2)])
        flat = {name: leaf.flatten(0, 1) for name, leaf in (("x", trace.inputs["x"]), ("s", trace.states["s"]))}
        starts, state = OPENS.flatten()[index], {"s": flat["s"][index[0]]}
        inputs = {"x": flat["x"][index]}
        outputs, _ = subject.unroll(inputs, state, starts)
        return Replayed(index, state, starts, outputs.detach(), torch.ones(2, len(begins)), inputs)

    return make


@pytest.fixture
def epoch(replay):
    return [replay((0, 0), (2, 1)), replay((2, 0), (0, 1))]


def test_a_sound_rollout_passes(subject, trace, epoch):
    verdicts = [check_stored_starts(trace), check_replay(subject, trace, epoch)]
    verdicts += [check_minibatch_order(trace, epoch, epoch[::-1], True)]
    verdicts += [check(subject, trace, epoch) for check in (check_every_step, check_gradient_length)]
    assert all(verdict.passed and not verdict.advice for verdict in verdicts)


@pytest.mark.parametrize(("starts", "late"), [(OPENS.roll(1, 0), True), (OPENS & False, False), (OPENS | True, False)])
def test_starts_that_are_stored_elsewhere(trace, starts, late):
    trace.starts = starts
    verdict = check_stored_starts(trace)
    assert verdict.passed is False and verdict.numbers["late"] is late
    assert verdict.numbers["wrong"] == int((starts != OPENS).sum()) and ("a step late" in verdict.finding) == late


def test_a_ratio_that_is_not_1_is_seen_where_outputs_are_right(subject, trace, epoch):
    epoch[1].ratio[1, 0] = 1.0003
    verdict = check_replay(subject, trace, epoch)
    assert verdict.passed is False and verdict.numbers["ratio_error"] == pytest.approx(3e-4, rel=1e-2)
    assert verdict.numbers["cause"].startswith("the replay computes something else")


def test_a_ratio_within_rounding_passes(subject, trace, epoch):
    epoch[1].ratio[1, 0] = 1.00005
    assert check_replay(subject, trace, epoch).passed


def test_without_a_ratio_outputs_and_states_count(subject, trace, epoch):
    for mb in epoch:
        mb.ratio = None
    assert check_replay(subject, trace, epoch).passed
    epoch[0].outputs = epoch[0].outputs + 0.1
    verdict = check_replay(subject, trace, epoch)
    assert verdict.passed is False and verdict.numbers["ratio_error"] is None


def other_features(mb):
    mb.inputs = {"x": 1.1 * mb.inputs["x"]}


def other_state(mb):
    mb.state = {"s": mb.state["s"] + 1.0}


def fresh_state(mb):
    mb.state = {"s": torch.zeros_like(mb.state["s"])}


def other_starts(mb):
    mb.starts = ~mb.starts


def other_order(mb):
    mb.index = mb.index.flip(0)


@pytest.mark.parametrize(
    ("plant", "cause"),
    [
        (other_features, "the encoder makes other features"),
        (other_state, "sequences begin from other states"),
        (fresh_state, "sequences begin from a fresh state"),
        (other_starts, "starts in the replay are not those"),
        (other_order, "sequences are not in the order of time"),
    ],
)
def test_the_cause_is_told(plant, cause, subject, trace, epoch):
    for mb in epoch:
        mb.outputs = mb.outputs + 0.1
        plant(mb)
    verdict = check_replay(subject, trace, epoch)
    assert verdict.passed is False and verdict.finding.startswith(cause) and verdict.advice


def test_a_state_that_is_cleared_at_once_may_be_anything(subject, trace, replay):
    """Both sequences open an episode."""
    mb = replay((0, 0), (2, 1))
    mb.state = {"s": mb.state["s"] + 7.0}
    assert check_replay(subject, trace, [mb]).passed


def test_states_between_those_that_were_noted_are_not_compared(subject, trace, replay):
    between, noted = replay((1, 0)), replay((2, 0))
    trace.stride, trace.states = 2, {"s": trace.states["s"][::2]}
    assert check_replay(subject, trace, [between, noted]).passed
    between.state = {"s": between.state["s"] + 1.0}
    assert check_replay(subject, trace, [between, noted]).passed
    noted.state = {"s": noted.state["s"] + 1.0}
    assert check_replay(subject, trace, [between, noted]).passed is False


def test_padding_is_left_out(subject, trace, epoch):
    mb = epoch[0]
    mb.index = mb.index.clone()
    mb.index[1, 1] = -1
    mb.outputs = mb.outputs.clone()
    mb.outputs[1, 1], mb.ratio[1, 1] = 99.0, 99.0
    assert check_replay(subject, trace, epoch).passed
    assert check_every_step(subject, trace, epoch).numbers["left_out"] == 1
    assert check_gradient_length(subject, trace, epoch).passed


def test_minibatches_that_depend_on_their_order(trace, epoch, replay):
    other = [replay((0, 0), (2, 1)), replay((2, 0), (0, 1))]
    other[1].outputs = other[1].outputs + 0.1
    assert check_minibatch_order(trace, epoch, other, True).passed is False
    assert check_minibatch_order(trace, epoch, other, False).passed is None


def test_steps_that_come_twice_or_not_at_all(subject, trace, epoch):
    verdict = check_every_step(subject, trace, [epoch[0], epoch[0]])
    assert verdict.passed is False
    assert (verdict.numbers["left_out"], verdict.numbers["twice"], verdict.numbers["steps"]) == (4, 4, 8)
    subject.every_step_once = False
    assert check_every_step(subject, trace, [epoch[0]]).passed is None


def test_sequences_that_are_too_long(subject, trace, epoch):
    subject.bptt = 1
    verdict = check_gradient_length(subject, trace, epoch)
    assert verdict.passed is False and "2 steps, 1 are allowed" in verdict.finding
    subject.bptt = None
    assert check_gradient_length(subject, trace, epoch).passed  # the whole rollout is


def test_a_gradient_of_one_step_is_no_fault_but_told(subject, trace):
    subject.bptt = 1
    one = SimpleNamespace(index=torch.tensor([[0, 1]]), state={})
    verdict = check_gradient_length(subject, trace, [one])
    assert verdict.passed is None and "raise bptt" in verdict.advice


def test_nothing_replayed_is_not_judged(subject, trace):
    assert check_replay(subject, trace, []).passed is None

"""A memory alone: sequences and steps, starts, rows."""

import pytest
import torch

from rl.memory_check.model import check_rows, check_starts, check_unroll, play_steps, warm_state

SAMPLES = {"x": torch.linspace(-1, 1, 32).unsqueeze(1)}
CHECKS = [check_unroll, check_starts, check_rows]


def made(check, subject):
    return check(subject, SAMPLES, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("check", CHECKS)
def test_a_sound_memory_passes(check, leaky):
    verdict = made(check, leaky(0.9))
    assert verdict.passed and not verdict.advice


def test_outputs_alone_that_differ_are_seen(leaky):
    subject = leaky(0.9)
    whole = subject.unroll
    subject.unroll = lambda *args: (1.01 * whole(*args)[0], whole(*args)[1])
    verdict = made(check_unroll, subject)
    assert verdict.passed is False and verdict.numbers["state_difference"] == 0.0 < verdict.numbers["difference"]


def test_a_last_state_alone_that_differs_is_seen(leaky):
    subject = leaky(0.9)
    whole = subject.unroll
    subject.unroll = lambda *args: (whole(*args)[0], {"s": 1.01 * whole(*args)[1]["s"]})
    verdict = made(check_unroll, subject)
    assert verdict.passed is False and verdict.numbers["difference"] < 1e-6 < verdict.numbers["state_difference"]


def test_a_start_that_the_steps_alone_forget_is_seen(leaky):
    """Acting leaks, the replay does not."""
    subject = leaky(0.9)
    whole = subject.step
    subject.unroll = leaky(0.9).unroll
    subject.step = lambda inputs, state, starts: whole(inputs, state, torch.zeros_like(starts))
    verdict = made(check_starts, subject)
    assert verdict.passed is False and "the memory is not cleared" in verdict.finding


def test_a_step_that_comes_two_late_is_told(leaky):
    subject = leaky(0.5)
    whole = subject.unroll

    def late(inputs, state, starts):
        return whole(inputs, state, starts.roll(2, 0))

    subject.unroll = late
    verdict = made(check_starts, subject)
    assert "for 2 step(s), so the memory is cleared too late" in verdict.finding


def test_the_order_of_rows_alone_can_matter(leaky):
    """A row that is told by its place."""
    subject = leaky(0.9)
    whole = subject.step
    subject.step = lambda inputs, state, starts: (
        (1 + torch.arange(len(starts)).unsqueeze(1)) * whole(inputs, state, starts)[0],
        whole(inputs, state, starts)[1],
    )
    verdict = made(check_rows, subject)
    assert verdict.passed is False and verdict.numbers["by_others"] == 0.0 < verdict.numbers["by_order"]


def test_the_other_rows_alone_can_matter(leaky):
    """A sum over the batch does not hang on its order."""
    subject = leaky(0.9)
    whole = subject.step
    subject.step = lambda inputs, state, starts: whole({"x": inputs["x"] + inputs["x"].sum(0)}, state, starts)
    verdict = made(check_rows, subject)
    assert verdict.passed is False and verdict.numbers["by_order"] < 1e-3 < verdict.numbers["by_others"]


def test_steps_are_played_one_by_one(leaky):
    inputs, starts = {"x": torch.tensor([[[1.0]], [[2.0]], [[4.0]]])}, torch.tensor([[False], [False], [True]])
    outputs, state = play_steps(leaky(0.5), inputs, {"s": torch.tensor([[8.0]])}, starts)
    assert outputs.flatten().tolist() == [5.0, 4.5, 4.0] and state["s"].item() == 4.0


def test_a_state_is_warm(leaky):
    state = warm_state(leaky(0.9), SAMPLES, 3, torch.Generator().manual_seed(0))
    assert state["s"].shape == (3, 1) and (state["s"] != 0).all()

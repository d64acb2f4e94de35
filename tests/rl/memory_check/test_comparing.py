"""Differences in standard deviations, by hand, and the sequences that are drawn."""

import pytest
import torch

from rl.memory_check.comparing import (
    add_noise,
    draw_sequences,
    measure_difference,
    measure_state_difference,
    take_rows,
    take_steps,
)


def test_a_difference_is_measured_in_standard_deviations_of_its_column():
    expected = torch.tensor([[0.0, 0.0], [2.0, 200.0]])  # deviations of 1 and 100, and a thousandth of 2 and 200
    assert measure_difference(expected + torch.tensor([0.3, 3.0]), expected) == pytest.approx(0.3 / 1.002)
    assert measure_difference(expected + torch.tensor([0.03, 5.0]), expected) == pytest.approx(5.0 / 100.2)
    assert measure_difference(expected, expected) == 0.0


def test_a_column_that_never_varies_counts_with_its_size():
    expected = torch.full((3, 1), 5.0)
    assert measure_difference(expected + 0.01, expected) == pytest.approx(2.0, rel=1e-4)


def test_what_a_mask_forbids_is_equal_and_hides_no_difference():
    expected = torch.tensor([[-1e9, 0.0], [1.0, 1.0]])
    assert measure_difference(torch.tensor([[-1e9 + 64, 0.0], [1.0, 1.0]]), expected) == 0.0
    assert measure_difference(torch.tensor([[-1e9, 0.0], [1.5, 1.0]]), expected) > 0.9
    assert measure_difference(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), expected) > 1e6


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_is_infinitely_off(wrong):
    assert measure_difference(torch.tensor([[wrong], [0.0]]), torch.tensor([[1.0], [0.0]])) == float("inf")


def test_nothing_differs_in_nothing():
    assert measure_difference(torch.zeros(0, 3), torch.zeros(0, 3)) == 0.0
    assert measure_state_difference({}, {}) == 0.0


def test_states_differ_by_their_worst_leaf():
    one = {"a": torch.tensor([[1.0], [-1.0]]), "b": torch.tensor([[10.0], [-10.0]])}
    swapped = {"a": one["b"], "b": one["a"]}
    assert measure_state_difference(one, one) == 0.0
    assert measure_state_difference(swapped, one) == pytest.approx(9.0, rel=1e-2)
    assert measure_state_difference({"a": one["a"]}, one) == float("inf")


def test_sequences_are_samples_with_noise():
    samples = {"x": torch.tensor([[0.0], [100.0]]), "mask": torch.tensor([[True], [False]])}
    drawn = draw_sequences(samples, 50, 4, torch.Generator().manual_seed(0))
    assert drawn["x"].shape == drawn["mask"].shape == (50, 4, 1)
    low = drawn["x"] < 50
    assert (drawn["mask"] == low).all()  # leaves are drawn together, and what is no float has no noise
    assert 3 < float((drawn["x"] - 100.0 * ~low).std()) < 7  # a tenth of 50
    again = draw_sequences(samples, 50, 4, torch.Generator().manual_seed(0))
    assert torch.equal(drawn["x"], again["x"])


def test_a_leaf_that_never_varies_gets_noise_of_one():
    noisy = add_noise({"x": torch.zeros(1000), "n": torch.zeros(3, dtype=torch.int64)}, 0.5, torch.Generator())
    assert 0.45 < float(noisy["x"].std()) < 0.55 and noisy["n"].dtype == torch.int64


def test_steps_and_rows_are_taken():
    leaves = {"x": torch.arange(6).view(3, 2)}
    assert take_steps(leaves, slice(1, 3))["x"].tolist() == [[2, 3], [4, 5]]
    assert take_rows(leaves, torch.tensor([1, 0]), 1)["x"].tolist() == [[1, 0], [3, 2], [5, 4]]

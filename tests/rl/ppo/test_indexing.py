"""Which entries of a rollout are read, by numbers worked out by hand."""

import torch

from rl.ppo.indexing import close_gaps, gather

IGNORED = torch.tensor([[0, 1], [1, 0], [0, 0], [0, 1]], dtype=torch.bool)  # [T, B]: three steps count, and two
VALUES = torch.tensor([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0], [3.0, 13.0]])


def test_entries_are_named_by_step_and_environment():
    data = torch.arange(24).view(3, 2, 4)  # [T, B, F]
    found = gather(data, torch.tensor([[1, 4], [3, 0]]))  # environment 1 of step 0, environment 0 of step 2, ...
    assert torch.equal(found[0], torch.stack([data[0, 1], data[2, 0]]))
    assert torch.equal(found[1], torch.stack([data[1, 1], data[0, 0]]))


def test_steps_that_count_move_up_in_their_order():
    steps, _ = close_gaps(IGNORED, VALUES, torch.tensor([4.0, 14.0]), 2)
    assert steps.tolist() == [[0, 1], [2, 2]]


def test_the_value_after_the_end_is_that_of_the_first_step_that_is_dropped():
    """Environment 0 loses its third step, whose V is 3; environment 1 has two steps, after which the rollout ended."""
    _, after = close_gaps(IGNORED, VALUES, torch.tensor([4.0, 14.0]), 2)
    assert after.tolist() == [3.0, 14.0]


def test_without_gaps_all_stays():
    steps, after = close_gaps(torch.zeros(4, 2, dtype=torch.bool), VALUES, torch.tensor([4.0, 14.0]), 4)
    assert steps.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]] and after.tolist() == [4.0, 14.0]

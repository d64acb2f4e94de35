"""``rl.networks.recall``; ``tests/rl/ppo/test_wiring.py`` holds it against a slow reference inside whole updates."""

import pytest
import torch

from rl.networks.recall import Recall


@pytest.fixture
def plain():
    """A recall over 5 steps that tells 0.5 for each of its distances 1, 2 and 4, and 2 features."""
    recall = Recall(3, 2, length=5, layer_size=4)
    torch.nn.init.zeros_(recall.heads.weight)
    torch.nn.init.constant_(recall.heads.bias, 0.5)
    return recall


@pytest.mark.parametrize(
    ("length", "distances"), [(2, [1]), (3, [1, 2]), (4, [1, 2]), (5, [1, 2, 4]), (8, [1, 2, 4]), (9, [1, 2, 4, 8])]
)
def test_distances_are_shorter_than_sequences(length, distances):
    recall = Recall(3, 2, length, 4)
    assert recall.distances == distances
    assert recall.heads.out_features == 2 * len(distances)


def test_errors_worked_out_by_hand(plain):
    """One sequence is fed (0, 0), (1, 1), (2, 2), ...: telling 0.5 is wrong by 0.25, 0.25, 2.25, 6.25, ..."""
    fed = torch.arange(5.0).view(5, 1, 1).expand(5, 1, 2)
    starts = torch.zeros(5, 1, dtype=torch.bool)
    errors = plain(torch.zeros(5, 1, 3), fed, starts).squeeze(1)
    by_distance = [[0, 0.25, 0.25, 2.25, 6.25], [0, 0, 0.25, 0.25, 2.25], [0, 0, 0, 0, 0.25]]
    assert errors.tolist() == pytest.approx([sum(column) / 3 for column in zip(*by_distance, strict=True)])


def test_nothing_is_asked_for_across_a_start(plain):
    fed = torch.full((5, 2, 2), 1.5)
    starts = torch.zeros(5, 2, dtype=torch.bool)
    starts[3, 1] = True
    errors = plain(torch.zeros(5, 2, 3), fed, starts) * 3
    assert errors[:, 0].tolist() == pytest.approx([0, 1, 2, 2, 3])
    assert errors[:, 1].tolist() == pytest.approx([0, 1, 2, 0, 1])


def test_shorter_sequences_have_fewer_distances(plain):
    fed, starts = torch.full((2, 1, 2), 1.5), torch.zeros(2, 1, dtype=torch.bool)
    assert (plain(torch.zeros(2, 1, 3), fed, starts) * 3).squeeze(1).tolist() == pytest.approx([0, 1])
    assert plain(torch.zeros(1, 1, 3), fed[:1], starts[:1]).tolist() == [[0]]


def test_the_gradient_goes_into_the_memory_and_not_into_what_is_to_be_told():
    torch.manual_seed(0)
    recall = Recall(3, 2, length=5, layer_size=4)
    remembered, fed = torch.randn(5, 1, 3, requires_grad=True), torch.randn(5, 1, 2, requires_grad=True)
    recall(remembered, fed, torch.zeros(5, 1, dtype=torch.bool)).sum().backward()
    assert fed.grad is None
    assert not remembered.grad[0].any() and remembered.grad[1:].any(dim=-1).all()


def test_it_learns_to_tell_what_a_memory_holds():
    """A memory that puts out its input of four steps before: that distance comes to nothing, the others stay noise."""
    torch.manual_seed(0)
    recall = Recall(2, 2, length=5, layer_size=32)
    optimizer = torch.optim.Adam(recall.parameters(), lr=0.01)
    starts = torch.zeros(36, 8, dtype=torch.bool)
    for _ in range(300):
        fed = torch.randint(2, (40, 8, 2)).float()
        error = recall(fed[:-4], fed[4:], starts)
        optimizer.zero_grad()
        error.mean().backward()
        optimizer.step()
    of_noise = 0.25 * 2 / 3  # the variance of a bit, at distances 1 and 2
    assert error[4:].mean().item() == pytest.approx(of_noise, abs=0.03)


def test_sequences_of_one_step_are_refused():
    with pytest.raises(ValueError, match="recall_coef needs sequences of at least 2 steps"):
        Recall(3, 2, length=1, layer_size=4)

"""``recall_coef``: a network with a recall, and one without, are the same to all but the loss."""

import pytest
import torch
from gymnasium import spaces

OBS, FOUR = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(4)


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.1), (0.1, 0.0), (0.1, 0.2)])
def test_a_network_is_taken_without_its_recall(first, second, make_agent, tmp_path):
    """Whether there is one depends on how an agent is trained, not on what it does."""
    one, other = (make_agent((OBS, FOUR), seed=seed, recall_coef=coef) for seed, coef in ((4, first), (5, second)))
    one.save(tmp_path / "one.pt")
    before = {name: leaf.clone() for name, leaf in other.network.state_dict().items()}
    other.load_network(tmp_path / "one.pt")
    after, theirs = other.network.state_dict(), one.network.state_dict()
    assert after.keys() == before.keys()
    for name, leaf in after.items():
        assert torch.equal(leaf, (before if name.startswith("recall.") else theirs)[name]), name


def test_recall_spans_the_sequences(make_agent):
    assert make_agent((OBS, FOUR)).network.recall is None
    options = {"num_envs": 2, "num_steps": 12, "num_minibatches": 1, "recall_coef": 0.1}
    assert make_agent((OBS, FOUR), **options, bptt=6).network.recall.distances == [1, 2, 4]
    assert make_agent((OBS, FOUR), **options, bptt=None).network.recall.distances == [1, 2, 4, 8]

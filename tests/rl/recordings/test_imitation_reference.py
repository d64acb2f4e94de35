"""Every hyperparameter of an imitation changes the weights as the same thing in plain PyTorch and float64 says."""

from functools import partial

import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.recordings import ImitationTrainer

BASE = {"epochs": 3, "streams": 2, "window_size": 4, "held_out": 0.4, "learning_rate": 0.01, "max_grad_norm": 1e3}
VARIATIONS = {
    "base": {},
    "epochs": {"epochs": 2},
    "streams": {"streams": 3},
    "window_size": {"window_size": 3},
    "bptt": {"bptt": 2},
    "bptt_in_a_window_it_does_not_divide": {"bptt": 3},
    "piece_steps": {"piece_steps": 3},
    "burn_in": {"piece_steps": 3, "burn_in": 2},
    "burn_in_and_bptt": {"piece_steps": 4, "burn_in": 3, "bptt": 2, "window_size": 5},
    "learning_rate": {"learning_rate": 0.02},
    "learning_rate_schedule": {"learning_rate_schedule": "cosine"},
    "learning_rate_final": {"learning_rate_final": 0.005},
    "learning_rate_warmup": {"learning_rate_warmup": 0.5},
    "max_grad_norm": {"max_grad_norm": 0.02},
    "held_out": {"held_out": 0.2},
    "split": {"split": "time"},
    "seed": {"seed": 5},
}
AGENT = {"previous_action_reward": True, "core": cores.gru}


@pytest.fixture
def make(make_imitator):
    return partial(make_imitator, spaces.MultiDiscrete([2, 3]), agent_options=AGENT)


def difference(one, other):
    """The largest between two lists of weights."""
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", VARIATIONS)
def test_the_weights_are_those_of_a_slow_imitation(make, slow_imitation, name):
    imitator = make(**BASE | VARIATIONS[name])
    slow = slow_imitation(imitator)
    before = [parameter.detach().clone() for parameter in imitator.parameters]
    for number in range(imitator.hyperparameters.epochs):
        norm = imitator.epoch(number)["grad_norm"]
        slow.epoch(number)
        assert norm > (0.05 if name == "max_grad_norm" else 0.0)  # it is clipped, and reported unclipped
    assert difference(before, imitator.parameters) > 0.01
    assert difference(slow.parameters, imitator.parameters) < 2e-5
    assert imitator.measure()["imitation/held_out_nll"] == pytest.approx(slow.held_out_nll(), abs=1e-5)
    if name != "base":
        other = make(**BASE)
        for number in range(other.hyperparameters.epochs):
            other.epoch(number)
        assert difference(other.parameters, imitator.parameters) > 1e-3  # or the comparison could not tell


@pytest.mark.parametrize("keep_best", [True, False])
def test_the_weights_that_are_kept_are_those_of_a_slow_imitation(make, slow_imitation, notebook, tmp_path, keep_best):
    """On random actions a high learning rate soon makes it worse."""
    options = BASE | {"epochs": 5, "learning_rate": 0.03, "learning_rate_schedule": "constant", "max_grad_norm": 0.5}
    imitator = make(keep_best=keep_best, **options)
    kept, best = slow_imitation(imitator).train()
    trainer = ImitationTrainer(imitator, tmp_path)
    assert trainer.train(notebook)
    assert trainer.best_epoch == best
    assert (best < 5) == keep_best
    assert difference(kept, imitator.parameters) < 1e-4
    assert isinstance(kept[0], torch.Tensor)

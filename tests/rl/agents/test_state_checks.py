"""What of an agent may go into a checkpoint, and what may come back from one."""

import copy
import math

import pytest
import torch
from torch import nn

from envs.probes import Counter
from rl.agents.state_checks import check_finite

EVERYTHING = {"normalise_observations": True, "normalise_returns": True}


@pytest.fixture
def make(make_agent, learner):
    """A learner of either kind, with everything that can be ruined."""
    return lambda seed=0, num_envs=2: make_agent(Counter(2, 7), learner, num_envs=num_envs, seed=seed, **EVERYTHING)


@pytest.fixture
def trained(make, train_batched):
    agent = make()
    train_batched(agent, Counter(2, 7), 2)
    return agent


def tensors_of(agent):
    """A tensor of each kind that is stored, by the name that the sentence gives it."""
    (vector,) = agent.optimizer.param_groups[0]["params"]
    moments = agent.optimizer.state[vector]
    found = {
        "network.": next(agent.network.parameters()),
        "optimizer.state.0.exp_avg": moments["exp_avg"],
        "optimizer.state.0.exp_avg_sq": moments["exp_avg_sq"],
        "network.trunk.encoder.parts.0.moments.var": next(b for n, b in agent.network.named_buffers() if "var" in n),
        "memories.state.h": agent.actor.state["h"],
        "return_scale.moments.var": agent.return_scale.moments.var,
    }
    if hasattr(agent, "target"):
        found["target."] = next(agent.target.parameters())
    return found


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_not_finite_is_not_saved(trained, tmp_path, number):
    """Each of the tensors in turn; the file of before stands."""
    trained.save(tmp_path / "a.pt")
    before = (tmp_path / "a.pt").read_bytes()
    for name, tensor in tensors_of(trained).items():
        good = tensor.detach().clone()
        with torch.inference_mode():
            tensor.view(-1)[0] = number
        with pytest.raises(FloatingPointError, match="holds a number that is not finite") as refused:
            trained.save(tmp_path / "a.pt")
        assert str(refused.value).startswith("agent." + name.partition(".")[0])
        with torch.inference_mode():
            tensor.copy_(good)
    assert (tmp_path / "a.pt").read_bytes() == before
    trained.save(tmp_path / "a.pt")


def test_weights_are_not_saved_whose_outputs_are_not_finite(trained):
    """They are finite themselves, but nothing could be learned with them."""
    with torch.no_grad():
        for parameter in trained.network.parameters():
            parameter.fill_(1e30)
    with pytest.raises(FloatingPointError, match="its outputs are not finite"):
        trained.state_dict()


def test_a_constant_of_a_network_may_hold_what_it_wants(trained):
    """A mask of minus infinity, say."""
    network = nn.Module()
    network.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    network.weight = nn.Parameter(torch.zeros(1))
    state = {"network": network.state_dict(), "memories": {"state": [torch.zeros(2)]}}
    check_finite(state, network)
    state["memories"]["state"][0][1] = math.nan
    with pytest.raises(FloatingPointError, match=r"^agent\.memories\.state\.0 holds"):
        check_finite(state, network)


WRONG = {
    ("num_envs",): "x",
    ("updates",): -1,
    ("epsilon",): None,
    ("optimizer",): [],
    ("optimizer", "state"): {},
    ("optimizer", "state", 0, "exp_avg"): torch.zeros(3),
    ("optimizer", "param_groups"): 3,
    ("generators",): None,
    ("generators", 0): torch.zeros(5056, dtype=torch.uint8),
    ("generators", 1): torch.zeros(7),
    ("memories",): [],
    ("memories", "starts"): torch.zeros(2),
    ("memories", "state", "h"): None,
    ("return_scale", "running"): "x",
    ("return_scale", "moments.var"): torch.tensor(math.inf),
}


@pytest.mark.parametrize("place", WRONG, ids=lambda place: ".".join(map(str, place)))
def test_a_wrong_entry_is_named_and_nothing_is_changed(trained, make, assert_same, place):
    victim, twin = make(seed=5), make(seed=5)
    state = copy.deepcopy(trained.state_dict())
    part = state
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = WRONG[place]
    with pytest.raises(ValueError, match=rf"agent\.{place[0]}"):
        victim.load_state_dict(state)
    assert_same(victim, twin)
    if isinstance(part, dict):
        del part[place[-1]]
        with pytest.raises(ValueError, match=rf"{place[0]}"):
            victim.load_state_dict(state)
        assert_same(victim, twin)


def test_the_number_of_environments_must_be_that_of_the_memories(trained, make):
    """Else they would be dropped in silence."""
    with pytest.raises(ValueError, match=r"agent\.memories\.starts .* must be a tensor bool \[3\]"):
        make().load_state_dict(trained.state_dict() | {"num_envs": 3})


def test_a_generator_of_another_device_is_left_alone(trained, make):
    """A run of a GPU can be played on the CPU."""
    state, other = trained.state_dict(), make(seed=3)
    before = other.actor.generator.get_state()
    state["generators"][1] = torch.zeros(16, dtype=torch.uint8)
    other.load_state_dict(state)
    assert torch.equal(other.actor.generator.get_state(), before)
    assert torch.equal(other.shuffle.get_state(), state["generators"][0])


def test_a_part_of_the_user_stays_in_the_mode_that_it_is_in(trained):
    """Such as one that is never to be in training."""
    part = next(trained.network.children()).eval()
    trained.state_dict()
    assert trained.network.training and not part.training

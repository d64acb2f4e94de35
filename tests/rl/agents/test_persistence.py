"""What a checkpoint must hold of an agent."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rl.agents.persistence import check_agent_state, name_differences
from rl.normalisation import ReturnScale

ENTRIES = ("network", "env_steps", "return_scale")


@pytest.fixture
def network():
    return nn.Linear(2, 3)


@pytest.fixture
def agent_with(network):
    """What is asked of an agent: its network, its scale of the returns, what constructed it."""

    def make(scale=None, construction=None):
        return SimpleNamespace(network=network, return_scale=scale, construction=construction)

    return make


@pytest.fixture
def state(network):
    """A state that fits the network, of an agent that does not scale returns."""
    return {"network": network.state_dict(), "env_steps": 5, "return_scale": None}


def test_a_state_that_fits_passes_and_may_hold_more(agent_with, state):
    check_agent_state(state, ENTRIES, agent_with())
    check_agent_state(state | {"teacher": {}}, ENTRIES, agent_with())
    check_agent_state(state | {"return_scale": {}}, ENTRIES, agent_with(ReturnScale(1)))


@pytest.mark.parametrize("content", [3, [1], None, "agent"])
def test_something_else_in_place_of_an_agent_is_refused(agent_with, content):
    with pytest.raises(ValueError, match=f"the checkpoint holds {type(content).__name__} where an agent should be"):
        check_agent_state(content, ENTRIES, agent_with())


def test_missing_entries_are_named(agent_with, state):
    del state["return_scale"], state["env_steps"]
    with pytest.raises(ValueError, match=r"no entry env_steps, return_scale$"):
        check_agent_state(state, ENTRIES, agent_with())


@pytest.mark.parametrize(("stored", "scales"), [(None, True), ({}, False)])
def test_another_setting_of_the_scale_of_returns_is_refused(agent_with, state, stored, scales):
    """But it does not matter where that scale is not taken over."""
    state["return_scale"], agent = stored, agent_with(ReturnScale(1) if scales else None)
    with pytest.raises(ValueError, match="the checkpoint was written with another setting of normalise_returns"):
        check_agent_state(state, ENTRIES, agent)
    check_agent_state(state, ("network",), agent)


def test_another_network_is_refused(agent_with, state):
    state["network"] = nn.Linear(2, 4).state_dict()
    with pytest.raises(ValueError, match="the checkpoint is of another network: of another shape is bias, weight"):
        check_agent_state(state, ENTRIES, agent_with())
    state["network"] = nn.Linear(2, 3, bias=False).state_dict()
    with pytest.raises(ValueError, match="the checkpoint is of another network: it lacks bias"):
        check_agent_state(state, ENTRIES, agent_with())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, ""),
        ({"a": torch.ones(2)}, ""),  # other numbers are no difference
        ({"a": None}, "it lacks a"),
        ({"d": torch.zeros(1), "c": torch.zeros(1)}, "it has besides c, d"),
        ({"a": torch.zeros(3)}, "of another shape is a"),
        ({"a": torch.zeros(2, 1)}, "of another shape is a"),
        ({"a": None, "b": torch.zeros(3), "c": torch.zeros(1)}, "it lacks a; it has besides c; of another shape is b"),
        ({name: torch.zeros(1) for name in "hgfedc"}, "it has besides c, d, e"),  # three are enough
    ],
    ids=str,
)
def test_differences_are_named_in_a_few_words(changes, sentence):
    own = {"a": torch.zeros(2), "b": torch.zeros(2)}
    other = {name: value for name, value in (own | changes).items() if value is not None}
    assert name_differences(own, other) == sentence

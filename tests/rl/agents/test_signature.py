"""Signatures that show every keyword, those that a constructor passes on included."""

import inspect
from typing import get_type_hints

import pytest

from rl.agents import DualHeadRecurrentPPO, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM
from rl.agents.client_options import QuantileOptions
from rl.agents.recurrent_ppo_options import RecurrentPPOOptions
from rl.agents.signature import forwarded_signature
from rl.iqn import IQN
from rl.ppo import PPO

POSITIONAL = ["observation_space", "action_space", "layer_size", "epsilon", "epsilon_min", "device", "seed"]


def outer(self, a, b=1, *, c=2, **options):
    """Pass its options on to ``inner``."""


def inner(self, b=7, d=8, *, e, **more):
    """Pass its options on, too."""


def test_keywords_that_are_passed_on_stand_in_the_signature():
    """Once each, as the first function has them; what others have is given by keyword only."""
    parameters = forwarded_signature(outer, inner).parameters
    assert list(parameters) == ["a", "b", "c", "d", "e"]
    assert [parameters[name].default for name in "abcde"] == [inspect.Parameter.empty, 1, 2, 8, inspect.Parameter.empty]
    kinds = [parameters[name].kind.name for name in "abcde"]
    assert kinds == ["POSITIONAL_OR_KEYWORD"] * 2 + ["KEYWORD_ONLY"] * 3


def test_the_positional_parameters_stand_first_whatever_the_order():
    def first(*, x, **options):
        pass

    def second(y, **options):
        pass

    assert str(forwarded_signature(first, second)) == "(*, x, y)"
    assert str(forwarded_signature(second, first)) == "(y, *, x)"


@pytest.mark.parametrize("kind", [RecurrentPPO, DualHeadRecurrentPPO, RecurrentPPOLSTM, RecurrentIQN])
def test_the_signature_of_an_agent_shows_every_option(kind):
    names = list(inspect.signature(kind).parameters)
    algorithm = IQN if kind is RecurrentIQN else PPO
    assert names[:7] == POSITIONAL
    assert {"core", "num_steps", "normalise_returns", *inspect.signature(algorithm).parameters} <= set(names)
    assert not {"self", "options", "update"} & set(names)


def test_an_agent_shows_its_own_defaults():
    defaults = {kind: inspect.signature(kind).parameters for kind in (RecurrentPPO, RecurrentPPOLSTM, RecurrentIQN)}
    assert defaults[RecurrentPPO]["core"].default.__name__ == "gru"
    assert defaults[RecurrentPPOLSTM]["core"].default.__name__ == "lstm"
    assert (defaults[RecurrentPPO]["epsilon"].default, defaults[RecurrentIQN]["epsilon"].default) == (0.0, 1.0)
    assert defaults[RecurrentPPOLSTM]["epochs"].default == PPO().epochs


def test_a_subclass_with_an_algorithm_of_its_own_shows_the_options_of_that():
    class Other(PPO):
        def __init__(self, curiosity=0.5, **options):
            super().__init__(**options)

    class Curious(RecurrentPPO):
        algorithm = Other

    parameters = inspect.signature(Curious).parameters
    assert parameters["curiosity"].default == 0.5
    assert list(parameters)[:7] == POSITIONAL
    assert "gamma" not in parameters  # what Other passes on is not followed


@pytest.mark.parametrize(("kind", "options"), [(RecurrentPPO, RecurrentPPOOptions)])
def test_the_options_for_type_checkers_are_those_of_the_constructor(kind, options):
    keywords = {name for name in inspect.signature(kind).parameters if name not in (*POSITIONAL, "core")}
    assert set(get_type_hints(options)) == keywords


def test_the_options_of_a_quantile_network_hold_all_of_its_update():
    assert set(inspect.signature(IQN).parameters) <= set(get_type_hints(QuantileOptions))

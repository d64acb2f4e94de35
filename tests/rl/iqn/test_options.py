"""What agents may pass on to IQN."""

from dataclasses import fields
from typing import get_type_hints

from rl.iqn import IQN
from rl.iqn.options import IQNOptions


def test_options_are_the_fields_of_the_update_by_name_and_type():
    types = get_type_hints(IQN)
    assert get_type_hints(IQNOptions) == {field.name: types[field.name] for field in fields(IQN)}


def test_every_option_may_be_left_out():
    assert IQNOptions.__optional_keys__ == {field.name for field in fields(IQN)}

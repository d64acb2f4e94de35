"""States of any form become flat leaves and come back."""

from typing import NamedTuple

import pytest
import torch

from rl.memory_check.nesting import describe, flatten, rebuild


class Pair(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor


def test_what_is_nested_comes_back_as_it_was():
    first, second, third = (torch.full((2, n), float(n)) for n in (1, 2, 3))
    tree = [{"actor": Pair(first, second)}, third]
    leaves = flatten(tree, "state")
    assert [*leaves] == ["0.actor.0", "0.actor.1", "1"]
    (inner, last) = rebuild(tree, iter([leaf + 1 for leaf in leaves.values()]))
    assert isinstance(inner["actor"], Pair) and torch.equal(inner["actor"].other, second + 1)
    assert torch.equal(last, third + 1)


def test_a_single_tensor_has_the_name_of_what_it_is():
    assert [*flatten(torch.zeros(2), "state")] == ["state"]
    assert flatten((), "state") == {} and rebuild((), iter([])) == ()


def test_anything_else_is_refused():
    with pytest.raises(ValueError, match=r"output=3 at 1.a: it must be a tensor, or tuples, lists or dicts of tensors"):
        flatten((torch.zeros(2), {"a": 3}), "output")


def test_shapes_are_described():
    tree = ({"a": torch.zeros(2, 3)}, [torch.zeros(1), None])
    assert describe(tree) == "({a: [2, 3]}, ([1], NoneType))"

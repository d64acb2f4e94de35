"""Damage: different bytes each time, the same for the same seed, and entries of every kind."""

from random import Random

import numpy as np
import pytest
import torch

from experiments.reliability.damages import DAMAGES, ENTRIES, damage_bytes, edit_entry

DATA = bytes(range(1, 200))


def test_bytes_are_always_changed_and_reproducible():
    found = [damage_bytes(DATA, Random(seed)) for seed in range(200)]
    assert all(changed != DATA for changed, _ in found)
    assert len({words for _, words in found}) == len(set(DAMAGES))
    assert found[:5] == [damage_bytes(DATA, Random(seed)) for seed in range(5)]
    single = [changed for changed, words in found if words == "flip one bit"]
    assert all(sum((a ^ b).bit_count() for a, b in zip(DATA, other, strict=True)) == 1 for other in single)


def content():
    return {"agent": {"weights": torch.ones(2, 3), "steps": 5}, "kept": 1, "name": None, "array": np.arange(3)}


@pytest.mark.parametrize("way", ENTRIES)
def test_an_entry_is_changed(way):
    for seed in range(20):
        edited = content()
        words = edit_entry(edited, Random(seed), optional=("kept",), ways=(way,))
        assert words.startswith("entry ") and "kept" not in words
        assert edited["kept"] == 1
        assert str(edited) != str(content()), words


def test_arrays_are_spoiled():
    for way, check in (
        ("not finite", lambda leaf: bool(leaf.isnan().any()) and leaf.shape == (2, 3)),
        ("reshaped", lambda leaf: leaf.shape == (6,)),
    ):
        edited = {"weights": torch.ones(2, 3)}
        assert edit_entry(edited, Random(0), (), (way,)) == f"entry weights is {way}"
        assert check(edited["weights"])


def test_entries_can_be_chosen():
    edited = content()
    edit_entry(edited, Random(0), (), ("removed",), keys=("kept",))
    assert "kept" not in edited and len(edited) == 3

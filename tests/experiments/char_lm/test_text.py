"""Reading, splitting, encoding and cutting a text."""

from itertools import islice
from pydoc_data.topics import topics

import pytest
import torch

from experiments.char_lm.text import (
    Alphabet,
    cut_streams,
    cut_streams_forever,
    draw_windows_forever,
    make_streams,
    read_text,
    split_text,
)
from experiments.launch.check import ConfigError


def test_the_text_that_ships_with_python():
    text = read_text(None)
    first, second = sorted(topics)[:2]
    assert text.startswith(f"{topics[first]}\n{topics[second]}")
    assert len(text) == sum(map(len, topics.values())) + len(topics) - 1


def test_nine_tenths_are_learned_from():
    assert split_text("abcdefghijklmnopqrst", 1, 2) == ("abcdefghijklmnopqr", "st")
    assert split_text("abcdefghijklmnopqrst", 1, 17) == ("abcdefghijklmnopqr", "st")
    with pytest.raises(ConfigError, match="the text has 20 characters"):
        split_text("abcdefghijklmnopqrst", 1, 18)
    with pytest.raises(ConfigError, match="the text has 10 characters"):
        split_text("abcdefghij", 1, 2)  # one character held out: nothing to predict


@pytest.mark.parametrize(("total", "number"), [(13, 3), (14, 3), (15, 3), (16, 3), (2, 1), (9, 8)])
def test_streams_cover_the_text_in_order_without_overlap(total, number):
    """Every place but the first is predicted once, from the place before it; fewer than ``number`` are left over."""
    columns = make_streams(torch.arange(total), number)
    length = (total - 1) // number
    assert columns.shape == (length + 1, number)
    assert columns[1:].t().flatten().tolist() == list(range(1, length * number + 1))
    assert columns[:-1].t().flatten().tolist() == list(range(length * number))
    assert 0 <= total - 1 - length * number < number


@pytest.mark.parametrize("length", [1, 4, 5, 10, 50])
def test_blocks_of_one_pass(length):
    """Three streams of ten: joined, the blocks are the streams; memories start at the first step of a stream only."""
    blocks = list(cut_streams(torch.arange(31), 3, length))
    assert [len(block.symbols) for block in blocks[:-1]] == [length] * (len(blocks) - 1)
    symbols, targets, starts = (
        torch.cat([getattr(block, name) for block in blocks]) for name in ("symbols", "targets", "starts")
    )
    assert symbols.t().flatten().tolist() == list(range(30))
    assert (targets - symbols).unique().tolist() == [1]
    assert starts[0].all() and not starts[1:].any()


def test_a_block_without_carry_starts_from_nothing():
    for block in cut_streams(torch.arange(31), 3, 4, carry=False):
        assert block.starts[0].all() and not block.starts[1:].any()


def test_starts_where_streams_restart():
    """Three blocks a pass: the fourth is the first one again, and it starts."""
    blocks = list(islice(cut_streams_forever(torch.arange(31), 3, 4), 7))
    assert [bool(block.starts.any()) for block in blocks] == [True, False, False, True, False, False, True]
    assert blocks[3].symbols.equal(blocks[0].symbols) and blocks[0].starts[0].all()


def test_random_blocks():
    """Windows of the text with targets one further; every place occurs, the same seed draws the same."""

    def draw(seed):
        return list(islice(draw_windows_forever(torch.arange(10), 5, 4, torch.Generator().manual_seed(seed)), 40))

    blocks = draw(0)
    for block in blocks:
        assert block.symbols.shape == block.targets.shape == block.starts.shape == (4, 5)
        assert (block.symbols.diff(dim=0) == 1).all() and (block.targets - block.symbols == 1).all()
        assert block.starts[0].all() and not block.starts[1:].any()
    assert torch.cat([block.targets.flatten() for block in blocks]).unique().tolist() == list(range(1, 10))
    assert torch.cat([block.symbols[0] for block in blocks]).unique().tolist() == list(range(6))
    assert all(one.symbols.equal(two.symbols) for one, two in zip(blocks, draw(0), strict=True))
    assert not all(one.symbols.equal(two.symbols) for one, two in zip(blocks, draw(1), strict=True))


def test_alphabet():
    alphabet = Alphabet("abc")
    assert alphabet.encode("cab").tolist() == [2, 0, 1]
    assert alphabet.decode(torch.tensor([2, 0, 1])) == "cab"
    with pytest.raises(ValueError, match=r"^the prompt has 'x', which is not among the 3 characters of the model$"):
        alphabet.encode("axb", "the prompt")

import numpy as np
import pytest
import torch

from rl.sizes import describe_sizes, in_words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (12_345, "12.3 kB"),
        (4_000_000, "4 MB"),
        (7.5e12, "7.5e+03 GB"),
    ],
)
def test_bytes_in_words(size, words):
    assert in_words(size) == words


def test_the_largest_come_first_and_all_count():
    tensors = {
        "a": torch.zeros(2, 3),
        "b": np.zeros(10, bool),
        "c": torch.zeros(5, dtype=torch.int64),
        "d": torch.zeros(1),
    }
    assert describe_sizes("all", {"state": tensors, "": {"e": torch.zeros(20)}}) == (
        "all: 158 bytes (e 80 bytes, state 'c' 40 bytes, state 'a' 24 bytes)"
    )

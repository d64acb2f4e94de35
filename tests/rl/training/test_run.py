"""A run: where its checkpoint lies, and when an interval is full."""

from pathlib import Path

import pytest

from rl.training.run import checkpoint_path, crossed, make_later_seed


def test_the_latest_state_lies_in_the_run_folder():
    for folder in ("runs/a", Path("runs/a")):
        assert checkpoint_path(folder) == Path("runs/a/checkpoints/last.pt")


@pytest.mark.parametrize(
    ("interval", "before", "after", "expected"),
    [
        (None, 0, 100, False),
        (10, 0, 9, False),
        (10, 0, 10, True),
        (10, 10, 19, False),
        (10, 10, 20, True),
        (10, 5, 35, True),
    ],
)
def test_multiples_are_crossed(interval, before, after, expected):
    assert crossed(interval, before, after) is expected


def test_later_episodes_have_seeds_of_their_own():
    seeds = [make_later_seed(7, steps) for steps in (0, 100, 200)] + [make_later_seed(8, 100)]
    assert seeds[0] == 7 and len(set(seeds)) == 4 and all(0 <= seed < 2**31 for seed in seeds)
    assert make_later_seed(7, 100) == seeds[1]
    assert make_later_seed(None, 100) is None

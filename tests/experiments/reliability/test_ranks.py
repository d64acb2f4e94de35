"""Kills of ranks, as the reliability suite tries them."""

import signal
from types import SimpleNamespace

import pytest

from experiments.reliability import ranks
from experiments.reliability.judge import Fault
from experiments.reliability.processes import Ended


def test_tries_are_drawn_from_their_seed():
    one, again, other = (ranks.list_tries(40, seed) for seed in (1, 1, 2))
    assert [tried.label for tried in one] == [tried.label for tried in again] != [tried.label for tried in other]
    kills = [tried.run.keywords["kills"] for tried in one]
    assert {killed for (_, killed, _), *_ in kills} == {(0,), (1,), (0, 1)}
    assert {len(each) for each in kills} == {1, 2}
    assert {tried.run.keywords["name"] for tried in one} == set(ranks.NAMES)
    assert {tried.run.keywords["last"] for tried in one} == {1, 2}


@pytest.mark.parametrize(
    ("code", "err", "good"),
    [
        (0, "", True),
        (1, "train, rank 0: another of the 2 ranks has ended, or has not answered for rank_timeout=15 s", True),
        (1, "train, rank 0: something else", False),
        (143, "another of the 2 ranks has ended, or has not answered", False),
        (None, "", False),
    ],
)
def test_how_the_other_rank_may_end(code, err, good):
    ended = Ended(code, "", err, 1.0, 0)
    if good:
        ranks.check_lost(ended)
    else:
        with pytest.raises(Fault):
            ranks.check_lost(ended)


def test_a_rank_that_ends_while_it_is_aimed_at_is_no_fault():
    """It was the run that ended, not the kill that came too late."""
    sent = []
    running = [
        SimpleNamespace(ended=True, send=lambda number: sent.append(number), wait=lambda: Ended(0, "", "", 1.0, 0)),
        SimpleNamespace(ended=False, send=sent.append, wait=lambda: Ended(0, "", "", 1.0, 0)),
    ]
    ranks.kill(running, (1,), 10.0)
    assert sent == [signal.SIGKILL]

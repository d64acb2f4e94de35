import logging
import threading
from functools import partial

import pytest
import torch

from rl.training.distributed import Ranks
from rl.training.team import RankLostError, Shard, Team, find_team, muted, sum_pairs


@pytest.fixture
def run_shards():
    """Runs ``work(shard)`` for each of some shards of one process; what the first returned."""

    def run(count, work):
        ranks = Ranks()
        shards = ranks.deal(count)
        return ranks.run([partial(work, shard) for shard in shards], shards)

    return run


def test_neighbours_are_summed_first():
    names = [torch.tensor([value]) for value in (1e8, 1.0, -1e8, 1.0, 0.5)]
    # (1e8 + 1) + (-1e8 + 1) + 0.5 in float32, where 1e8 + 1 = 1e8
    assert sum_pairs(names).item() == 0.5
    assert sum_pairs(names[:1]) is names[0]


def test_shards_hear_each_other_in_their_order(run_shards):
    found = {}

    def work(shard):
        for turn in range(20):
            values = shard.gather((shard.index, turn))
            total = shard.sum(torch.tensor([float(shard.index), 1.0]))
            found[shard.index, turn] = values, total.tolist()
        return shard.index

    assert run_shards(3, work) == 0
    for turn in range(20):
        expected = [(0, turn), (1, turn), (2, turn)], [3.0, 3.0]
        assert all(found[index, turn] == expected for index in range(3))


def test_what_a_shard_is_given_is_its_own(run_shards):
    """Otherwise a list that one of them goes on to fill would be filled in all."""
    kept = {}

    def work(shard):
        (first, _), total = shard.gather([shard.index]), shard.sum(torch.ones(1))
        first.append(shard.index)
        total += shard.index
        shard.gather(None)
        kept[shard.index] = first, total.item()

    run_shards(2, work)
    assert kept == {0: ([0, 0], 2.0), 1: ([0, 1], 3.0)}


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_shard_that_fails_ends_the_others(run_shards, failing):
    def work(shard):
        if shard.index == failing:
            raise ZeroDivisionError("so it is")
        shard.gather(None)

    with pytest.raises(ZeroDivisionError, match="so it is"):
        run_shards(3, work)
    assert not [thread for thread in threading.enumerate() if "work_apart" in thread.name]


def test_a_fault_while_talking_is_told_to_all():
    class Broken(Ranks):
        def gather(self, value):
            raise RankLostError("gone")

    ranks = Broken()
    shards = ranks.deal(2)
    with pytest.raises(RankLostError):
        ranks.run([partial(shard.gather, None) for shard in shards], shards)


def test_a_copy_of_a_network_belongs_to_the_same_shard():
    from copy import deepcopy

    shard = Shard(Team(Ranks(), 2), 1)
    assert deepcopy({"shards": shard})["shards"] is shard
    assert (shard.index, shard.size) == (1, 2)
    assert find_team([shard]) is shard.team


def test_other_shards_print_errors_alone():
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    def speak():
        logging.getLogger("shard").warning("a hint")
        logging.getLogger("shard").error("an error")

    handler = Lines()
    logging.getLogger().addHandler(handler)
    try:
        thread = threading.Thread(target=speak)
        with muted([thread]):
            thread.start()
            thread.join()
            logging.getLogger("shard").warning("of the first")
        logging.getLogger("shard").warning("afterwards")
    finally:
        logging.getLogger().removeHandler(handler)
    assert lines == ["an error", "of the first", "afterwards"]

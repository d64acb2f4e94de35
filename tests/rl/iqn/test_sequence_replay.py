"""The replay beside a plain list of everything that was written."""

import numpy as np
import pytest
import torch

from rl.iqn.sequence_replay import SequenceReplay

LENGTH, STRIDE = 6, 2


@pytest.fixture
def make():
    """An empty replay for ``num_envs`` environments whose observations are a number and a picture of uint8."""

    def build(num_envs=3, capacity=60, length=LENGTH, stride=STRIDE):
        obs = {"number": torch.zeros(num_envs, 1), "picture": torch.zeros(num_envs, 2, 2, dtype=torch.uint8)}
        state = {"leaf": torch.zeros(num_envs, 1, 4)}
        return SequenceReplay(capacity, length, stride, obs, state, torch.zeros(num_envs, 2, dtype=torch.int64))

    return build


class Logged:
    """Writes random steps with ends of every kind to a replay and, as entries of numbers, to a list per environment."""

    def __init__(self, replay, seed=0, ends=0.3):
        self.replay, self.random, self.ends = replay, np.random.default_rng(seed), ends
        self.entries = [[] for _ in range(replay.num_envs)]
        self.starts = np.ones(replay.num_envs, dtype=bool)
        self.count = 0

    def draw(self, n):
        """Observations and states of ``n`` environments, each number different from all others."""
        numbers = torch.arange(self.count + 1, self.count + n + 1, dtype=torch.float32)
        self.count += n
        pictures = (numbers % 251).byte().view(-1, 1, 1).expand(n, 2, 2)
        return {"number": numbers.view(-1, 1), "picture": pictures}, {"leaf": numbers.view(-1, 1, 1).expand(n, 1, 4)}

    def step(self):
        replay, B = self.replay, self.replay.num_envs
        obs, state = self.draw(B)
        actions = torch.from_numpy(self.random.integers(5, size=(B, 2)))
        replay.write_step(obs, state, torch.from_numpy(self.starts), actions)
        kinds = ("go", "terminated", "known", "unknown", "ignored")
        kinds = self.random.choice(kinds, size=B, p=[1 - self.ends, *[self.ends / 4] * 4])
        rewards = self.random.standard_normal(B).astype(np.float32)
        given = (torch.from_numpy(column) for column in (rewards, kinds == "terminated", kinds == "ignored"))
        replay.finish_step(*given)
        cut = torch.from_numpy(kinds == "known")
        final, after = self.draw(B)
        if cut.any():
            replay.write_final(final, after, cut)
        for b, kind in enumerate(kinds):
            if self.starts[b] and self.entries[b] and not self.entries[b][-1]["terminated"]:
                self.entries[b][-1]["final"] = True
            if kind != "ignored":
                self.entries[b].append(
                    {
                        "number": obs["number"][b].item(),
                        "action": actions[b].tolist(),
                        "reward": rewards[b].item(),
                        "start": bool(self.starts[b]),
                        "terminated": kind == "terminated",
                        "final": False,
                    }
                )
        for b in np.flatnonzero(kinds == "known"):
            entry = {
                "number": final["number"][b].item(),
                "action": None,
                "reward": 0.0,
                "start": False,
                "terminated": False,
                "final": True,
            }
            self.entries[b].append(entry)
        self.starts = kinds != "go"

    def play(self, steps):
        for _ in range(steps):
            self.step()
        return self


def begins(log, replay):
    """Where sequences stand, by environment: multiples of the stride among the entries that are still there."""
    return [
        [a for a in range(0, n, replay.stride) if a > n - replay.size and a + replay.length <= n]
        for n in map(len, log.entries)
    ]


@pytest.mark.parametrize("steps", [1, 5, 6, 9, 19, 20, 21, 40, 123])
@pytest.mark.parametrize("stride", [1, 2, 6])
def test_every_sequence_is_what_was_written(make, steps, stride):
    """Rings of 20 entries or a little more, which go round up to six times; environments drift apart."""
    replay = make(stride=stride)
    log = Logged(replay, seed=steps).play(steps)
    ready = replay.ready().nonzero().squeeze(1)
    expected = begins(log, replay)
    assert len(ready) == sum(map(len, expected))
    if not len(ready):
        return
    batch = replay.read(ready, torch.ones(len(ready)))
    found = set()
    for n in range(len(ready)):
        b = int(ready[n]) % 3
        (begin,) = [a for a in expected[b] if log.entries[b][a]["number"] == batch.obs["number"][0, n, 0].item()]
        found.add((b, begin))
        entries = log.entries[b][begin : begin + LENGTH]
        numbers = [entry["number"] for entry in entries]
        assert batch.obs["number"][:, n, 0].tolist() == numbers
        assert batch.obs["picture"][:, n].eq(torch.tensor(numbers).remainder(251).view(-1, 1, 1)).all()
        assert batch.state["leaf"][n].unique().tolist() == [numbers[0]]
        assert batch.starts[:, n].tolist() == [entry["start"] for entry in entries]
        assert batch.terminated[:, n].tolist() == [entry["terminated"] for entry in entries]
        assert batch.final[:, n].tolist() == [entry["final"] for entry in entries]
        assert batch.rewards[:, n].tolist() == [entry["reward"] for entry in entries]
        for t, entry in enumerate(entries):
            assert entry["action"] is None or batch.actions[t, n].tolist() == entry["action"]
    assert found == {(b, begin) for b in range(3) for begin in expected[b]}


def test_what_is_seen_belongs_to_steps_that_count(make):
    """Of three environments one was ignored and one was cut: only the latter gets an entry for what was seen."""
    replay = make()
    log = Logged(replay)
    obs, state = log.draw(3)
    always = torch.ones(3, dtype=torch.bool)
    replay.write_step(obs, state, always, torch.zeros(3, 2, dtype=torch.int64))
    replay.finish_step(torch.zeros(3), ~always, torch.tensor([False, True, False]))
    final, after = log.draw(3)
    replay.write_final(final, after, torch.tensor([False, False, True]))
    assert replay.written.tolist() == [1, 0, 2]
    obs, state = log.draw(3)
    replay.write_step(obs, state, torch.tensor([False, True, True]), torch.zeros(3, 2, dtype=torch.int64))
    replay.finish_step(torch.ones(3), ~always)
    assert replay.obs["number"].view(-1, 3)[:3].T.tolist() == [[1, 7, 0], [8, 0, 0], [3, 6, 9]]
    assert replay.final.view(-1, 3)[:3].T.tolist() == [[False] * 3, [False] * 3, [False, True, False]]
    assert replay.rewards.view(-1, 3)[:3].T.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert (replay.written.tolist(), int(replay.added)) == ([2, 1, 3], 5)


def test_dtypes_and_sizes(make):
    replay = make()
    assert replay.obs["picture"].dtype == torch.uint8
    assert replay.actions.dtype == torch.int64
    assert replay.size == 20
    assert replay.obs["number"].shape == (60, 1)
    assert replay.state["leaf"].shape == (30, 1, 4)  # in front of every second entry only
    assert make(capacity=1).size == 2 * LENGTH
    assert make(capacity=61, stride=3).size == 21  # whole strides


def test_the_length_counts_what_can_be_learned_from(make):
    replay = make()
    log = Logged(replay).play(50)
    kept = [
        entry for entries in log.entries for entry in entries[1 - replay.size :]
    ]  # the next one may be half written
    assert len(replay) == sum(not entry["final"] for entry in kept)
    assert replay.added == sum(entry["action"] is not None for entries in log.entries for entry in entries)
    replay.clear()
    assert len(replay) == 0
    assert not replay.ready().any()


def test_an_action_that_was_dropped_leaves_no_trace(make):
    """The entry is written again; the sequence whose first entry it overwrote is not offered any more."""
    replay = make(num_envs=1, capacity=20)
    log = Logged(replay, ends=0.0).play(40)
    obs, state = log.draw(1)
    replay.write_step(obs, state, torch.tensor([False]), torch.zeros(1, 2, dtype=torch.int64))
    batch = replay.read(replay.ready().nonzero().squeeze(1), torch.ones(1))
    assert obs["number"].item() not in batch.obs["number"]
    assert (
        batch.obs["number"].min() == log.entries[0][22]["number"]
    )  # of the 20 entries in the ring one is being written
    log.step()
    assert obs["number"].item() not in replay.obs["number"]


def test_new_observations_are_given_out_once(make):
    replay = make()
    log = Logged(replay)
    seen = [0, 0, 0]
    for steps in (1, 7, 3, 40):
        log.play(steps)
        new = [entry for entries, n in zip(log.entries, seen, strict=True) for entry in entries[n:][1 - replay.size :]]
        assert sorted(replay.new_observations()["number"].flatten().tolist()) == sorted(
            entry["number"] for entry in new
        )
        seen = [len(entries) for entries in log.entries]
    assert replay.new_observations()["picture"].shape == (0, 2, 2)


# ------------------------------------------------------------------------------------------------------------- drawing


@pytest.fixture
def draw():
    """Slots ``[count, n]`` and weights of many minibatches."""

    def run(replay, count=400, sequences=50, seed=0, **exponents):
        slots, weights = replay.draw(count, sequences, torch.Generator().manual_seed(seed), **exponents)
        return slots.numpy(), weights

    return run


def test_nothing_is_ready_before_a_sequence_is_whole(make, draw):
    replay = make(num_envs=1, capacity=40)
    Logged(replay, ends=0.0).play(LENGTH - 1)
    assert not replay.ready().any()
    Logged(replay, ends=0.0).play(1)
    assert draw(replay, 2, 4)[0].tolist() == [[0] * 4] * 2


def test_all_sequences_are_drawn_alike(make, draw):
    replay = make()
    Logged(replay).play(60)
    slots, weights = draw(replay)
    ready = np.flatnonzero(replay.ready().numpy())
    counts = np.bincount(slots.ravel(), minlength=len(replay.priorities))
    assert set(np.flatnonzero(counts)) == set(ready)
    expected = slots.size / len(ready)
    assert np.abs(counts[ready] - expected).max() <= 5 * expected**0.5
    assert torch.equal(weights, torch.ones_like(weights))
    assert np.array_equal(draw(replay)[0], slots)
    assert not np.array_equal(draw(replay, seed=1)[0], slots)


def test_sequences_are_drawn_by_their_priority(make, draw):
    """Priorities 1 and 16 to the power 1/2: 1 and 4. Chances p and 4 p, weights 1 and (p / 4 p) ** 0.7."""
    replay = make()
    Logged(replay).play(60)
    ready = replay.ready().nonzero().squeeze(1)
    high = ready[: len(ready) // 2]
    replay.prioritise(high, torch.full(high.shape, 16.0))
    slots, weights = draw(replay, alpha=0.5, beta=0.7)
    favoured = np.isin(slots, high)
    share = 4 * len(high) / (4 * len(high) + len(ready) - len(high))
    assert favoured.mean() == pytest.approx(share, abs=4 * 0.5 / favoured.size**0.5)
    expected = np.where(favoured, 0.25**0.7, 1.0)
    assert torch.from_numpy(expected).float().sub(weights).abs().max() <= 1e-6


def test_a_new_sequence_has_the_highest_priority_so_far(make):
    replay = make(num_envs=1, capacity=20)
    log = Logged(replay, ends=0.0).play(10)
    replay.prioritise(torch.tensor([0, 1, 0]), torch.tensor([9.0, 5.0, 3.0]))
    replay.prioritise(torch.tensor([1]), torch.tensor([4.0]))
    assert replay.priorities[:5].tolist() == [3.0, 4.0, 1.0, 1.0, 1.0]
    log.play(12)
    assert replay.priorities.tolist() == [9.0, 4.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    replay.clear()
    Logged(replay, ends=0.0).play(1)
    assert replay.priorities[0] == 1.0


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("steps", [0, 3, 15, 70])
def test_a_replay_goes_on_from_a_checkpoint(make, draw, steps):
    """What is drawn is the same, and stays the same while more is written."""
    straight, other = make(), make()
    log = Logged(straight).play(steps)
    if straight.ready().any():
        straight.prioritise(straight.ready().nonzero().squeeze(1)[:3], torch.full((3,), 5.0))
    Logged(other, seed=5).play(40)
    stored = straight.state_dict()
    other.load_state_dict(stored)
    assert len(other) == len(straight)
    for written in (0, 9, 30):
        for replay in (straight, other):
            again = Logged(replay, seed=7)
            again.starts = log.starts.copy()
            again.play(written)
        if straight.ready().any():
            assert np.array_equal(draw(straight, 3, 8, alpha=0.5)[0], draw(other, 3, 8, alpha=0.5)[0])
        slots = straight.ready().nonzero().squeeze(1)
        one, two = (replay.read(slots, torch.ones(len(slots))) for replay in (straight, other))
        assert torch.equal(one.obs["number"], two.obs["number"])
        assert torch.equal(one.state["leaf"], two.state["leaf"])
        assert torch.equal(one.final, two.final)
        assert torch.equal(one.rewards, two.rewards)
        assert torch.equal(straight.new_observations()["number"], other.new_observations()["number"])


def test_a_checkpoint_holds_no_more_than_what_is_in_use_and_no_views(make):
    replay = make(capacity=60_000)
    log = Logged(replay, ends=0.0).play(9)
    stored = replay.state_dict()
    assert stored["obs"]["number"].shape == (10 * 3, 1)  # whole strides
    assert stored["obs"]["number"].untyped_storage().nbytes() == 10 * 3 * 4
    before = stored["obs"]["number"].clone()
    log.play(5)
    assert torch.equal(stored["obs"]["number"], before)
    assert stored["written"].tolist() == [9, 9, 9]


def test_a_checkpoint_of_other_sizes_leaves_the_replay_empty(make):
    stored = Logged(make()).play(30).replay.state_dict()
    for options in ({"num_envs": 2}, {"capacity": 90}, {"stride": 1}, {"length": 7}):
        replay = make(**options)
        Logged(replay).play(30)
        replay.load_state_dict(stored)
        assert len(replay) == 0


def test_the_largest_weight_of_every_minibatch_is_one():
    one = torch.zeros(1, 1)
    replay = SequenceReplay(40, 2, 1, {"x": one}, {"h": one}, torch.zeros(1, 1, dtype=torch.int64))
    for _ in range(12):
        replay.write_step({"x": one}, {"h": one}, torch.tensor([False]), torch.zeros(1, 1, dtype=torch.int64))
        replay.finish_step(torch.zeros(1), torch.tensor([False]))
    slots = replay.ready().nonzero().squeeze(1)
    replay.prioritise(slots, torch.arange(1.0, 1.0 + len(slots)))
    drawn, weights = replay.draw(50, 2, torch.Generator().manual_seed(0), alpha=1.0, beta=0.5)
    assert (weights.amax(1) == 1.0).all() and (weights < 1.0).any()
    low, high = (replay.priorities[drawn].aminmax(dim=1)[side] for side in (0, 1))
    torch.testing.assert_close(weights.amin(1), (low / high).sqrt().float())

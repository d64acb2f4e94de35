"""RockSample against a plain reference that is told what the sensor says."""

import numpy as np
import pytest

from envs.rock_sample import RockSample


class Reference:
    """One copy, as it is described; `rocks` are (row, column)."""

    def __init__(self, size, rocks, distance=20.0):
        self.size, self.rocks, self.distance = size, [tuple(rock) for rock in rocks], distance

    def begin(self, row, column, good):
        self.place, self.good = (row, column), list(good)

    def show(self, reading=()):
        shown = [0.0] * (2 * self.size + len(self.rocks))
        shown[self.place[0]] = shown[self.size + self.place[1]] = 1.0
        for rock, says in reading:
            shown[2 * self.size + rock] = 1.0 if says else -1.0
        return shown

    def accuracy(self, rock):
        between = sum((a - b) ** 2 for a, b in zip(self.place, self.rocks[rock], strict=True)) ** 0.5
        return 0.5 + 0.5 * 2 ** (-between / self.distance)

    def step(self, action, luck):
        """`luck`, in [0, 1), below the accuracy: the sensor is right."""
        reward, reading = 0.0, []
        if action < 4:
            row, column = self.place
            row += {0: -1, 2: 1}.get(action, 0)
            column += {1: 1, 3: -1}.get(action, 0)
            self.place = min(max(row, 0), self.size - 1), min(max(column, 0), self.size - 1)
        elif action == 4:
            if self.place in self.rocks:
                rock = self.rocks.index(self.place)
                reward, self.good[rock] = (10.0 if self.good[rock] else -10.0), 0
        else:
            rock = action - 5
            reading = [(rock, bool(self.good[rock]) == (luck < self.accuracy(rock)))]
        ended = self.place[1] == self.size - 1
        return self.show(reading), reward + 10.0 * ended, ended


class Luck:
    """Draws what the environment draws, and keeps the sensor's luck."""

    def __init__(self, rng):
        self.rng, self.integers = rng, rng.integers

    def random(self, size):
        self.last = self.rng.random(size)
        return self.last


@pytest.mark.parametrize(("size", "num_rocks"), [(3, 2), (5, 5), (7, 8), (11, 11)])
def test_steps_are_those_of_the_reference(size, num_rocks, monkeypatch):
    env, rows = RockSample(8, size, num_rocks, map_seed=size, max_episode_steps=60), range(8)
    luck = Luck(np.random.default_rng(0))
    monkeypatch.setattr(RockSample, "draws", luck)
    ones = [Reference(size, env.rock_positions) for _ in rows]
    observations, _ = env.reset(seed=0)

    def begin(row):
        ones[row].begin(*divmod(int(env.position[row]), size), env.good[row, :-1])
        assert ones[row].place[1] < size - 1
        np.testing.assert_array_equal(env._observe()[row], ones[row].show())

    for row in rows:
        begin(row)
    rng, ends, times, sampled = np.random.default_rng(1), [0, 0], np.zeros(8, dtype=int), set()
    for _ in range(400):
        actions = rng.integers(5 + num_rocks, size=8)
        at_rock = [one.place in one.rocks for one in ones]
        actions = np.where(at_rock & (rng.random(8) < 0.6), 4, np.where(rng.random(8) < 0.2, rng.integers(4), actions))
        observations, rewards, terminated, truncated, info = env.step(actions)
        times += 1
        for row in rows:
            one_observation, reward, ended = ones[row].step(actions[row], luck.last[row])
            late = times[row] == 60
            found = (info["final_obs"] if ended or late else observations)[row]
            np.testing.assert_array_equal(found, one_observation)
            assert (rewards[row], terminated[row], truncated[row]) == (reward, ended, late)
            sampled |= {reward} if actions[row] == 4 else set()
            if ended or late:
                ends[int(late)] += 1
                times[row] = 0
                begin(row)
            else:
                np.testing.assert_array_equal(env.good[row, :-1], ones[row].good)
    assert min(ends) >= 1 and sampled == {10.0, -10.0, 0.0}


def test_the_sensor_is_as_often_right_as_its_distance_allows():
    env = RockSample(20_000, 5, 1, half_efficiency_distance=2.0)
    env.reset(seed=0)
    distance = np.hypot(*(np.stack(np.divmod(env.position, 5)) - env.rock_positions[0][:, None]))
    good = env.good[:, 0].copy()
    observations, *_ = env.step(np.full(20_000, 5))
    right = (observations[:, 10] == 1) == (good == 1)
    assert right[distance == 0].all()
    for there in np.unique(distance):
        expected, number = (1 + 2 ** (-there / 2)) / 2, (distance == there).sum()
        assert abs(right[distance == there].mean() - expected) <= 4 * (expected * (1 - expected) / number) ** 0.5


def test_starts_and_rocks_are_drawn_uniformly_and_the_map_is_fixed():
    env, twin = RockSample(8000, 4, 3, map_seed=5), RockSample(2, 4, 3, map_seed=5)
    env.reset(seed=0)
    counts = np.bincount(env.position, minlength=16).reshape(4, 4)
    assert (counts[:, 3] == 0).all() and abs(counts[:, :3] / 8000 - 1 / 12).max() < 5 * (1 / 12 / 8000) ** 0.5
    assert abs(env.good[:, :-1].mean(axis=0) - 0.5).max() < 0.03 and not env.good[:, -1].any()
    np.testing.assert_array_equal(env.rock_positions, twin.rock_positions)
    assert len(np.unique(env.rock_positions, axis=0)) == 3 and env.rock_positions[:, 1].max() < 3
    maps = {tuple(RockSample(1, 4, 3, map_seed=seed).rock_positions.ravel()) for seed in range(8)}
    assert len(maps) > 4


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"size": 1}, r"^size=1: it must be a whole number of at least 2$"),
        ({"num_rocks": 0}, r"^num_rocks=0: it must be a whole number of at least 1$"),
        ({"size": 3, "num_rocks": 7}, r"^num_rocks=7: it must be a whole number of at most 6$"),
        ({"map_seed": -1}, r"^map_seed=-1: it must be a whole number of at least 0$"),
        ({"half_efficiency_distance": 0}, r"^half_efficiency_distance=0: it must be a number above 0$"),
        ({"good_reward": "ten"}, r"^good_reward='ten': it must be a number$"),
        ({"max_episode_steps": 0}, r"^max_episode_steps=0: it must be a whole number of at least 1$"),
    ],
)
def test_bad_parameters(parameters, words):
    with pytest.raises(ValueError, match=words):
        RockSample(2, **parameters)

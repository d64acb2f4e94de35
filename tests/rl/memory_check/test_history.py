"""Two episodes of 3 and 2 steps, worked out by hand; and how steps are cut into them."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter
from rl.memory_check.environments import watch
from rl.memory_check.features import encode, encode_leaves, list_branches
from rl.memory_check.history import EVER, FAR, FEW, FIRST, GAMMA, Steps
from rl.memory_check.play import RandomPlay, Step
from rl.memory_check.probe import Split as Parts
from rl.memory_check.probe import compare, split_samples
from rl.memory_check.recording import Recording
from rl.memory_check.regression import Regression, compress, standardise


@pytest.fixture
def steps():
    obs = np.array([[1.0], [2.0], [4.0], [8.0], [3.0]], dtype=np.float32)
    actions = np.array([[1.0], [0.0], [1.0], [1.0], [0.0]], dtype=np.float32)
    rewards = np.array([1.0, 0.0, 2.0, 3.0, 4.0])
    last = np.array([False, False, True, False, False])
    return Steps(obs, actions, np.zeros((5, 0), dtype=np.int64), rewards, np.array([0, 1, 2, 0, 1]), last)


def test_what_remains_is_discounted_and_unknown_where_the_record_ends_first(steps):
    remainders, known = steps.remainders()
    np.testing.assert_allclose(remainders, [GAMMA * GAMMA * 2.0, GAMMA * 2.0, 0.0, GAMMA * 4.0, 0.0])
    assert known.tolist() == [True, True, True, False, False]
    time = np.arange(FAR + 3)
    endless = Steps(*np.zeros((3, FAR + 3, 1)), np.ones(FAR + 3), time, time < 0)
    assert endless.remainders()[1].tolist() == [True] * 3 + [False] * FAR


def test_the_past_of_a_step_ends_where_its_episode_begins(steps):
    past = steps.past(steps.obs, np.array([2, 3, 4]))
    assert past[FIRST].ravel().tolist() == [1.0, 8.0, 8.0]
    lags = past[FEW].reshape(3, 4, 3)[:, :, :2]  # observation and action of each of four steps back
    assert lags[0].tolist() == [[2.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert not lags[1].any() and lags[2].tolist() == [[8.0, 1.0]] + [[0.0, 0.0]] * 3
    scale = np.std([1.0, 0.0, 2.0, 3.0, 4.0])
    expected = [[1.5, 0.5, 0.5 / scale, 0.5 / scale, 2.0], [0.0] * 5, [8.0, 1.0, 3 / scale, 3 / scale, 8.0]]
    np.testing.assert_allclose(past[EVER], expected, rtol=1e-6)  # means of obs, action, reward, their product; largest


def test_a_recording_holds_the_steps_environment_by_environment():
    envs = Counter(2, [3, 2])
    recording = Recording(2, envs.single_observation_space, envs.single_action_space, 4)
    watch(envs, 0, 4, RandomPlay(envs, 0), [recording])
    steps = recording.steps()
    assert steps.obs.tolist() == [[0, 0], [1, 0], [2, 0], [0, 0], [0, 1], [1, 1], [0, 1], [1, 1]]
    assert steps.time.tolist() == [0, 1, 2, 0, 0, 1, 0, 1] and steps.episode.tolist() == [0, 0, 0, 1, 2, 2, 3, 3]
    assert np.flatnonzero(steps.last).tolist() == [2, 5, 7]
    assert steps.rewards.tolist() == [0, 1, 2, 0, 0, 1, 0, 1]
    assert np.array_equal(steps.actions.argmax(1), steps.chosen[:, 0])


def test_ignored_steps_are_left_out_and_hand_on_that_an_episode_begins():
    recording = Recording(1, spaces.Discrete(9), spaces.Discrete(2), 5)
    columns = np.zeros((5, 1), dtype=bool)
    opens, ended, ignored = columns.copy(), columns.copy(), columns.copy()
    opens[[0, 2]], ended[1], ignored[2] = True, True, True  # NEXT_STEP: the third step resets, the fourth opens
    for t in range(5):
        seen = {"obs": np.array([t])}
        flags = np.zeros(1), ended[t], columns[t], ignored[t]
        recording.add(Step(seen, opens[t], np.zeros(1, dtype=int), *flags, np.zeros(0, dtype=int), {}))
    steps = recording.steps()
    assert steps.obs.argmax(1).tolist() == [0, 1, 3, 4] and steps.time.tolist() == [0, 1, 0, 1]


def test_numbers_of_every_space():
    assert encode(spaces.Discrete(3, start=1), np.array([1, 3])).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert encode(spaces.MultiDiscrete([2, 2]), np.array([[0, 1]])).tolist() == [[1, 0, 0, 1]]
    assert encode(spaces.Box(0, 255, (2, 2), np.uint8), np.full((1, 2, 2), 7, np.uint8)).tolist() == [[7.0] * 4]
    picture = np.zeros((2, 84, 84, 4), dtype=np.uint8)
    picture[1, 40:44, 10:14] = 255
    rows = encode(spaces.Box(0, 255, (84, 84, 4), np.uint8), picture)
    assert rows.shape == (2, 256) and not rows[0].any() and rows[1].any()
    both = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Text(4)})
    assert encode_leaves(both, {"a": np.array([1])}).tolist() == [[0.0, 1.0]]
    assert list_branches(spaces.MultiDiscrete([3, 4])) == [3, 4] and list_branches(spaces.MultiBinary(2)) == []


def test_scores_are_shares_of_the_variance_of_the_episodes_that_are_scored():
    """Squared errors of 2 episodes in which the mean is off by 1, the others by 0.5, 0.25, 0.1; a third is left out."""
    errors = [np.array([value, value, 9.0]) for value in (1.0, 0.5, 0.25, 0.1)]
    parts = Parts(np.array([2]), np.array([2]), np.array([0, 1]), np.array([0, 1, 2]))
    scores = compare(errors, parts, "", np.random.default_rng(0))
    np.testing.assert_allclose(scores[:3], [0.5, 0.75, 0.9])
    np.testing.assert_allclose([scores.present_gain, scores.history_gain, scores.occasions], [0.25, 0.15, 2.0])
    assert scores.present_error < 1e-12  # both episodes say the same


def test_no_episode_is_both_fitted_and_scored(steps):
    many = Steps(*np.zeros((3, 300, 1)), np.zeros(300), np.tile(np.arange(3), 100), np.zeros(300, dtype=bool))
    split = split_samples(many, np.arange(300), np.random.default_rng(0))
    parts = [set(many.episode[part]) for part in split[:3]]
    assert [len(part) for part in parts] == [50, 15, 35] and not parts[0] & parts[2] and not parts[0] & parts[1]


def test_a_regression_finds_a_product_with_the_action_and_adds_nothing_to_noise():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2000, 3, generator=generator)
    chosen = torch.randint(2, (2000, 1), generator=generator)
    target = features[:, 0] * (2 * chosen[:, 0] - 1)
    fitted, held = torch.arange(1000), torch.arange(1000, 1500)
    guess, error = Regression(features, [2], chosen, 0).fit(target, fitted, held)
    assert error < 0.05 and (guess - target)[1500:].square().mean() < 0.05
    noise = torch.randn(2000, generator=generator)
    guess, error = Regression(features, [2], chosen, 0).fit(noise, fitted, held)
    assert (guess - noise)[1500:].square().mean() < 1.05 * noise[1500:].square().mean()


def test_columns_are_scaled_by_what_is_fitted_and_pressed_into_few():
    values = np.array([[0.0, 5.0], [2.0, 5.0], [50.0, 5.0]], dtype=np.float32)
    assert standardise(values, np.array([0, 1])).tolist() == [[-1.0], [1.0], [5.0]]
    wide = np.random.default_rng(0).standard_normal((50, 1)).astype(np.float32) * np.ones((1, 9), np.float32)
    pressed = compress(wide, np.arange(50), 2)
    assert pressed.shape == (50, 2)
    np.testing.assert_allclose(np.abs(pressed[:, 1]), 3 * np.abs(wide[:, 0] - wide[:, 0].mean()), rtol=1e-4, atol=1e-4)

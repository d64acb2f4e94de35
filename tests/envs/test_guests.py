"""Single environments of a user side by side."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.faults import UserCodeError
from envs.guests import vectorise


class Choosy(gymnasium.Env):
    """Its first two of four actions are legal, as its info says; an illegal one is a fault."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(4)
    mask = np.array([1, 1, 0, 0], np.int8)

    def __init__(self, opened=None):
        self.opened, self.resets = opened if opened is not None else [], 0
        self.opened.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets += 1
        return self.np_random.random(1), {} if self.mask is None else {"action_mask": self.mask}

    def step(self, action):
        if action > 1:
            raise ValueError(f"illegal action {action}")
        return self.np_random.random(1), 0.0, False, False, {"action_mask": self.mask}

    def close(self):
        self.opened.remove(self)


def test_a_mask_in_the_first_info_is_used():
    envs = vectorise(Choosy, 2, "Own-v0")
    assert isinstance(envs, SyncVectorEnv) and envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observations, _ = envs.reset(seed=0)
    assert observations["action_mask"].tolist() == [[1, 1, 0, 0]] * 2
    assert envs.step([0, 1])[0]["action_mask"].tolist() == [[1, 1, 0, 0]] * 2
    with pytest.raises(UserCodeError, match="illegal action 2"):
        envs.step([0, 2])


def test_a_mask_may_be_left_alone():
    assert vectorise(Choosy, 2, "Own-v0", "ignore").reset(seed=0)[0].shape == (2, 1)
    with pytest.raises(ValueError, match=r"^action_mask='never': it must be one of 'auto', 'ignore'$"):
        vectorise(Choosy, 2, "Own-v0", "never")


def test_looking_for_a_mask_changes_no_seed_and_makes_no_further_copy():
    """Where there can be one copy only, it must be the one that is played."""
    opened = []
    envs = vectorise(lambda: Choosy(opened), 1, "Own-v0")
    assert len(opened) == 1
    (first, _), fresh = envs.reset(seed=3), Choosy()
    np.testing.assert_array_equal(first["obs"][0], fresh.reset(seed=3)[0].astype(np.float32))


@pytest.mark.parametrize("mask", [np.ones(3), np.zeros(4), np.full(4, -np.inf)])
def test_a_mask_that_cannot_be_used_is_refused_at_once(mask, monkeypatch):
    monkeypatch.setattr(Choosy, "mask", mask)
    with pytest.raises(
        UserCodeError, match=r"^Own-v0: info\['action_mask'\].*; env.action_mask=ignore leaves it alone$"
    ):
        vectorise(Choosy, 2, "Own-v0")


def test_what_was_made_is_closed_when_a_later_copy_fails():
    """A port that stays taken would be in the way of the next try."""
    opened = []

    def make():
        if len(opened) == 2:
            raise OSError("address in use")
        return Choosy(opened)

    with pytest.raises(
        UserCodeError, match=r"^Own-v0 could not be made \(copy 2\): OSError: address in use \(.*in make"
    ):
        vectorise(make, 4, "Own-v0")
    assert opened == []
    with pytest.raises(UserCodeError, match=r"^Own-v0 failed in its first reset: ZeroDivisionError"):
        vectorise(lambda: FailingReset(opened), 1, "Own-v0")
    assert opened == []


class FailingReset(Choosy):
    def reset(self, **options):
        return 1 / 0


def test_one_object_cannot_be_two_copies():
    env = Choosy()
    with pytest.raises(ValueError, match=r"^Own-v0 made the same environment twice: it must make a new one each time$"):
        vectorise(lambda: env, 2, "Own-v0")


@pytest.mark.parametrize("key", ["observation_space", "action_space"])
def test_an_environment_that_does_not_say_what_it_shows_or_takes_is_refused(key, monkeypatch):
    monkeypatch.setattr(Choosy, key, None)
    with pytest.raises(UserCodeError, match=rf"^Own-v0, {key}=None: it must be a gymnasium.spaces.Space$"):
        vectorise(Choosy, 2, "Own-v0")

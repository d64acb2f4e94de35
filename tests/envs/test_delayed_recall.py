import numpy as np
import pytest

from envs.delayed_recall import DelayedRecall


class Optimal:
    cue = None

    def __call__(self, observations, starts):
        num_cues = observations.shape[1] // 2
        shown = observations[:, :num_cues].argmax(axis=1)
        self.cue = shown if self.cue is None else np.where(starts, shown, self.cue)
        return self.cue


def name_the_distractor(observations, starts):
    num_cues = observations.shape[1] // 2
    return observations[:, num_cues:-1].argmax(axis=1)


@pytest.mark.parametrize(("num_cues", "delay"), [(4, 10), (2, 1), (3, 50)])
def test_scripted_policies_reach_the_exact_returns(assert_mean_return, num_cues, delay):
    env = DelayedRecall(2048, num_cues, delay)
    assert_mean_return(env, Optimal(), env.optimal_return)
    assert_mean_return(env, name_the_distractor, env.memoryless_return)


def test_scripted_policies_reach_the_exact_returns_on_a_device(assert_mean_return, device):
    env = DelayedRecall(2048, device=device)
    assert_mean_return(env, Optimal(), env.optimal_return)
    assert_mean_return(env, name_the_distractor, env.memoryless_return)


def test_what_each_step_shows():
    env = DelayedRecall(500, num_cues=3, delay=4)
    observations, _ = env.reset(seed=0)
    blocks, cue = [], observations[:, :3].argmax(axis=1)
    for step in range(5):
        assert (observations.sum(axis=1) == 1).all()
        blocks.append([observations[:, :3].sum(), observations[:, 3:6].sum(), observations[:, 6].sum()])
        if 0 < step < 4:  # all distractors occur, and they tell nothing about the cue
            distractor = observations[:, 3:6].argmax(axis=1)
            assert np.bincount(distractor).min() > 120 and abs((distractor == cue).mean() - 1 / 3) < 0.1
        last = observations
        observations, rewards, terminated, truncated, info = env.step(np.zeros(500, dtype=int))
        assert terminated.all() == (step == 4) and not truncated.any() and rewards.any() == (step == 4)
    assert blocks == [[500, 0, 0], [0, 500, 0], [0, 500, 0], [0, 500, 0], [0, 0, 500]]
    assert not info["final_obs"].any() and last[:, 6].all()
    assert set(np.unique(rewards)) == {1.0, -0.5}


@pytest.mark.parametrize(("name", "value", "minimum"), [("num_cues", 1, 2), ("delay", 0, 1)])
def test_bad_parameters(name, value, minimum):
    with pytest.raises(ValueError, match=f"^{name}={value}: it must be a whole number of at least {minimum}$"):
        DelayedRecall(2, **{name: value})

"""NEXT_STEP autoreset of tasks: what closed an episode stands still for a step, and the step after it is none."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from envs.late_reset import LateReset, reset_late
from envs.t_maze import TMaze


@pytest.mark.parametrize("where", [None, "cpu"])
def test_an_end_stands_still_for_a_step(where):
    """Who turns in the corridor stays there until it is cut after four steps. Only a first step shows the cue."""
    envs = reset_late(TMaze(2, length=1, device=where))
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    obs, _ = envs.reset(seed=0)
    actions = np.ones(2, dtype=np.int64) if where is None else torch.ones(2, dtype=torch.int64)
    steps = [envs.step(actions) for _ in range(6)]
    cues = [float(shown[0][:2].sum()) for shown in (obs, *(step[0] for step in steps))]
    assert cues == [1, 0, 0, 0, 0, 1, 0]
    assert [float(step[1][0]) for step in steps] == [-1, -1, -1, -1, 0, -1]
    assert [bool(step[3][0]) for step in steps] == [False, False, False, True, False, False]
    assert not any(step[2].any() or step[4] for step in steps)


def test_rows_wait_by_themselves():
    """The second row turns at once where it stands, which costs it a step: it ends a step later."""
    envs = reset_late(TMaze(2, length=1))
    envs.reset(seed=0)
    ends = [envs.step(np.array(actions))[2].tolist() for actions in ([0, 1], [1, 0], [0, 1], [0, 0], [1, 0])]
    assert ends == [[False, False], [True, False], [False, True], [False, False], [True, False]]


def test_a_reset_forgets_who_waits():
    envs = reset_late(TMaze(1, length=1))
    envs.reset(seed=0)
    assert [envs.step(np.array([action]))[2].all() for action in (0, 1)] == [False, True]
    envs.reset(seed=0)
    assert envs.step(np.array([1]))[1].tolist() == [-1]


def test_environments_of_gymnasium_wait_too():
    make = partial(gymnasium.make, "CartPole-v1", max_episode_steps=2)
    envs = reset_late(SyncVectorEnv([make], autoreset_mode=AutoresetMode.SAME_STEP))
    assert envs.metadata["autoreset_mode"] is envs.autoreset_mode is AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    steps = [envs.step(np.array([0])) for _ in range(3)]
    assert [bool(step[3][0]) for step in steps] == [False, True, False] and "final_obs" not in steps[1][4]


def test_what_somebody_has_wrapped_stays_as_it_is():
    wrapped = VectorWrapper(TMaze(1))
    assert reset_late(wrapped) is wrapped
    assert isinstance(reset_late(TMaze(1)), LateReset)

"""The workloads and their environments."""

import numpy as np
import pytest
from gymnasium import spaces

from experiments.peers import workloads


def test_workloads():
    assert {name: work.hidden_size for name, work in workloads.WORKLOADS.items()} == {"w1": 128, "w2": 256, "w3": 256}
    for name, work in workloads.WORKLOADS.items():
        assert (work.name, work.batch_size, work.num_envs * work.num_steps) == (name, 256, 2048)


@pytest.mark.parametrize("minigrid", [True, False])
def test_environments_of_the_workloads(minigrid, monkeypatch):
    if minigrid:
        pytest.importorskip("minigrid")
    monkeypatch.setattr(workloads, "has_minigrid", lambda: minigrid)
    shapes = {}
    for name, work in workloads.WORKLOADS.items():
        env = workloads.make_vector_env(work)
        obs, _ = env.reset(seed=0)
        shapes[name] = (obs.shape, obs.dtype)
        assert isinstance(env.single_action_space, spaces.Discrete)
        env.close()
    assert shapes == {
        "w1": ((16, 2), np.float32),
        "w2": ((16, 7, 7, 3), np.uint8),
        "w3": ((16, 4), np.float32),
    }

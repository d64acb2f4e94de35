"""Ignored steps beside options that have states of their own."""

import numpy as np
import torch
from gymnasium import spaces

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)


def test_masks_of_dropout_come_again_behind_steps_that_were_ignored(make_agent):
    """Its count does not move in these: states that are filled in later must not let it."""

    def train(state_stride):
        core = {"num_layers": 2, "dropout": 0.5}
        options = {"num_envs": 2, "num_steps": 8, "epochs": 1, "num_minibatches": 1, "diagnostics_every": None}
        agent = make_agent((OBS, FOUR), core_options=core, state_stride=state_stride, **options)
        rng = np.random.default_rng(0)
        for step in range(8):
            agent.act(rng.normal(size=(2, 2)).astype(np.float32))
            agent.observe(rng.normal(size=2), np.zeros(2, bool), ignored=np.full(2, step in (1, 4)))
            agent.learn(rng.normal(size=(2, 2)).astype(np.float32))
        return agent

    sparse, every = train(4), train(1)
    assert sparse.updates == every.updates == 1 and sparse.last_metrics["ratio_error"] < 1e-5
    for name, leaf in every.network.state_dict().items():
        torch.testing.assert_close(sparse.network.state_dict()[name], leaf, rtol=0, atol=1e-5)

"""Shared by the tests of the update of IQN: two networks and a replay of random play."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.flat_adam import flat_adam
from rl.iqn import IQN
from rl.iqn.sequence_replay import SequenceReplay
from rl.networks import QuantileNetwork
from rl.networks.frozen import frozen_copy
from rl.spaces import leaf_spaces

SMALL = {"batch_size": 20, "bptt": 5, "burn_in": 3, "n_step": 3, "gamma": 0.9, "num_quantiles": 4}
NUMBERS, ACTIONS = spaces.Box(-2.0, 2.0, (3,)), spaces.MultiDiscrete([2, 2])


class Parts(NamedTuple):
    """What an update needs."""

    iqn: IQN
    network: QuantileNetwork
    target: QuantileNetwork
    replay: SequenceReplay


@pytest.fixture
def make_parts(randomise):
    """A network, its target with other weights, and a replay of random play with ends of every kind.

    ``kind`` is the class of the update; ``masked`` forbids actions at random.
    """

    def make(core="gru", steps=40, kind=IQN, masked=False, network_options=None, **options):
        iqn = kind(**{**SMALL, **options})
        options = {"num_cosines": 8, "num_action_quantiles": 3} | (network_options or {})
        mask = {"action_mask": spaces.MultiBinary(4)} if masked else {}
        leaves = leaf_spaces(spaces.Dict({"numbers": NUMBERS, **mask}))
        network = randomise(
            QuantileNetwork(leaves, ACTIONS, partial(getattr(cores, core), hidden_size=6), 6, **options)
        )
        target = randomise(frozen_copy(network), seed=1)
        random, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
        B, starts, state, replay = 3, np.ones(3, dtype=bool), network.initial_state(3), None

        def observe(count):
            obs = {"numbers": torch.randn(count, 3, generator=generator)}
            if masked:  # of two choices of each branch at least one
                choices = torch.randint(3, (count, 2), generator=generator)
                obs["action_mask"] = torch.stack([choices != 0, choices != 1], dim=-1).flatten(1).to(torch.int8)
            return obs

        for _ in range(steps):
            obs, actions = observe(B), torch.randint(2, (B, 2), generator=generator)
            if replay is None:
                replay = SequenceReplay(10_000, iqn.length, 2, obs, state, actions)
            replay.write_step(obs, state, torch.from_numpy(starts), actions)
            with torch.no_grad():
                _, _, state = network.step(obs, state, torch.from_numpy(starts))
            terminated, known, unknown = random.random((3, B)) < 0.12
            truncated = (known | unknown) & ~terminated
            rewards = 2.0 * random.standard_normal(B)
            replay.finish_step(torch.from_numpy(rewards.astype(np.float32)), torch.from_numpy(terminated))
            cut = torch.from_numpy(truncated & known)
            if cut.any():
                replay.write_final(spread(observe(int(cut.sum())), cut), state, cut)
            starts = terminated | truncated
        return Parts(iqn, network, target, replay)

    return make


def spread(leaves, rows):
    """Leaves ``[B, ...]`` whose ``rows``, bool ``[B]``, are those given."""
    whole = {name: leaf.new_zeros(len(rows), *leaf.shape[1:]) for name, leaf in leaves.items()}
    for name, leaf in leaves.items():
        whole[name][rows] = leaf
    return whole


@pytest.fixture
def update():
    """One update; its metrics."""

    def run(parts, count=3, count_before=0, progress=0.0, optimizer=None, seed=0):
        iqn, network, target, replay = parts
        shuffle, generator = (torch.Generator().manual_seed(number) for number in (seed, seed + 1))
        optimizer = optimizer or flat_adam(network, iqn.learning_rate)
        return iqn.update(network, target, optimizer, replay, count, count_before, shuffle, generator, progress)

    return run


@pytest.fixture
def read_all():
    """Every whole sequence of a replay, each with the weight 1."""

    def read(replay):
        slots = replay.ready().nonzero().squeeze(1)
        return replay.read(slots, torch.ones(len(slots)))

    return read

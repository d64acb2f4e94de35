"""What several shards learn and get back, beside what one alone does; three, for with two some slips do not show."""

from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter
from rl import cores
from rl.agents import RecurrentIQN, RecurrentPPO
from rl.training import Trainer
from rl.training.distributed import Ranks
from rl.training.saving import add_others, state_of_shard
from rl.training.sharing import join, put_own, take_own

SPACE, ACTIONS = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2)
SMALL = {"core": partial(cores.gru, hidden_size=4), "layer_size": 4, "num_steps": 4, "num_envs": 2}
PPO = partial(RecurrentPPO, SPACE, ACTIONS, bptt=4, num_minibatches=1, **SMALL)
IQN = partial(RecurrentIQN, SPACE, ACTIONS, bptt=2, burn_in=0, n_step=1, batch_size=2, **SMALL)


def play(agent, seed, updates=1, size=1.0):
    random = np.random.default_rng(seed)
    for _ in range(updates):
        for _ in range(4):
            agent.act(random.uniform(-size, size, (2, 3)).astype(np.float32))
            agent.observe(random.normal(size=2), random.random(2) < 0.1)
        agent.learn(random.uniform(-size, size, (2, 3)).astype(np.float32))


def run(count, work):
    ranks = Ranks()
    shards = ranks.deal(count)
    return ranks.run([partial(work, shard) for shard in shards], shards)


def learn_together(agents, **how):
    def work(shard):
        join(agents[shard.index], shard)
        play(agents[shard.index], shard.index, **how)

    run(len(agents), work)
    return agents


def test_the_replay_ratio_is_that_of_all_shards():
    """A minibatch of three shards is three times as large, so as many steps of each grant as many minibatches."""
    alone = IQN(seed=1, learning_starts=1)
    play(alone, 1)
    assert alone.updates > 0
    agents = learn_together([IQN(seed=seed, learning_starts=1) for seed in (1, 2, 3)])
    assert {agent.updates for agent in agents} == {alone.updates}


def test_learning_starts_with_the_steps_of_all_shards():
    """Eight of each: twenty are there with the first rollout of three."""
    agents = learn_together([IQN(seed=seed, learning_starts=20) for seed in (1, 2, 3)])
    assert all(agent.updates > 0 for agent in agents)


def test_the_divergence_of_all_shards_sets_one_learning_rate():
    options = {"learning_rate_schedule": "adaptive", "epochs": 8, "desired_kl": 3e-4, "learning_rate": 1e-3}
    one, other = learn_together([PPO(seed=seed, **options) for seed in (1, 2)], updates=6)
    rates = [agent.optimizer.param_groups[0]["lr"] for agent in (one, other)]
    assert rates[0] == rates[1] != 1e-3
    assert torch.equal(*(agent.optimizer.param_groups[0]["params"][0] for agent in (one, other)))


def test_steps_that_corrected_a_scale_are_those_of_all_shards():
    space = spaces.Box(-np.inf, np.inf, (3,))
    make = partial(RecurrentPPO, space, ACTIONS, bptt=4, num_minibatches=1, **SMALL)
    agents = learn_together([make(seed=seed) for seed in (1, 2, 3)], size=1e4)
    assert {agent.updates for agent in agents} == {0}  # the rollout went into the scale
    assert {agent.env_steps for agent in agents} == {4 * 2 * 3}


def test_each_shard_gets_its_own_part_of_a_checkpoint_back():
    found = {}

    def work(shard):
        state = {"agent": {"network": {}, "generators": [shard.index]}, "resetting": None, "episodes": {}, "envs": None}
        content = add_others(state | {"obs": shard.index}, shard)
        own = state_of_shard(shard.gather(content)[0], shard)
        found[shard.index] = own["obs"], own["agent"]["generators"]

    run(3, work)
    assert found == {index: (index, [index]) for index in range(3)}


def test_the_memories_of_a_teacher_are_those_of_its_shard(tmp_path):
    PPO(seed=5).save(tmp_path / "teacher.pt")
    agents = [PPO(seed=seed, teacher_kl=0.1) for seed in (1, 2)]
    for seed, agent in enumerate(agents):
        agent.load_network(tmp_path / "teacher.pt")
        play(agent, seed)
    first, second = (deepcopy(agent.state_dict()) for agent in agents)
    assert not torch.equal(first["teacher"]["state"]["h"], second["teacher"]["state"]["h"])
    agents[1].load_state_dict(put_own(first, take_own(second)))
    assert torch.equal(agents[1].teacher.state["h"], second["teacher"]["state"]["h"])


@pytest.mark.parametrize(("size", "left_out"), [(1, False), (3, True)])
def test_an_update_of_several_shards_may_have_reached_an_evaluation(size, left_out, scribe, monkeypatch):
    """Steps 17 ... 24 are those of the last update alone, 1 ... 24 those of three; every 16th is followed by one."""

    class Several:
        index = 0

    several = Several()
    several.size = size
    trainer = Trainer(scribe(2, 4), Counter(2), Path("."), 100, 0, lambda: {}, evaluate_every=16, shards=several)
    trainer.agent.env_steps = 24
    assert trainer._has_left_out_an_evaluation() == left_out

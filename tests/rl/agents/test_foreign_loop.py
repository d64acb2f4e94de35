"""Agents as the models of a loop that knows nothing of PPO: two of them forage in one grid, epoch by epoch."""

import time

import numpy as np
import pytest

from rl.agents import DualHeadRecurrentPPO, RecurrentPPOLSTM

EMPTY, WALL, GEM, FOOD, BONE, AGENT = range(6)
VALUES = np.array([0.0, -1.0, 10.0, 5.0, -10.0, 0.0])
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
SIDE, TURNS, EPOCHS, SPAWN = 11, 100, 60, 0.02


class Foraging:
    """An 11 x 11 grid with a wall around it; each agent sees the 5 x 5 cells around it, one-hot in 6 channels."""

    def __init__(self, num_agents, seed):
        self.random, self.num_agents = np.random.default_rng(seed), num_agents

    def reset(self):
        self.cells = np.full((SIDE + 2, SIDE + 2), WALL)  # one more ring, so that a window never leaves the array
        self.cells[2:-2, 2:-2] = EMPTY
        free = self.random.permutation(np.argwhere(self.cells == EMPTY))
        self.places = free[: self.num_agents]
        self.cells[tuple(self.places.T)] = AGENT
        self.spawn(0.2)

    def spawn(self, probability):
        free = np.argwhere(self.cells == EMPTY)
        chosen = free[self.random.random(len(free)) < probability]
        self.cells[tuple(chosen.T)] = self.random.choice([GEM, FOOD, BONE], size=len(chosen))

    def observe(self, agent):
        row, column = self.places[agent]
        window = self.cells[row - 2 : row + 3, column - 2 : column + 3]
        return np.eye(6)[window].transpose(2, 0, 1).reshape(1, -1)  # [1, 6 * 5 * 5], float64

    def act(self, agent, action):
        target = self.places[agent] + MOVES[action]
        found = self.cells[tuple(target)]
        if found not in (WALL, AGENT):
            self.cells[tuple(self.places[agent])], self.cells[tuple(target)] = EMPTY, AGENT
            self.places[agent] = target
        return float(VALUES[found])


def play(models, seed, store):
    """Returns ``[epochs, agents]``, and the seconds spent inside the models."""
    world, returns, inside = Foraging(len(models), seed), np.zeros((EPOCHS, len(models))), 0.0
    for epoch in range(EPOCHS):
        world.reset()
        began = time.process_time()
        for model in models:
            model.start_epoch_action(epoch=epoch)
        inside += time.process_time() - began
        for _ in range(TURNS):
            world.spawn(SPAWN)
            for agent, model in enumerate(models):
                state = world.observe(agent)
                began = time.process_time()
                action = model.take_action(state)
                inside += time.process_time() - began
                reward = world.act(agent, action)
                began = time.process_time()
                store(model, state, action, reward)
                inside += time.process_time() - began
                returns[epoch, agent] += reward
        began = time.process_time()
        for model in models:
            model.end_epoch_action(epoch=epoch)
            model.train_step()
        inside += time.process_time() - began
    return returns, inside


def into_memory(model, state, action, reward):
    model.memory.add(state, action, reward, False)


def into_rollout(model, state, action, reward):
    model.add_memory_ppo(reward, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "store"),
    [(DualHeadRecurrentPPO, {"use_dual_head": False}, into_memory), (RecurrentPPOLSTM, {}, into_rollout)],
    ids=["DualHeadRecurrentPPO-into_memory", "RecurrentPPOLSTM-into_rollout"],
)
def test_two_agents_learn_to_forage_within_60_epochs(kind, options, store):
    """With default hyperparameters the last 12 epochs bring at least 40 more than the first 12."""
    gains, seconds = [], []
    for seed in (1, 2, 3):
        models = [kind(150, 4, seed=10 * seed + agent, **options) for agent in range(2)]
        returns, inside = play(models, seed, store)
        gains.append(returns[-12:].mean() - returns[:12].mean())
        seconds.append(inside / (2 * TURNS * EPOCHS))
        assert all(model.updates == EPOCHS for model in models)
    print(f"gains {np.round(gains)}, milliseconds of CPU time per step {np.round(1e3 * np.array(seconds), 2)}")
    assert min(gains) >= 40

"""Shared by the tests of State Punishment: games that are set up by hand, and games in which much happens."""

import numpy as np
import pytest

from envs.state_punishment import StatePunishment
from envs.state_punishment.rules import FIRST_KIND


class Game:
    """Grids with nothing in them, agents in cell (4, 4) that may stay, punishments without chance; begun."""

    def __init__(self, num_worlds=1, num_agents=1, **changes):
        settings = {"initial_resources": 0, "punishment_mode": "deterministic", "actions": "factored", "view_radius": 1}
        self.env = StatePunishment(num_worlds * num_agents, num_agents, **settings | changes)
        self.seen, _ = self.env.reset(seed=0)
        if not changes.get("menu"):
            self.place(4, 4)

    def cell(self, y, x):
        board = self.env.board
        return (y + board.radius) * board.side + x + board.radius

    def place(self, y, x, rows=slice(None)):
        """Moves agents to a cell."""
        self.env.position[rows] = self.cell(y, x)

    def put(self, y, x, kind, rows=slice(None)):
        """Puts a resource into a cell."""
        self.env.cells[rows, self.cell(y, x)] = FIRST_KIND + kind

    def step(self, moves, votes=0):
        """Rewards of a turn; ``seen`` are the observations after it."""
        pairs = np.broadcast_to(np.stack(np.broadcast_arrays(moves, votes), axis=-1), (self.env.num_envs, 2))
        self.seen, rewards, *_ = self.env.step(pairs)
        return rewards

    def scalars(self, index):
        return self.seen["scalars"][:, index].tolist()


@pytest.fixture
def game():
    """``game(num_worlds, num_agents, **changes)``."""
    return Game


LIVELY = {
    "num_agents": 4,
    "size": 6,
    "initial_resources": 6,
    "max_resources": 8,
    "respawn_prob": 0.1,
    "harms": (5.0, 1.0, 0.0, 0.0, 0.0),
    "initial_level": 0.5,
    "max_turns": 9,
}


@pytest.fixture
def lively():
    """``lively(num_envs, **changes)``: resources and punishments everywhere, votes, harm, short episodes."""
    return lambda num_envs, **changes: StatePunishment(num_envs, **LIVELY | changes)


@pytest.fixture
def play_randomly():
    """``play_randomly(env, num_steps, seed, drain)``: everything that comes back."""

    def play(env, num_steps, seed=0, drain=False):
        env.action_space.seed(seed)
        results = [env.reset(seed=seed)]
        for _ in range(num_steps):
            results.append(env.step(env.action_space.sample()))
            if drain:
                results.append(env.drain_statistics())
        return results

    return play


@pytest.fixture
def same():
    """Whether two structures hold the same."""

    def compare(left, right):
        try:
            np.testing.assert_equal(left, right)
        except AssertionError:
            return False
        return True

    return compare

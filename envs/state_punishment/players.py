"""Scripted players for a hidden level that never changes: what memory is worth in State Punishment.

``python -m envs.state_punishment.players`` prints the table of their returns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.state_punishment.bounds import expected_best
from envs.state_punishment.environment import StatePunishment
from envs.state_punishment.grid import Grid
from envs.state_punishment.judges import NOT_A_KIND, BayesianJudge, FixedJudge, InformedJudge, Judge
from envs.state_punishment.menu import Menu
from envs.state_punishment.rules import KINDS

WALK_DISCOUNT = 0.2  # how much less a resource draws for each step that it is farther away
CURIOSITY = 1e-3  # what draws to the edge of the view where nothing better is seen


class Player:
    """A player of all rows of an environment (not ``flat``, no phased voting): never votes, and takes what is worth it.

    In a menu it takes the arm of the greatest worth, if that is positive. In a grid it walks to what draws it most: a
    resource in sight draws with its worth, discounted by the length of the way to it around walls and what is to be
    left alone; where there is none in reach, the edge of the view does.

    Args:
        env: the environment to play.
        judge: says what each kind is worth.
        seed: of the generator that decides between equal ways.
    """

    def __init__(self, env: StatePunishment, judge: Judge, seed: int = 0):
        self.env, self.judge = env, judge
        self.rng = np.random.default_rng(seed)
        self.turn = np.zeros(env.num_envs, dtype=np.int64)
        self.taken = np.full(env.num_envs, NOT_A_KIND)
        self.heading = np.zeros(env.num_envs, dtype=np.int64)

    def __call__(self, observations: dict[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """Return the actions for ``observations``; ``starts`` (bool ``[R]``) says which of them open an episode."""
        scalars, flag = observations["scalars"], self.env.scalars.punishment
        self.turn[starts], self.taken[starts] = 0, NOT_A_KIND
        punished = scalars[:, flag] > 0 if flag is not None else np.zeros(len(scalars), dtype=np.bool_)
        self.judge.learn(self.taken, punished)
        self.judge.begin(starts)
        worths = self.judge.worth(scalars, self.env.max_turns - self.turn)
        board = self.env.board
        if isinstance(board, Menu):
            moves = self._choose(observations[board.leaf], worths)
        else:
            moves = self._walk(board, observations[board.leaf], worths)
        self.turn += 1
        return self.env.action_set.encode(moves)

    def _choose(self, menu: np.ndarray, worths: np.ndarray) -> np.ndarray:
        """Return the moves in a menu, and remember the kinds that are taken."""
        kinds = menu.argmax(axis=2)  # [R, M]
        offered = np.take_along_axis(worths, kinds, axis=1)
        arm = offered.argmax(axis=1)
        rows = np.arange(len(arm))
        takes = offered[rows, arm] > 0
        self.taken = np.where(takes, kinds[rows, arm], NOT_A_KIND)
        return np.where(takes, arm, self.env.action_set.rest)

    def _walk(self, board: Grid, image: np.ndarray, worths: np.ndarray) -> np.ndarray:
        """Return the moves in a grid, and remember the kinds that are taken."""
        wall, first = (2, 4) if board.slot else (1, 3)
        kinds = image[:, first : first + len(KINDS)] > 0  # [R, 5, V, V]
        walls = image[:, wall] > 0
        worth = np.einsum("rkyx,rk->ryx", kinds, worths)
        resource = kinds.any(axis=1)
        wanted, barred = resource & (worth > 0), walls | (resource & (worth <= 0))
        edge = np.full(walls.shape[1:], CURIOSITY)
        edge[1:-1, 1:-1] = 0
        fixed = np.where(wanted, worth, np.where(barred, 0, edge))
        pull = _spread(fixed, wanted | barred)
        ways = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]]) + board.radius
        y, x = ways.T
        draws = np.where(walls, -np.inf, np.where(barred, worth - 1, pull))[:, y, x]  # [R, 4]
        rows = np.arange(len(draws))
        draws = draws * (1 + 1e-9 * self.rng.random(draws.shape)) + 1e-20 * self.rng.random(draws.shape)
        draws[rows, self.heading] *= 1 + 1e-6  # of equals straight on, else any
        moves = self.heading = draws.argmax(axis=1)
        entered = kinds[rows, :, y[moves], x[moves]]  # [R, 5]
        self.taken = np.where(entered.any(axis=1), entered.argmax(axis=1), NOT_A_KIND)
        return moves


def _spread(fixed: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return how much each cell draws: its fixed draw, or that of the best neighbour, discounted, if that is greater.

    Args:
        fixed: draw of each cell by itself, ``[R, V, V]``.
        ends: cells through which no way leads, bool ``[R, V, V]``.
    """
    side = fixed.shape[1]
    pull = np.zeros((len(fixed), side + 2, side + 2))
    inner = pull[:, 1:-1, 1:-1]
    inner[:] = fixed
    for _ in range(side * side):
        vertical = np.maximum(pull[:, :-2, 1:-1], pull[:, 2:, 1:-1])
        horizontal = np.maximum(pull[:, 1:-1, :-2], pull[:, 1:-1, 2:])
        better = np.where(ends, fixed, np.maximum(fixed, WALK_DISCOUNT * np.maximum(vertical, horizontal)))
        if np.array_equal(better, inner):
            break
        inner[:] = better
    return pull[:, 1:-1, 1:-1]


def returns(env: StatePunishment, player: Player, seed: int = 0) -> np.ndarray:
    """Play one episode in every row, and return the sums of rewards, ``[R]``."""
    observations, _ = env.reset(seed=seed)
    starts, total = np.ones(env.num_envs, dtype=np.bool_), np.zeros(env.num_envs)
    for _ in range(env.max_turns):
        observations, rewards, _, starts, _ = env.step(player(observations, starts))
        total += rewards
    return total


def hidden_level(num_envs: int, **changes: Any) -> StatePunishment:
    """Make a game of single agents at a random level that is hidden and never changes; punishments are visible.

    Args:
        num_envs: the number of agents.
        **changes: arguments of ``StatePunishment`` in place of these.
    """
    fixed: dict[str, Any] = {"num_agents": 1, "votes": False, "initial_level": "random", "harms": (0.0,) * len(KINDS)}
    return StatePunishment(num_envs, **fixed | {"level_visible": False, "punishment_visible": True} | changes)


def players(num_envs: int, **changes: Any) -> dict[str, tuple[StatePunishment, Player]]:
    """Return the reference players by name, each with its environment: ``hidden_level(num_envs, **changes)``.

    Args:
        num_envs: the number of agents.
        **changes: arguments of ``StatePunishment``.
    """
    env, seen = hidden_level(num_envs, **changes), hidden_level(num_envs, **changes | {"level_visible": True})
    mean = env.voting.prior() @ env.payoffs.net_values()
    eager, shy = mean.copy(), mean.copy()
    eager[0], shy[0] = max(mean[0], 0.1), -1.0
    judges: dict[str, Judge] = {
        "takes A": FixedJudge(eager),
        "never A": FixedJudge(shy),
        "no A after a punishment": FixedJudge(eager, env.scalars.punishment),
        "Bayesian": BayesianJudge(env),
    }
    rows = {name: (env, Player(env, judge)) for name, judge in judges.items()}
    return rows | {"knows the level": (seen, Player(seen, InformedJudge(seen)))}


ONLY_A = (1.0, 0.0, 0.0, 0.0, 0.0)
GRID_OF_STUDIES = {"initial_resources": 14, "max_resources": 14, "respawn_prob": 0.01}
SETTINGS: dict[str, dict[str, Any]] = {
    "menu of one, always A": {"menu": True, "menu_size": 1, "spawn_probabilities": ONLY_A},
    "menu of three": {"menu": True, "menu_size": 3},
    "grid, only A": GRID_OF_STUDIES | {"spawn_probabilities": ONLY_A},
    "grid, 8 resources, no respawn": {},
    "grid, 14 of at most 14, respawn 0.01": GRID_OF_STUDIES,
}


def main(episodes: int = 4000) -> None:
    """Print mean returns with their standard errors, and the exact ones where they are known."""
    for title, changes in SETTINGS.items():
        env = hidden_level(1, **changes)
        print(title)
        for name, (own, player) in players(episodes, **changes).items():
            total = returns(own, player)
            print(f"    {name:24} {total.mean():8.2f} +- {total.std() / np.sqrt(total.size):.2f}")
        if env.optimal_return is not None and env.memoryless_return is not None:
            print(f"    exact: memoryless {env.memoryless_return:.2f}, Bayesian {env.optimal_return:.2f}")
        if isinstance(env.board, Menu):
            turns, net, prior, size = env.max_turns, env.payoffs.net_values(), env.voting.prior(), env.board.size
            informed = prior @ [expected_best(row, env.chances, size) for row in net]
            blind = expected_best(prior @ net, env.chances, size)
            print(f"    exact: blind to punishments {turns * blind:.2f}, level known {turns * informed:.2f}")


if __name__ == "__main__":
    main()

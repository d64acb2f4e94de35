"""Scripted players for a hidden level that never changes: what memory is worth in State Punishment.

`python -m envs.state_punishment.players` prints the table of their returns.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from envs.state_punishment.bounds import backward, expected_best, net_values, prior
from envs.state_punishment.environment import StatePunishment
from envs.state_punishment.rules import KINDS, level_index

NOT_A_KIND = -1
WALK_DISCOUNT = 0.2  # how much less a resource draws for each step that it is farther away
ENCOUNTERS = 0.4  # resources that a walker meets in a turn, roughly
CURIOSITY = 1e-3  # what draws to the edge of the view where nothing better is seen


class Judge(Protocol):
    """Says what each kind is worth taking."""

    def begin(self, rows: np.ndarray) -> None:
        """Forget what was learned in these rows (bool `[R]`)."""

    def learn(self, taken: np.ndarray, punished: np.ndarray) -> None:
        """What was taken with the last action (kinds `[R]`, -1 for none), and whether it was punished (bool `[R]`)."""

    def worth(self, scalars: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Worth of the kinds, `[R, 5]`, with `left` turns to go; what is not positive is left alone."""


class FixedJudge:
    """The same worth always, `[5]`; with a `flag` (index of a scalar) kind A is left alone while it is up."""

    def __init__(self, worths: np.ndarray, flag: int | None = None):
        self.worths, self.flag = worths, flag

    def begin(self, rows: np.ndarray) -> None:
        pass

    def learn(self, taken: np.ndarray, punished: np.ndarray) -> None:
        pass

    def worth(self, scalars: np.ndarray, left: np.ndarray) -> np.ndarray:
        worths = np.tile(self.worths, (len(scalars), 1))
        if self.flag is not None:
            worths[scalars[:, self.flag] > 0, 0] = -1
        return worths


class InformedJudge:
    """Knows the level, which has to be visible."""

    def __init__(self, env: StatePunishment):
        if not env.scalars.level:
            raise ValueError("an informed player needs level_visible=True.")
        self.net, _ = net_values(env)

    def begin(self, rows: np.ndarray) -> None:
        pass

    def learn(self, taken: np.ndarray, punished: np.ndarray) -> None:
        pass

    def worth(self, scalars: np.ndarray, left: np.ndarray) -> np.ndarray:
        return self.net[level_index(scalars[:, 0])]


class BayesianJudge:
    """Holds the exact posterior over the ten levels, from its own punishments.

    Worth of a kind: its expected net value; for kind A plus the value of the information that taking it brings, from
    the dynamic programme `bounds.backward` at the numbers of A taken and punished so far. With a menu of one arm that
    is always A this is the optimal player. Elsewhere it is a good one: the programme does not know that the other kinds
    tell of the level, too, and in the grid it guesses how often an A is met.
    """

    def __init__(self, env: StatePunishment):
        if env.votes or env.delayed_punishment or not env.probabilistic or env.scalars.punishment is None:
            raise ValueError(
                "a Bayesian player needs votes=False, delayed_punishment=False, "
                "punishment_mode=probabilistic and punishment_visible=True."
            )
        self.net, self.chance = net_values(env)
        self.prior, self.turns = prior(env), env.max_episode_steps
        self.belief = np.tile(self.prior, (env.num_envs, 1))  # [R, 10]
        self.counts = np.zeros((2, env.num_envs), dtype=np.int64)  # A taken, A punished
        offers = {"offer": ENCOUNTERS * env.chances[0]}
        if env.board.leaf == "menu":
            offers = _offers(self.net, env.chances, env.board.size)
        programme = backward(self.net[:, 0], self.chance[:, 0], self.prior, self.turns, **offers)
        self.information = [information for _, information in programme]  # by turns left, from 1

    def begin(self, rows: np.ndarray) -> None:
        self.belief[rows], self.counts[:, rows] = self.prior, 0

    def learn(self, taken: np.ndarray, punished: np.ndarray) -> None:
        rows = np.flatnonzero(taken != NOT_A_KIND)
        chance = self.chance[:, taken[rows]].T  # [rows, 10]
        self.belief[rows] *= np.where(punished[rows, None], chance, 1 - chance)
        self.belief[rows] /= self.belief[rows].sum(axis=1, keepdims=True)
        self.counts += np.stack([taken == 0, (taken == 0) & punished])

    def worth(self, scalars: np.ndarray, left: np.ndarray) -> np.ndarray:
        worths = self.belief @ self.net
        for turns in np.unique(left):
            rows = left == turns
            worths[rows, 0] += self.information[turns - 1][*self.counts[:, rows]]
        return worths


def _offers(net: np.ndarray, chances: np.ndarray, size: int) -> dict[str, Any]:
    """How often A is on a menu, and what else is there then."""
    other = 1 - chances[0] ** (size - 1)  # probability that one of the other arms is of another kind
    without_a = np.where(np.arange(len(KINDS)) == 0, 0, net)  # [10, 5]
    best = np.array([expected_best(row, chances, size - 1) for row in without_a])
    return {"offer": 1 - (1 - chances[0]) ** size, "alternative": best / max(other, 1e-12), "alternative_offer": other}


class Player:
    """Plays all rows of an environment (not `flat`, no phased voting), never voting, as its judge says.

    In a menu it takes the arm of the greatest worth, if that is positive. In a grid it walks to what draws it most: a
    resource in sight draws with its worth, discounted by the length of the way to it around walls and what is to be
    left alone; where there is none in reach, the edge of the view does.
    """

    def __init__(self, env: StatePunishment, judge: Judge, seed: int = 0):
        self.env, self.judge = env, judge
        self.rng = np.random.default_rng(seed)
        self.turn = np.zeros(env.num_envs, dtype=np.int64)
        self.taken = np.full(env.num_envs, NOT_A_KIND)
        self.heading = np.zeros(env.num_envs, dtype=np.int64)

    def __call__(self, observations: dict[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """Actions for observations, `starts` (bool `[R]`) saying which of them open an episode."""
        scalars, flag = observations["scalars"], self.env.scalars.punishment
        self.turn[starts], self.taken[starts] = 0, NOT_A_KIND
        punished = scalars[:, flag] > 0 if flag is not None else np.zeros(len(scalars), dtype=np.bool_)
        self.judge.learn(self.taken, punished)
        self.judge.begin(starts)
        worths = self.judge.worth(scalars, self.env.max_episode_steps - self.turn)
        if "menu" in observations:
            moves = self._choose(observations["menu"], worths)
        else:
            moves = self._walk(observations["image"], worths)
        self.turn += 1
        return self.env.action_set.encode(moves)

    def _choose(self, menu: np.ndarray, worths: np.ndarray) -> np.ndarray:
        kinds = menu.argmax(axis=2)  # [R, M]
        offered = np.take_along_axis(worths, kinds, axis=1)
        arm = offered.argmax(axis=1)
        rows = np.arange(len(arm))
        takes = offered[rows, arm] > 0
        self.taken = np.where(takes, kinds[rows, arm], NOT_A_KIND)
        return np.where(takes, arm, self.env.action_set.rest)

    def _walk(self, image: np.ndarray, worths: np.ndarray) -> np.ndarray:
        first = 4 if self.env.board.slot else 3
        kinds = image[:, first : first + len(KINDS)] > 0  # [R, 5, V, V]
        walls = image[:, first - 2 if self.env.board.slot else 1] > 0
        worth = np.einsum("rkyx,rk->ryx", kinds, worths)
        resource = kinds.any(axis=1)
        wanted, barred = resource & (worth > 0), walls | (resource & (worth <= 0))
        edge = np.full(walls.shape[1:], CURIOSITY)
        edge[1:-1, 1:-1] = 0
        fixed = np.where(wanted, worth, np.where(barred, 0, edge))
        pull = _spread(fixed, wanted | barred)
        middle = self.env.board.radius
        ways = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]]) + middle
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
    """How much each cell draws, `[R, V, V]`: the `fixed` draw, or that of the best neighbour, discounted, if greater.

    Nothing leads through cells that are `ends`.
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
    """Returns of one episode in every row, `[R]`."""
    observations, _ = env.reset(seed=seed)
    starts, total = np.ones(env.num_envs, dtype=np.bool_), np.zeros(env.num_envs)
    for _ in range(env.max_episode_steps):
        observations, rewards, _, starts, _ = env.step(player(observations, starts))
        total += rewards
    return total


def hidden_level(num_envs: int, **changes: Any) -> StatePunishment:
    """Single agents at a random level that is hidden and never changes; their own punishments are visible."""
    fixed = {"num_agents": 1, "votes": False, "initial_level": "random", "harms": (0.0,) * len(KINDS)}
    return StatePunishment(num_envs, **fixed | {"level_visible": False, "punishment_visible": True} | changes)


def players(num_envs: int, **changes: Any) -> dict[str, tuple[StatePunishment, Player]]:
    """The reference players by name, each with an environment of its own, for `hidden_level(num_envs, **changes)`."""
    env, seen = hidden_level(num_envs, **changes), hidden_level(num_envs, **changes | {"level_visible": True})
    mean = prior(env) @ net_values(env)[0]
    eager, shy = mean.copy(), mean.copy()
    eager[0], shy[0] = max(mean[0], 0.1), -1.0
    judges = {
        "takes A": FixedJudge(eager),
        "never A": FixedJudge(shy),
        "no A after a punishment": FixedJudge(eager, env.scalars.punishment),
        "Bayesian": BayesianJudge(env),
    }
    rows = {name: (env, Player(env, judge)) for name, judge in judges.items()}
    return rows | {"knows the level": (seen, Player(seen, InformedJudge(seen)))}


ONLY_A = (1.0, 0.0, 0.0, 0.0, 0.0)
GRID_OF_STUDIES = {"initial_resources": 14, "max_resources": 14, "respawn_prob": 0.01}
SETTINGS = {
    "menu of one, always A": {"menu": True, "menu_size": 1, "spawn_probabilities": ONLY_A},
    "menu of three": {"menu": True, "menu_size": 3},
    "grid, only A": GRID_OF_STUDIES | {"spawn_probabilities": ONLY_A},
    "grid, 8 resources, no respawn": {},
    "grid, 14 of at most 14, respawn 0.01": GRID_OF_STUDIES,
}


def main(episodes: int = 4000) -> None:
    """Prints mean returns with their standard errors, and the exact ones where they are known."""
    for title, changes in SETTINGS.items():
        env = hidden_level(1, **changes)
        print(title)
        for name, (own, player) in players(episodes, **changes).items():
            total = returns(own, player)
            print(f"    {name:24} {total.mean():8.2f} +- {total.std() / np.sqrt(total.size):.2f}")
        if env.optimal_return is not None:
            print(f"    exact: memoryless {env.memoryless_return:.2f}, Bayesian {env.optimal_return:.2f}")
        if env.board.leaf == "menu":
            turns, net, size = env.max_episode_steps, net_values(env)[0], env.board.size
            informed = prior(env) @ [expected_best(row, env.chances, size) for row in net]
            blind = expected_best(prior(env) @ net, env.chances, size)
            print(f"    exact: blind to punishments {turns * blind:.2f}, level known {turns * informed:.2f}")


if __name__ == "__main__":
    main()

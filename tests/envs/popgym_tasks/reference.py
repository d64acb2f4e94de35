"""POPGym's tasks for one copy in plain Python, from their description, and players that know what is hidden."""

import numpy as np

DECKS = {"colors": 2, "suits": 4, "ranks": 13}


def deal(rng, kind, num_decks):
    """A shuffled deck: `deal(rng, "suits", 1)` has 13 cards of each suit."""
    cards = [card for card in range(DECKS[kind]) for _ in range(52 * num_decks // DECKS[kind])]
    rng.shuffle(cards)
    return cards


class Reference:
    """`hidden` names what a test copies into the task: the draws of an episode."""

    hidden = ("cards",)

    def __init__(self, level, seed):
        self.rng = np.random.default_rng(seed)
        values = self.levels[("easy", "medium", "hard").index(level)]
        vars(self).update(zip(self.keys, values, strict=True))

    def reset(self):
        self.time = 0
        self.cards = deal(self.rng, self.kind, self.decks)
        return self.show()

    def show(self):
        return self.cards[self.time]


class RepeatFirst(Reference):
    keys, kind, levels = ("decks",), "suits", [(1,), (8,), (16,)]

    def step(self, action):
        reward = (1 if action == self.cards[0] else -1) / (len(self.cards) - 1)
        self.time += 1
        return self.show(), reward, self.time == len(self.cards) - 1, False


class RepeatPreviousCards(Reference):
    keys, kind, levels = ("decks", "k"), "suits", [(1, 4), (2, 32), (3, 64)]

    def step(self, action):
        seen, reward = self.cards[: self.time + 1], 0
        if len(seen) >= self.k:
            reward = (1 if action == seen[-self.k] else -1) / (len(self.cards) - self.k)
        self.time += 1
        return self.show(), reward, self.time == len(self.cards) - 1, False


class HigherLower(Reference):
    keys, kind, levels = ("decks",), "ranks", [(1,), (2,), (3,)]

    def step(self, action):
        before, after = self.cards[self.time : self.time + 2]
        guess = 1 if action == 0 else -1
        self.time += 1
        return self.show(), guess * np.sign(after - before) / len(self.cards), self.time == len(self.cards) - 1, False


class Autoencode(Reference):
    keys, kind, levels = ("decks",), "suits", [(1,), (2,), (3,)]

    def reset(self):
        super().reset()
        self.pile = [self.cards[0]]
        return 1, self.pile[0]

    def step(self, action):
        self.time += 1
        if self.time < len(self.cards):
            self.pile.append(self.cards[self.time])
            return int(self.time < len(self.cards) - 1), self.pile[-1], 0, False, False
        reward = (1 if action == self.pile.pop() else -1) / len(self.cards)
        return 0, 0, reward, not self.pile, False


class CountRecall(Reference):
    hidden = ("values", "queries")
    keys, levels = ("decks", "kind"), [(1, "colors"), (2, "suits"), (4, "ranks")]

    def reset(self):
        self.time = 0
        self.values, self.queries = deal(self.rng, self.kind, self.decks), deal(self.rng, self.kind, self.decks)
        return self.show()

    def show(self):
        return self.values[self.time], self.queries[self.time]

    def step(self, action):
        count = self.values[: self.time + 1].count(self.queries[self.time])
        self.time += 1
        steps = len(self.values) - 1
        return *self.show(), (1 if action == count else -1) / steps, self.time == steps, False


class Concentration(Reference):
    keys, levels = ("decks", "kind", "limit"), [(1, "colors", 104), (2, "colors", 208), (1, "ranks", 104)]

    def reset(self):
        self.up, self.attempt = set(), []
        return super().reset()

    def show(self):
        visible = self.up | set(self.attempt)
        return [card if i in visible else DECKS[self.kind] for i, card in enumerate(self.cards)]

    def step(self, action):
        self.time += 1
        self.attempt.append(action)
        shown, reward = self.show(), 0
        if action in self.up:
            reward = -len(self.attempt) / self.limit
        elif len(self.attempt) == 2:
            one, other = self.attempt
            if one != other and self.cards[one] == self.cards[other]:
                self.up |= {one, other}
                reward = 2 / len(self.cards)
            else:
                reward = -2 / self.limit
        if reward:
            self.attempt = []
        return shown, reward, len(self.up) == len(self.cards), self.time == self.limit


class MineSweeper(Reference):
    hidden = ("cells", "neighbours")
    keys, levels = ("side", "mines"), [(4, 2), (6, 6), (8, 10)]

    def reset(self):
        self.time, self.viewed, size = 0, set(), self.side**2
        self.cells = [0] * size
        for cell in self.rng.choice(size, self.mines, replace=False):
            self.cells[cell] = 1
        self.neighbours = [self.count(*divmod(cell, self.side)) for cell in range(size)]
        return 0

    def count(self, row, column):
        around = [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        return sum(self.cells[i * self.side + j] for i, j in around if 0 <= i < self.side and 0 <= j < self.side)

    def step(self, action):
        cell, free = action[0] * self.side + action[1], self.side**2 - self.mines
        self.time += 1
        if self.cells[cell]:
            return self.neighbours[cell], -0.5 - 1 / free, True, False
        reward = -0.5 / (free - 2) if cell in self.viewed else 1 / free
        self.viewed.add(cell)
        won = len(self.viewed) == free
        return self.neighbours[cell], reward, won, self.time == free and not won


class Battleship(Reference):
    hidden = ("cells",)
    keys, levels = ("side",), [(8,), (10,), (12,)]

    def reset(self):
        """Ships are tried until they fit."""
        self.time, self.hits, board = 0, set(), np.zeros((self.side, self.side), dtype=int)
        for length in (2, 3, 3, 4):
            placed = False
            while not placed:
                row, column = self.rng.integers(self.side, size=2)
                view = (board if self.rng.integers(2) else board.T)[row, column : column + length]
                placed = len(view) == length and not view.any()
            view[:] = 1
        self.cells = board.ravel()
        return 0

    def step(self, action):
        self.time += 1
        cell = action[0] * self.side + action[1]
        hit = self.cells[cell] == 1 and cell not in self.hits
        self.hits |= {cell} if hit else set()
        reward = 1 / 12 if hit else -1 / (self.side**2 - 12)
        return int(hit), reward, len(self.hits) == 12, self.time >= self.side**2


def act_well(env):
    """Actions of who sees what is hidden, so that there are pairs, hits and wins as well: `[B, ...]`."""
    step, rows, name = env.elapsed_steps, env.rows, type(env).__name__
    if name == "RepeatFirst":
        return env.cards[:, 0]
    if name == "RepeatPreviousCards":
        return env.cards[rows, np.maximum(step - env.k + 1, 0)]
    if name == "Autoencode":
        return env.cards[rows, (2 * env.num_cards - 2 - step) % env.num_cards]
    if name == "HigherLower":
        return (env.cards[rows, step + 1] < env.cards[rows, step]) * 1
    if name == "CountRecall":
        asked = env.values == env.queries[rows, step][:, None]
        return (asked & (np.arange(env.num_cards) <= step[:, None])).sum(axis=1)
    if name == "Concentration":
        wanted = np.where(env.held >= 0, env.cards[rows, env.held], env.cards[rows, env.board.argmax(axis=1)])
        down = (env.board == env.num_kinds) & (np.arange(env.num_cards) != env.held[:, None])
        return (down & (env.cards == wanted[:, None])).argmax(axis=1)
    cell = (env.cells == (0 if name == "MineSweeper" else 1)).argmax(axis=1)
    return np.stack(np.divmod(cell, env.side), axis=1)

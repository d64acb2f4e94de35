"""POPGym's cart-poles: seen by their velocities only, or by their positions through noise."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.classic_control import CartPole
from envs.drawing import RenderMode
from envs.popgym_tasks.decks import choose_level


class VelocityOnlyCartPole(CartPole):
    """Balance a pole on a cart, seeing how fast they move but not where they are.

    Observation: ``Box(-inf, inf, (2,), float32)``: the velocities of cart and pole; the first one of an episode shows
    position and angle instead, as POPGym does.
    Action: ``Discrete(2)``: push the cart to the left or to the right.
    Reward: ``1 / limit`` for every step.
    End: terminated beyond 2.4 or 12 degrees, truncated after ``limit`` = 200, 400 or 600 steps.
    Optimal return: 1; the first observation and the sum of all velocities tell the positions.
    Memoryless return: None, not known exactly.
    Source: POPGym's VelocityOnlyCartPole. One copy draws what POPGym draws with the same seed.
    """

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None, render_mode: RenderMode = None):
        limit = choose_level(level, easy=200, medium=400, hard=600)
        super().__init__(num_envs, spaces.Box(-np.inf, np.inf, (2,), np.float32), limit, device, render_mode)
        self.level, self.step_reward = level, 1 / limit
        self.optimal_return = 1.0

    def _observe(self) -> Array:
        observations = self.xp.empty((self.num_envs, 2), self.xp.float32)
        observations[:] = self.xp.where(self.elapsed_steps == 0, self.state[::2], self.state[1::2]).T
        return observations


class NoisyPositionOnlyCartPole(CartPole):
    """Balance a pole on a cart, seeing where they are through noise, and not how fast they move.

    Observation: ``Box((2,), float32)``: cart position (within 4.8) and pole angle (within 0.418 rad), each with normal
    noise of standard deviation 0.1, 0.2 or 0.3, clipped to the bounds.
    Action: ``Discrete(2)``: push the cart to the left or to the right.
    Reward: ``1 / 200`` for every step.
    End: terminated beyond 2.4 or 12 degrees, truncated after 200 steps.
    Optimal return: None, not known exactly; at most 1.
    Memoryless return: None, not known either.
    Source: POPGym's NoisyPositionOnlyCartPole. One copy draws what POPGym draws with the same seed.
    """

    state_names = ("state", "noise")
    step_reward = 1 / 200

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None, render_mode: RenderMode = None):
        self.level, self.sigma = level, choose_level(level, easy=0.1, medium=0.2, hard=0.3)
        space = self.make_position_space()
        super().__init__(num_envs, space, 200, device, render_mode)
        self.noise = self.xp.zeros((self.num_envs, 2), self.xp.float32)
        self._low, self._high = (
            self.xp.asarray(np.tile(bound, (self.num_envs, 1))) for bound in (space.low, space.high)
        )

    def _draw_noise(self, num_rows: int) -> Array:
        return self.xp.astype(self.draws.normal(0.0, self.sigma, size=(num_rows, 2)), self.xp.float32)

    def _start(self, rows: Array) -> None:
        super()._start(rows)
        self.xp.put(self.noise, rows, self._draw_noise(len(rows)))

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        results = super()._advance(actions)
        self.noise = self.xp.renew(self.noise, self._draw_noise(self.num_envs))
        return results

    def _observe(self) -> Array:
        noisy = self._observe_positions() + self.noise
        noisy = self.xp.where(noisy < self._low, self._low, noisy)
        return self.xp.where(noisy > self._high, self._high, noisy)

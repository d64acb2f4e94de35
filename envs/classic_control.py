"""Gymnasium's classic control tasks without the velocities, so that they must be inferred from what came before.

Physics, rewards, start distributions and time limits are those of Gymnasium's CartPole-v1, Pendulum-v1 and
MountainCarContinuous-v0, computed for all rows at once, down to the same float32 roundings.
"""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import DRAWN_FAST, BatchedEnv
from envs.drawing import Picture, RenderMode, cart_pole, mountain_car, pendulum


class CartPole(BatchedEnv):
    """The cart and its pole; what of them is shown, and for how long, is up to the tasks that derive from this.

    Args:
        num_envs: B.
        observation_space: of one copy.
        max_episode_steps: steps after which an episode is truncated.
        device: None for numpy, or the name of a device of torch.
        render_mode: "rgb_array" for pictures by ``render``, or None.
    """

    metadata = DRAWN_FAST
    state_names: tuple[str, ...] = ("state",)
    gravity, pole_mass, total_mass, half_length = 9.8, 0.1, 1.1, 0.5
    pole_mass_length, force_magnitude, tau = 0.05, 10.0, 0.02
    position_limit, angle_limit = 2.4, 12 * 2 * math.pi / 360
    step_reward = 1.0

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Box,
        max_episode_steps: int,
        device: str | None = None,
        render_mode: RenderMode = None,
    ):
        super().__init__(num_envs, observation_space, spaces.Discrete(2), max_episode_steps, device, render_mode)
        self.state = self.xp.zeros((4, self.num_envs), self.xp.float64)  # x, x_dot, theta, theta_dot

    @classmethod
    def make_position_space(cls) -> spaces.Box:
        """Return the space of cart position and pole angle, twice as wide as where an episode ends."""
        high = np.array([2 * cls.position_limit, 2 * cls.angle_limit], dtype=np.float32)
        return spaces.Box(-high, high, dtype=np.float32)

    def _start(self, rows: Array) -> None:
        self.xp.put(self.state.T, rows, self.draws.uniform(-0.05, 0.05, size=(4, len(rows))).T)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        x, x_dot, theta, theta_dot = self.state
        force = (2 * actions - 1) * self.force_magnitude
        cos, sin = self.xp.cos(theta), self.xp.sin(theta)
        temp = (force + self.pole_mass_length * theta_dot**2 * sin) / self.total_mass
        theta_acc = (self.gravity * sin - cos * temp) / (
            self.half_length * (4.0 / 3.0 - self.pole_mass * cos**2 / self.total_mass)
        )
        x_acc = temp - self.pole_mass_length * theta_acc * cos / self.total_mass
        x += self.tau * x_dot
        x_dot += self.tau * x_acc
        theta += self.tau * theta_dot
        theta_dot += self.tau * theta_acc
        terminated = (abs(x) > self.position_limit) | (abs(theta) > self.angle_limit)
        return self.xp.ones(self.num_envs, self.xp.float64) * self.step_reward, terminated

    def _observe_positions(self) -> Array:
        """Return cart position and pole angle, float32 ``[B, 2]``."""
        observations = self.xp.empty((self.num_envs, 2), self.xp.float32)
        observations[:] = self.state[::2].T
        return observations

    def _draw(self, row: int) -> Picture:
        return cart_pole(float(self.state[0, row]), float(self.state[2, row]), self.position_limit)


class CartPoleNoVelocity(CartPole):
    """Balance a pole on a cart, seeing where they are but not how fast they move.

    Observation: ``Box((2,), float32)``: cart position (within 4.8) and pole angle (within 0.418 rad).
    Action: ``Discrete(2)``: push the cart to the left or to the right.
    Reward: +1 for every step.
    End: terminated beyond 2.4 or 12 degrees, truncated after 500 steps.
    Optimal return: 500, the time limit; two successive observations give the velocities.
    Memoryless return: None, not known exactly; agents trained without a memory reach about 50.
    Source: Barto, Sutton and Anderson (1983), as in Gymnasium's CartPole-v1; masked as in RL Baselines3 Zoo.
    """

    def __init__(self, num_envs: int, device: str | None = None, render_mode: RenderMode = None):
        super().__init__(num_envs, self.make_position_space(), 500, device, render_mode)
        self.optimal_return = 500.0

    def _observe(self) -> Array:
        return self._observe_positions()


class PendulumNoVelocity(BatchedEnv):
    """Swing a pendulum up and hold it there, seeing its angle but not its speed.

    Observation: ``Box(-1, 1, (2,), float32)``: cosine and sine of the angle (0 is upright).
    Action: ``Box(-2, 2, (1,), float32)``: the torque.
    Reward: ``-(angle^2 + 0.1 * speed^2 + 0.001 * torque^2)``, with the angle in [-pi, pi].
    End: truncated after 200 steps.
    Optimal return: None, not known in closed form; PPO that sees the speed reaches about -170.
    Memoryless return: None, not known either.
    Source: Gymnasium's Pendulum-v1; masked as in RL Baselines3 Zoo.
    """

    metadata = DRAWN_FAST
    state_names = ("angle", "speed")
    max_speed, max_torque, dt, gravity = 8.0, 2.0, 0.05, 10.0

    def __init__(self, num_envs: int, device: str | None = None, render_mode: RenderMode = None):
        action_space = spaces.Box(-self.max_torque, self.max_torque, (1,), np.float32)
        observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        super().__init__(num_envs, observation_space, action_space, 200, device, render_mode)
        self.angle = self.xp.zeros(self.num_envs, self.xp.float64)
        self.speed = self.xp.zeros(self.num_envs, self.xp.float64)

    def _start(self, rows: Array) -> None:
        self.xp.put(self.angle, rows, self.draws.uniform(-np.pi, np.pi, size=len(rows)))
        self.xp.put(self.speed, rows, self.draws.uniform(-1.0, 1.0, size=len(rows)))

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        torque = actions[:, 0]
        angle = (self.angle + np.pi) % (2 * np.pi) - np.pi
        cost = angle**2 + 0.1 * self.speed**2 + 0.001 * torque**2
        speed = self.speed + (3 * self.gravity / 2 * self.xp.sin(self.angle) + 3.0 * torque) * self.dt
        speed = self.xp.minimum(self.xp.maximum(speed, -self.max_speed), self.max_speed)
        self.speed = self.xp.renew(self.speed, speed)
        self.angle += self.speed * self.dt
        return -cost, self.xp.zeros(self.num_envs, self.xp.bool)

    def _observe(self) -> Array:
        observations = self.xp.empty((self.num_envs, 2), self.xp.float32)
        observations[:, 0] = self.xp.cos(self.angle)
        observations[:, 1] = self.xp.sin(self.angle)
        return observations

    def _draw(self, row: int) -> Picture:
        return pendulum(float(self.angle[row]), float(self.speed[row]), self.max_speed)


class MountainCarContinuousNoVelocity(BatchedEnv):
    """Rock a weak car out of a valley with little effort, seeing where it is but not how fast it moves.

    Observation: ``Box(-1.2, 0.6, (1,), float32)``: the position.
    Action: ``Box(-1, 1, (1,), float32)``: the force.
    Reward: +100 at the goal, minus ``0.1 * force^2`` in every step.
    End: terminated at position 0.45, truncated after 999 steps.
    Optimal return: None, not known in closed form; a little below 100, and 90 counts as solved.
    Memoryless return: None, not known either; doing nothing gets 0.
    Source: Moore (1990), as in Gymnasium's MountainCarContinuous-v0; masked as in RL Baselines3 Zoo.
    """

    metadata = DRAWN_FAST
    state_names = ("position", "velocity")
    min_position, max_position, goal_position = -1.2, 0.6, 0.45
    max_speed, power = 0.07, 0.0015

    def __init__(self, num_envs: int, device: str | None = None, render_mode: RenderMode = None):
        space = spaces.Box(self.min_position, self.max_position, (1,), np.float32)
        action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        super().__init__(num_envs, space, action_space, 999, device, render_mode)
        self.position = self.xp.zeros(self.num_envs, self.xp.float32)
        self.velocity = self.xp.zeros(self.num_envs, self.xp.float32)

    def _start(self, rows: Array) -> None:
        self.xp.put(self.position, rows, self.draws.uniform(-0.6, -0.4, size=len(rows)))
        self.xp.put(self.velocity, rows, 0.0)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        xp, force = self.xp, actions[:, 0]
        # Gymnasium keeps the state in float32 but takes the cosine in float64.
        slope = 0.0025 * xp.cos(xp.astype(3 * self.position, xp.float64))
        velocity = self.velocity + (force * self.power - xp.astype(slope, xp.float32))
        velocity = xp.minimum(xp.maximum(velocity, -self.max_speed), self.max_speed)
        position = xp.minimum(xp.maximum(self.position + velocity, self.min_position), self.max_position)
        self.position = xp.renew(self.position, position)
        velocity = xp.where(position == self.min_position, xp.maximum(velocity, 0.0), velocity)
        self.velocity = xp.renew(self.velocity, velocity)
        terminated = (self.position >= self.goal_position) & (self.velocity >= 0.0)
        return 100.0 * terminated - 0.1 * xp.astype(force, xp.float64) ** 2, terminated

    def _observe(self) -> Array:
        observations = self.xp.empty((self.num_envs, 1), self.xp.float32)
        observations[:, 0] = self.position
        return observations

    def _draw(self, row: int) -> Picture:
        return mountain_car(float(self.position[row]), self.min_position, self.max_position, self.goal_position)

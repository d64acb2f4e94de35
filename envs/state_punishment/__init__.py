"""State Punishment: N agents, each alone in a grid of its own, under one punishment level on which they vote."""

from envs.state_punishment.environment import StatePunishment

__all__ = ["StatePunishment"]

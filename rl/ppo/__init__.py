"""Proximal policy optimisation over sequences replayed from stored states. Others use ``PPO``."""

from rl.ppo.update import PPO

__all__ = ["PPO"]

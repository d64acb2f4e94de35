"""Implicit quantile networks over replayed sequences. Others use ``IQN``."""

from rl.iqn.update import IQN

__all__ = ["IQN"]

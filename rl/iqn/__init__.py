"""Implicit quantile networks over replayed sequences. Others use :class:`IQN`."""

from rl.iqn.update import IQN

__all__ = ["IQN"]

"""Agents that other libraries have trained, read as data and made into agents of ours."""

from rl.foreign.sb3 import from_sb3
from rl.foreign.sb3_file import read_sb3

__all__ = ["from_sb3", "read_sb3"]

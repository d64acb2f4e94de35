"""Checks that a recurrent agent replays, resets and learns what it should, in anyone's environment."""

from rl.memory_check.environments import check_environment
from rl.memory_check.verdicts import Verdict

__all__ = ["Verdict", "check_environment"]

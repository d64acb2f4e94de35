"""Checks that a recurrent agent replays, resets and learns what it should, in anyone's environment."""

from rl.memory_check.check import check_learner, check_memory, check_model
from rl.memory_check.environments import check_environment
from rl.memory_check.module import check_memory_of_module
from rl.memory_check.sb3 import check_memory_of_sb3
from rl.memory_check.subject import Learner, Replayed, Subject, Trace
from rl.memory_check.verdicts import Verdict

__all__ = [
    "Learner",
    "Replayed",
    "Subject",
    "Trace",
    "Verdict",
    "check_environment",
    "check_learner",
    "check_memory",
    "check_memory_of_module",
    "check_memory_of_sb3",
    "check_model",
]

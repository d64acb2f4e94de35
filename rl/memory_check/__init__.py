"""Checks that a recurrent agent replays, resets and learns what it should, in anyone's environment."""

from rl.memory_check.check import check_learner, check_memory, check_model
from rl.memory_check.environments import check_environment
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
    "check_model",
]

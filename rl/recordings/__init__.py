"""Learning from recorded episodes: how they are stored, read and imitated. Others use the names below."""

from rl.recordings.imitation import Imitation, Imitator
from rl.recordings.imitation_trainer import ImitationTrainer
from rl.recordings.recording import Recording

__all__ = ["Imitation", "ImitationTrainer", "Imitator", "Recording"]

"""One training run: the loop, evaluation, metrics, threads, checkpoints and signals. Others use the names below."""

from rl.training.evaluation import Evaluation, evaluate
from rl.training.metrics import Metrics
from rl.training.trainer import Trainer

__all__ = ["Evaluation", "Metrics", "Trainer", "evaluate"]

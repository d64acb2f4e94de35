"""Watch a run from elsewhere: whoever is told of it. Others use the names below."""

from rl.training.observers.csv_file import CSV
from rl.training.observers.mlflow_run import MLflow
from rl.training.observers.observer import Observer, Observers, Run
from rl.training.observers.wandb_run import WandB

__all__ = ["CSV", "MLflow", "Observer", "Observers", "Run", "WandB"]

"""A run in MLflow."""

import time
from collections.abc import Mapping
from typing import Any

from rl.training.observers.observer import Run, recall_name, remember_name

MOST_PARAMETERS, LONGEST_PARAMETER = 100, 6000
"""How many MLflow takes at once, and how many letters of one."""


class MLflow:
    """Shows a run in MLflow; a resumed one goes on in the same run there.

    Where it goes is said by the environment, as MLflow documents it: ``MLFLOW_TRACKING_URI``, else MLflow chooses a
    place in the working folder. A run folder, which may be a stranger's, cannot say it.

    Args:
        experiment: the run is shown in.

    Raises:
        ImportError: MLflow is not installed.
    """

    def __init__(self, experiment: str = "recurrent-ppo"):
        try:
            import mlflow
        except ImportError as error:
            raise ImportError(
                f"the observer mlflow needs the package {error.name}: pip install 'recurrent-ppo[mlflow]'"
            ) from error
        self.mlflow, self.experiment = mlflow, experiment
        self.told: dict[str, int] = {}  # the last step of each tag when the run goes on

    def begin(self, run: Run, config: Mapping[str, Any]) -> None:
        """Open the run, with its settings as its parameters."""
        self.client = self.mlflow.MlflowClient()
        name = recall_name(run, "mlflow")
        if name is None:
            found = self.client.get_experiment_by_name(self.experiment)
            home = self.client.create_experiment(self.experiment) if found is None else found.experiment_id
            name = self.client.create_run(home, run_name=run.run_dir.absolute().name).info.run_id
            remember_name(run, "mlflow", name)
        else:
            self.client.update_run(name, status="RUNNING")
        self.name = name
        stored = self.client.get_run(name).data
        self.told = {tag: max(m.step for m in self.client.get_metric_history(name, tag)) for tag in stored.metrics}
        self.log_settings(config, stored.params)

    def log_settings(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Log parameters; those that a resumed run has changed as tags, since MLflow changes no parameter."""
        entities = self.mlflow.entities
        texts = {key: str(value)[:LONGEST_PARAMETER] for key, value in config.items()}
        fresh = [entities.Param(key, text) for key, text in texts.items() if key not in known]
        for first in range(0, len(fresh), MOST_PARAMETERS):
            self.client.log_batch(self.name, params=fresh[first : first + MOST_PARAMETERS])
        for key, text in texts.items():
            if known.get(key, text) != text:
                self.client.set_tag(self.name, f"resumed.{key}", text)

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Log values, but for those that are there already because the run had gone further before."""
        fresh = {tag: value for tag, value in values.items() if step > self.told.get(tag, -1)}
        now, kind = int(time.time() * 1000), self.mlflow.entities.Metric
        self.client.log_batch(self.name, metrics=[kind(tag, float(value), now, step) for tag, value in fresh.items()])

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Close the run."""
        self.client.set_terminated(self.name, "KILLED" if result is None else "FINISHED")

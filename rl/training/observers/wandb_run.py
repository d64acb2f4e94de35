"""A run in Weights & Biases."""

import secrets
from collections.abc import Mapping
from typing import Any

from rl.training.observers.observer import Run, recall_name, remember_name


class WandB:
    """Shows a run in Weights & Biases; a resumed one goes on in the same run there.

    Who you are and where it goes is said by the environment, as Weights & Biases documents it: ``WANDB_ENTITY``,
    ``WANDB_MODE=offline`` and so on. A run folder, which may be a stranger's, cannot say it.

    Args:
        project: the run is shown in.
        group: of runs that belong together, the seeds of an experiment say.

    Raises:
        ImportError: Weights & Biases is not installed.
    """

    def __init__(self, project: str = "recurrent-ppo", group: str | None = None):
        try:
            import wandb
        except ImportError as error:
            raise ImportError(
                f"the observer wandb needs the package {error.name}: pip install 'recurrent-ppo[wandb]'"
            ) from error
        self.wandb, self.project, self.group = wandb, project, group

    def begin(self, run: Run, config: Mapping[str, Any]) -> None:
        """Open the run, with its settings as its config."""
        name = recall_name(run, "wandb") or secrets.token_hex(8)
        self.run = self.wandb.init(
            project=self.project,
            group=self.group,
            id=name,
            name=run.run_dir.absolute().name,
            dir=str(run.run_dir.absolute()),
            resume="allow",
            settings=self.wandb.Settings(console="off"),  # the progress bar is no log
        )
        remember_name(run, "wandb", name)
        self.run.config.update(dict(config), allow_val_change=True)

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Log values; of a step before the last one they are there already, and Weights & Biases leaves them out."""
        self.run.log(dict(values), step=step)

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Close the run, with the numbers of its result as its summary."""
        numbers = {name: value for name, value in (result or {}).items() if isinstance(value, (int, float, str))}
        self.run.summary.update(numbers)
        self.run.finish(exit_code=1 if result is None else 0)

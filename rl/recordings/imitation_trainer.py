"""The run of an imitation: its epochs, reports, evaluations, checkpoints, and the weights to keep."""

import copy
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from rl.checkpoint import find_newest, load_checkpoint, naming_file, save_and_keep, save_checkpoint
from rl.checks import positive
from rl.recordings.imitation import Imitator
from rl.schema import check_entry, natural
from rl.training.metrics import Metrics
from rl.training.run import checkpoint_path, crossed, naming_what_stands
from rl.training.signals import Stopped, StopSignals


class ImitationTrainer:
    """The training of an agent by an ``rl.recordings.Imitator``, epoch by epoch.

    Args:
        imitator: teaches the agent.
        run_dir: gets ``checkpoints/last.pt``, which holds the agent as a training run's would, and ``previous.pt``.
        evaluate: ``evaluate() -> {tag: value}``, called after every ``evaluate_every``-th epoch; None where there is no
            environment.
        evaluate_every: epochs; None for never.

    Attributes:
        epochs_done: so many epochs are finished.
        best_epoch: number of the epoch, from 1, whose weights are kept so far.
        best_nll: its held-out loss.
        history: what was reported of each epoch.
        seconds: of learning, evaluations left out.

    Raises:
        ValueError: ``evaluate_every`` is below 1.
    """

    def __init__(
        self,
        imitator: Imitator,
        run_dir: Path,
        evaluate: Callable[[], dict[str, float]] | None = None,
        evaluate_every: int | None = None,
    ):
        if evaluate_every is not None:
            positive(evaluate_every=evaluate_every)
        self.imitator, self.run_dir, self.path = imitator, run_dir, checkpoint_path(run_dir)
        self.saved_epochs: int | None = None  # after which last.pt was written; None if it is not to be kept
        self.evaluate, self.evaluate_every = evaluate, evaluate_every
        self.epochs_done = self.best_epoch = 0
        self.best_nll, self.best_weights = float("inf"), self._copy_weights()
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.stopped_by: int | None = None
        self.fingerprint = imitator.compute_fingerprint()

    @property
    def steps_per_epoch(self) -> int:
        """Steps that are learned from in an epoch: the x axis counts these."""
        return len(self.imitator.train_steps)

    def train(self, metrics: Metrics) -> bool:
        """Make the epochs that are left, then take the weights to keep; a signal ends it after the running epoch.

        An evaluation that a signal breaks off is left out.

        Returns:
            False if a signal did, whose number is ``stopped_by``.
        """
        imitator = self.imitator
        if not self.epochs_done:
            imitator.update_moments()
        with StopSignals() as stop, naming_what_stands(self.run_dir):
            while self.epochs_done < imitator.hyperparameters.epochs and stop.number is None:
                began = time.perf_counter()
                learned = imitator.epoch(self.epochs_done)
                self.seconds += time.perf_counter() - began
                self.epochs_done += 1
                values = {"imitation/train_nll": learned["nll"], "losses/grad_norm": learned["grad_norm"]}
                self._report(values, metrics, stop)
                self.save(metrics)
            last = self._copy_weights()
            imitator.network.load_state_dict(self.best_weights)
            self.save(metrics, last)
        self.stopped_by = stop.number
        return stop.number is None

    def _report(self, values: dict[str, float], metrics: Metrics, stop: StopSignals) -> None:
        """Measure what the last epoch was worth, keep its weights if they are to be kept, and write it all down."""
        values |= self.imitator.measure()
        nll = values["imitation/held_out_nll"]
        if not self.best_epoch or nll < self.best_nll or not self.imitator.hyperparameters.keep_best:
            self.best_epoch, self.best_nll, self.best_weights = self.epochs_done, nll, self._copy_weights()
        if self.evaluate is not None and crossed(self.evaluate_every, self.epochs_done - 1, self.epochs_done):
            with suppress(Stopped), stop.raising():
                values |= self.evaluate()
        self.history.append({"epoch": self.epochs_done, "seconds": self.seconds, **values})
        steps = self.epochs_done * self.steps_per_epoch
        metrics.scalars(values, steps)
        metrics.progress(steps, nll, steps / self.seconds, "held-out nll")

    def _copy_weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.imitator.network.state_dict())

    def save(self, metrics: Metrics, last: dict[str, Tensor] | None = None) -> None:
        """Write the agent as it is, and what ``resume`` needs; ``last`` are the weights to go on from.

        Raises:
            FloatingPointError: the agent is ruined; nothing was written.
            OSError: the file cannot be written, and the older ones stand; or the curves cannot.
        """
        state = {
            "done": self.epochs_done,
            "best_epoch": self.best_epoch,
            "best_nll": self.best_nll,
            "best": self.best_weights,
            "history": self.history,
            "seconds": self.seconds,
            "last": last,
            "recording": self.fingerprint,
        }
        try:
            metrics.flush()
        finally:  # curves that cannot be written are no reason to lose what was learned
            save = save_checkpoint if self.saved_epochs in (None, self.epochs_done) else save_and_keep
            save({"agent": self.imitator.agent.state_dict(), "imitation": state}, self.path)
            self.saved_epochs = self.epochs_done

    def schema(self, state: Any) -> dict[str, Any]:
        """Say what the entry ``imitation`` of a checkpoint holds, for ``rl.schema``."""
        weights, real = self.imitator.network.state_dict(), (int, float)
        last = weights if isinstance(state, dict) and state.get("last") is not None else type(None)
        counts = {"done": natural, "best_epoch": natural}
        return counts | {"best_nll": real, "best": weights, "history": list, "seconds": real, "last": last}

    def resume(self) -> None:
        """Go on from the last epoch that was finished and whose checkpoint is whole, exactly.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: it is damaged, of an agent of another shape, or was not written by learning from this recording
                with the same part of it held out.
        """
        path = find_newest(self.run_dir)
        content = load_checkpoint(path, self.imitator.device)
        if "imitation" not in content:
            raise ValueError(f"{path} was written by a training run, not by learning from a recording")
        state = content["imitation"]
        with naming_file(path, content):
            check_entry(state, self.schema(state), "imitation")
            if state.get("recording") not in (None, self.fingerprint):  # earlier ones do not say
                raise ValueError(
                    "it learned from another recording, or with another part of it held out: data, seed and what "
                    "imitation says of both must be as they were, or a new run be made"
                )
            self.imitator.agent.load_state_dict(content["agent"])
        if path == self.path:
            self.saved_epochs = state["done"]
        if state["last"] is not None:
            self.imitator.network.load_state_dict(state["last"])
        self.epochs_done, self.history, self.seconds = state["done"], state["history"], state["seconds"]
        self.best_epoch, self.best_nll, self.best_weights = state["best_epoch"], state["best_nll"], state["best"]

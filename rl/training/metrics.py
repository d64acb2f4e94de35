"""Reports a run: scalars in TensorBoard, a progress bar, and the glossary of every tag."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.summary.writer.event_file_writer import _AsyncWriterThread
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from rl.networks.diagnostics import NAMES
from rl.training.observers.observer import Observer, Observers

GLOSSARY = {
    "charts/episodic_return": "mean return of the training episodes that ended in this rollout",
    "charts/episodic_length": "their mean length in steps",
    "charts/SPS": "environment steps per second of training since the start, evaluations left out",
    "charts/learning_rate": "of Adam in this update; if it is adaptive, at its end",
    "charts/clip": "clip range of the probability ratio in this update (PPO)",
    "charts/entropy_coef": "weight of the entropy bonus in this update (PPO)",
    "charts/epsilon": "probability of a random action in training (RecurrentIQN)",
    "losses/policy_loss": "clipped surrogate, mean over the minibatches of an update",
    "losses/value_loss": "half the squared error of the value",
    "losses/entropy": "entropy of the policy, summed over the action branches",
    "losses/entropy_*": "entropy of one action branch (several branches only)",
    "losses/approx_kl": "estimated KL divergence between the policy before and during the update",
    "losses/clipfrac": "share of probability ratios outside the clip range",
    "losses/explained_variance": "1 - Var(returns - values) / Var(returns): 1 is a perfect critic, below 0 a bad one",
    "losses/grad_norm": "norm of the gradient before clipping",
    "losses/teacher_kl": "KL(policy || teacher) summed over the action branches (teacher_kl above 0 only)",
    "losses/recall_loss": "squared error of what the memory tells of 1, 2, 4, ... steps before (with recall_coef)",
    "losses/quantile_loss": "quantile Huber loss, summed over the quantiles of a step (RecurrentIQN)",
    "losses/q_mean": "mean value of the replayed actions: settles near the (scaled) returns to come (RecurrentIQN)",
    "eval/episodic_return": "mean return of greedy evaluation episodes",
    "eval/episodic_return_memory_zeroed": "the same with the memory cleared before every step",
    "imitation/train_nll": "-log likelihood of the recorded actions in the epoch, joint over the branches, nats a step",
    "imitation/held_out_nll": "the same on steps that are never learned from, after the epoch",
    "imitation/held_out_nll_changes": "the same on those of them at which the action differs from the last one",
    "imitation/repeat_nll": "held-out loss of the rule that repeats the last action with a fitted probability",
    "imitation/repeat_nll_changes": "the same on the steps at which the action differs from the last one",
    "imitation/skill": "repeat_nll minus held_out_nll: above 0 the network knows more than the last action",
    "imitation/*_six_heads": "losses as the sum over six heads of a controller, its buttons averaged (Slippi games)",
    "hparam/*": "results of the whole run, for the table in the HPARAMS tab",
    "diagnostics/ratio_error": "largest |ratio - 1| in the first minibatch of an update: above 1e-3 replay is wrong",
    "diagnostics/state_staleness": "|stored - recomputed| / |recomputed| of the states that sequences start from, with "
    "the weights after an update: 0 is fresh. With a burn-in of the states after it",
    "diagnostics/gradient_share_older_than_*": "share of the gradient of a step's loss by the inputs of the memory, "
    "of those more than k steps back in its episode: at 0 nothing is learned from there",
    "diagnostics/hidden_norm": "mean norm of the output vector of the memory",
    "diagnostics/gate_saturation": "share of gates below .05 or above .95, where they hardly learn (cores with gates)",
    "diagnostics/dead_features": "share of the encoder's features whose standard deviation over a rollout is below .01",
    "diagnostics/memory_gap": "eval/episodic_return minus its memory-zeroed counterpart: what memory is worth",
    "diagnostics/memory_gap_stderr": "standard error of memory_gap, over pairs of episodes of one seed",
}

# all other results of an update are losses
GROUPS = dict.fromkeys(("learning_rate", "clip", "entropy_coef", "epsilon"), "charts")
GROUPS |= dict.fromkeys(("ratio_error", *NAMES), "diagnostics")
FLUSH_SECONDS = 5  # after which others see a point of the curves, also where TensorFlow is installed, which buffers
log = logging.getLogger(__name__)


def wait_for_a_later_second(run_dir: Path) -> None:
    """Wait until an event file made now sorts behind those that ``run_dir`` has: a second at most.

    TensorBoard reads them in the order of their names, which begin with the second of their making. Of two files of one
    second it may read the resumed run's first, and would then drop its points as out of order.
    """
    now = time.time()
    if any(run_dir.glob(f"events.out.tfevents.{int(now)}.*")):
        time.sleep(int(now) + 1 - now)


def tag_update(results: Mapping[str, float]) -> dict[str, float]:
    """Return the results of one update of an agent under the tags of its metrics.

    Those of a member of a population, ``member/metric``, keep its name: ``losses/member/policy_loss``.
    """
    metrics = {name: name.rpartition("/")[2] for name in results}
    return {
        f"{GROUPS.get(metric, 'losses')}/{name}": results[name] for name, metric in metrics.items() if metric != "loss"
    }


class Metrics:
    """A writer to TensorBoard and to the progress bar of one run; the x axis is environment steps.

    When the event file cannot be written any more, training goes on without curves until ``flush`` says so, which is
    when the run is saved.

    Args:
        run_dir: where the event file goes.
        total_steps: the end of the progress bar.
        step: the step that a resumed run goes on from; events after it are dropped.
        observers: are told of the scalars, too, and of the run by ``observers.begin`` and ``observers.end``.

    Raises:
        OSError: there can be no event file.
    """

    def __init__(self, run_dir: Path, total_steps: int, step: int = 0, observers: Mapping[str, Observer] | None = None):
        wait_for_a_later_second(run_dir)
        self.run_dir = run_dir
        self.fault: OSError | None = None  # what keeps the event file from being written
        self._usual_hook, threading.excepthook = threading.excepthook, self._tell_of_thread
        try:
            self.writer = SummaryWriter(str(run_dir), purge_step=step + 1 if step else None, flush_secs=FLUSH_SECONDS)
        except OSError as error:
            threading.excepthook = self._usual_hook
            raise self._name_folder(error) from error
        self.bar = tqdm(total=total_steps, initial=step, unit=" steps", unit_scale=True, disable=None, smoothing=0.05)
        self.observers = Observers(observers)
        self.total_steps = total_steps
        self.logged_tenth = 10 * step // total_steps

    def text(self, tag: str, markdown: str) -> None:
        """Write a text beside the curves."""
        self._write(self.writer.add_text, tag, markdown)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write ``values`` under their tags, and tell observers; every tag stands in ``GLOSSARY``."""
        for tag, value in values.items():
            self._write(self.writer.add_scalar, tag, value, step)
        self.observers.report(values, step)

    def progress(self, step: int, value: float | None, steps_per_second: float, name: str = "return") -> None:
        """Move the bar; without a terminal log a line for each tenth of the training instead."""
        mean = "-" if value is None else f"{value:.2f}"
        self.bar.set_postfix_str(f"{name} {mean}", refresh=False)
        self.bar.update(step - self.bar.n)
        tenth = 10 * step // self.total_steps
        if tenth > self.logged_tenth:
            self.logged_tenth = tenth
            if self.bar.disable:
                log.info("%d steps, %s %s, %.0f steps/s", step, name, mean, steps_per_second)

    def say(self, message: str) -> None:
        """Print a line that does not tear the bar."""
        log.info(message) if self.bar.disable else self.bar.write(message, file=sys.stderr)

    def flush(self) -> None:
        """Send everything written so far on its way to disk.

        Raises:
            OSError: it cannot be written, or could not be since the last call.
        """
        self._write(self.writer.flush)
        if self.fault is not None:
            raise self.fault

    def hparams(self, config: dict[str, Any], results: dict[str, float]) -> None:
        """Write the table of TensorBoard's HPARAMS tab, in the run itself."""
        plain = {name: value for name, value in config.items() if isinstance(value, (int, float, str, bool))}
        self._write(
            self.writer.add_hparams, plain, {f"hparam/{name}": value for name, value in results.items()}, run_name="."
        )

    def _write(self, write: Callable[..., object], *given: object, **named: object) -> None:
        """Hand something to the event file, unless that has failed before."""
        try:
            if self.fault is None:
                write(*given, **named)
        except OSError as error:
            self.fault = self._name_folder(error)

    def _tell_of_thread(self, given: threading.ExceptHookArgs) -> None:
        """Leave a thread that failed to the usual hook; of one that writes an event file the next write tells."""
        if not isinstance(given.thread, _AsyncWriterThread):
            self._usual_hook(given)

    def _name_folder(self, error: OSError) -> OSError:
        """Return the fault of an event file with the name of its folder."""
        return OSError(error.errno, f"its curves cannot be written: {error.strerror or error}", str(self.run_dir))

    def __enter__(self) -> "Metrics":
        """Return the writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close bar and event file; a fault of the file is raised unless there is an error already."""
        self.observers.end(None)
        self.bar.close()
        self._write(self.writer.close)
        threading.excepthook = self._usual_hook
        if self.fault is not None and kind is None:
            raise self.fault


class Mute(Metrics):
    """The reports of a shard that is not the first of its run: there are none."""

    def __init__(self) -> None:
        self.fault, self.observers = None, Observers()

    def text(self, tag: str, markdown: str) -> None:
        """Write nothing."""

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Write nothing."""

    def progress(self, step: int, value: float | None, steps_per_second: float, name: str = "return") -> None:
        """Move nothing."""

    def say(self, message: str) -> None:
        """Say nothing."""

    def flush(self) -> None:
        """Send nothing."""

    def hparams(self, config: dict[str, Any], results: dict[str, float]) -> None:
        """Write nothing."""

    def __exit__(self, *_: object) -> None:
        """Close nothing."""

"""Learning from recordings: the network of a PPO agent is taught the likelihood of recorded actions.

The loss is the joint negative log-likelihood, summed over all action branches, so it is -log pi of the same policy that
PPO goes on with. Memory runs through whole episodes: streams replay one after the other, their state is carried from
window to window, and cleared where an episode begins.
"""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rl.agents.actor import PREVIOUS_ACTION, PREVIOUS_REWARD
from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.checks import one_of, positive, within
from rl.flat_adam import guarded_step
from rl.training.metrics import Metrics
from rl.networks.heads import BernoulliHead, CategoricalHead
from rl.recordings.recording import SPLITS, Recording, Streams, cut, deal, split
from rl.recordings.repeat_baseline import changes, repeat_nll
from rl.training.run import StopSignals, checkpoint_path, crossed
from rl.transfer import upload
from rl.types import Observation, State


@dataclass(kw_only=True)
class Imitation:
    """How a recording is turned into weights.

    Args:
        epochs: passes over what is not held out.
        streams: episodes replayed side by side.
        window_size: steps of each stream between two updates.
        bptt: within a window the gradient goes back through pieces so long; None for the whole window. The state is
            carried over their borders all the same.
        piece_steps: longer episodes are cut into pieces so long, each beginning with an empty memory, to fill the
            streams from few episodes; None keeps them whole.
        burn_in: steps in front of such a piece that only warm its memory, without loss.
        learning_rate: of Adam.
        anneal_learning_rate: linearly to 0 over the epochs.
        max_grad_norm: a longer gradient is scaled down to this norm.
        held_out: share of the recording that is never learned from.
        split: hold out whole ``episodes`` (all of a group together), or the last part of each by ``time``.
        keep_best: end with the weights of the epoch of the lowest held-out loss instead of the last one.

    Raises:
        ValueError: a value out of range.
    """

    epochs: int = 20
    streams: int = 8
    window_size: int = 64
    bptt: int | None = None
    piece_steps: int | None = None
    burn_in: int = 0
    learning_rate: float = 3e-3
    anneal_learning_rate: bool = True
    max_grad_norm: float = 1.0
    held_out: float = 0.1
    split: Literal["episodes", "time"] = "episodes"
    keep_best: bool = True

    def __post_init__(self):
        positive(epochs=self.epochs, streams=self.streams, window_size=self.window_size)
        positive(**{name: getattr(self, name) for name in ("bptt", "piece_steps") if getattr(self, name) is not None})
        within(0, float("inf"), burn_in=self.burn_in)
        within(1e-12, float("inf"), learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        within(0.001, 0.999, held_out=self.held_out)
        one_of(SPLITS, split=self.split)
        if self.burn_in and self.piece_steps is None:
            raise ValueError(f"burn_in={self.burn_in} warms pieces of episodes: set piece_steps as well")


class Imitator:
    """Teaches the network of ``agent`` what a recording holds; one epoch is what :meth:`epoch` does.

    Args:
        agent: a :class:`rl.agents.RecurrentPPO` for the spaces of the recording; its network and optimiser are used.
        recording: what to learn from.
        how: hyperparameters.
        seed: of the split and of the order in which episodes are replayed.

    Raises:
        ValueError: the recording cannot be split like that.
    """

    def __init__(self, agent: Any, recording: Recording, how: Imitation, seed: int):
        self.agent, self.network, self.how, self.seed = agent, agent.network, how, seed
        self.head, self.device = agent.network.head, agent.device
        self.recording = recording
        train, held = split(recording, how.held_out, how.split, seed)
        self.train_pieces, self.held_pieces = cut(train, how.piece_steps, how.burn_in), cut(held)
        self.actions = self.head.from_environment(recording.actions)  # [N, columns]
        self.targets = torch.from_numpy(self.actions).to(self.device)
        self.obs = {name: torch.from_numpy(leaf).to(self.device) for name, leaf in recording.obs.items()}
        if agent.feed_previous:
            self.obs |= self._previous()
        self.parameters = list(self.network.parameters())
        steps = [np.concatenate([np.arange(first, end) for first, end in spans]) for spans in (train, held)]
        self.train_steps, self.held_steps = steps
        self.baseline = self._baseline()

    def _previous(self) -> Observation:
        """What an agent is fed of its last step, from the recording; zeros at the first step of an episode."""
        begins = torch.from_numpy(self.recording.begins).to(self.device).unsqueeze(1)
        rewards = torch.from_numpy(self.recording.rewards).to(self.device).unsqueeze(1)
        last = {PREVIOUS_ACTION: self.head.as_previous(self.targets), PREVIOUS_REWARD: rewards}
        return {name: leaf.roll(1, 0).masked_fill(begins, 0) for name, leaf in last.items()}

    def _baseline(self) -> dict[str, np.ndarray]:
        """Losses of the repeat rule and the marginal rule on the held-out steps, ``[n, columns]``."""
        sizes = None
        if isinstance(self.head, CategoricalHead):
            sizes = self.head.sizes
        elif isinstance(self.head, BernoulliHead):
            sizes = [2] * self.head.num_params
        rules = repeat_nll(self.actions, self.recording.begins, self.train_steps, self.held_steps, sizes)
        return dict(zip(("repeat", "marginal"), rules, strict=True))

    def warm_moments(self) -> None:
        """The running moments of the observations, where the agent keeps them, from what is learned from."""
        steps = torch.from_numpy(self.train_steps).to(self.device)
        self.network.update_moments({name: leaf[steps] for name, leaf in self.obs.items()})

    def epoch(self, number: int) -> dict[str, float]:
        """One pass; epochs are numbered from 0, which decides order and learning rate, so that one can be repeated.

        Returns:
            Mean loss and norm of the gradient.

        Raises:
            FloatingPointError: a gradient was not finite; the steps that it would have spoilt were not taken.
        """
        how, optimizer = self.how, self.agent.optimizer
        left = 1.0 - number / how.epochs if how.anneal_learning_rate else 1.0
        for group in optimizer.param_groups:
            group["lr"] = how.learning_rate * left
        streams = deal(self.train_pieces, how.streams, seed=self.seed * 100_003 + number)
        weight = 1.0 / (how.window_size * streams.steps.shape[1])  # of a step, however few count in a window
        nll, norms = torch.zeros((), device=self.device), []
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        self.network.train()
        for window, log_probs in self.replay(streams, how.bptt):
            counted = upload(torch.from_numpy(window.counted), self.device).unsqueeze(-1)  # [L, B, 1]
            loss = -weight * (log_probs * counted).sum()
            norm, is_finite = guarded_step(optimizer, loss, self.parameters, how.max_grad_norm, finite)
            finite = finite & is_finite
            nll += loss.detach() / weight
            norms.append(norm)
        if not bool(finite):
            raise FloatingPointError("a gradient was not finite: look for extreme observations or lower learning_rate")
        steps = int((self.train_pieces[:, 2] - self.train_pieces[:, 1]).sum())
        return {"nll": float(nll) / steps, "grad_norm": float(torch.stack(norms).mean())}

    def replay(self, streams: Streams, bptt: int | None = None) -> Iterator[tuple[Streams, Tensor]]:
        """Windows and the log-probabilities ``[L, B, branches]`` of their actions; the state is carried, detached."""
        state = self.network.initial_state(streams.steps.shape[1], self.device)
        for window in streams.windows(self.how.window_size):
            parts = []
            for piece in window.windows(bptt or self.how.window_size):
                state = {name: leaf.detach() for name, leaf in state.items()}
                log_probs, state = self._log_probs(piece, state)
                parts.append(log_probs)
            yield window, torch.cat(parts)

    def _log_probs(self, piece: Streams, state: State) -> tuple[Tensor, State]:
        shape = piece.steps.shape
        rows = upload(torch.from_numpy(piece.steps.ravel()), self.device)
        obs = {name: leaf.index_select(0, rows).unflatten(0, shape) for name, leaf in self.obs.items()}
        params, _, state = self.network.unroll(obs, state, torch.from_numpy(piece.starts))
        return self.head.evaluate(params, self.targets.index_select(0, rows).unflatten(0, shape))[0], state

    @torch.no_grad()
    def held_out_nll(self) -> np.ndarray:
        """Loss of each held-out step, ``[n, branches]``, from whole spans and an empty memory at their starts."""
        self.network.eval()
        found = np.zeros((len(self.targets), len(self.head.branches)))
        for window, log_probs in self.replay(deal(self.held_pieces, self.how.streams)):
            found[window.steps[window.counted]] = -log_probs.cpu().numpy()[window.counted]
        self.network.train()
        return found[self.held_steps]

    def measure(self) -> dict[str, float]:
        """What the network is worth on the held-out steps, by TensorBoard tag, in nats a step."""
        found, repeat = self.held_out_nll(), self.baseline["repeat"]
        changed = changes(self.actions, self.recording.begins)[self.held_steps]
        values = {
            "imitation/held_out_nll": found.sum(axis=1).mean(),
            "imitation/repeat_nll": repeat.sum(axis=1).mean(),
        }
        values["imitation/skill"] = values["imitation/repeat_nll"] - values["imitation/held_out_nll"]
        if changed.any():
            values["imitation/held_out_nll_changes"] = found[changed].sum(axis=1).mean()
            values["imitation/repeat_nll_changes"] = repeat[changed].sum(axis=1).mean()
        for name, weights in self.recording.forms.items():
            values[f"imitation/held_out_{name}"] = (found @ weights).mean()
            values[f"imitation/repeat_{name}"] = (repeat @ weights).mean()
        return {tag: float(value) for tag, value in values.items()}

    def summary(self) -> dict[str, Any]:
        """The last :meth:`measure` for ``result.json``, the loss of each branch and of the marginal rule beside it."""
        marginal, found = self.baseline["marginal"], self.held_out_nll()
        values = {tag.partition("/")[2]: value for tag, value in self.measure().items()}
        values["marginal_nll"] = float(marginal.sum(axis=1).mean())
        values |= {f"marginal_{name}": float((marginal @ w).mean()) for name, w in self.recording.forms.items()}
        values["held_out_nll_branches"] = dict(zip(self.head.branches, found.mean(axis=0).tolist(), strict=True))
        values |= {"train_steps": len(self.train_steps), "held_out_steps": len(self.held_steps)}
        return values | {"episodes": len(self.recording.groups), "held_out_pieces": len(self.held_pieces)}


class ImitationTrainer:
    """All epochs of an :class:`Imitator`, with reports, checkpoints and the weights to keep.

    Args:
        imitator: who learns.
        run_dir: gets ``checkpoints/last.pt``, which holds the agent as a training run's would.
        play: ``play() -> {tag: value}``, called after every ``play_every``-th epoch; None where nothing can be played.
        play_every: epochs.
    """

    def __init__(
        self,
        imitator: Imitator,
        run_dir: Path,
        play: Callable[[], dict[str, float]] | None = None,
        play_every: int | None = None,
    ):
        self.imitator, self.path = imitator, checkpoint_path(run_dir)
        self.play, self.play_every = play, play_every
        self.done = self.best_epoch = 0
        self.best: tuple[float, dict[str, Tensor]] | None = None
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

    @property
    def steps_per_epoch(self) -> int:
        """Steps that are learned from in an epoch: the x axis counts these."""
        return len(self.imitator.train_steps)

    def learn(self, metrics: Metrics) -> bool:
        """The epochs that are left; a signal ends them after the running one.

        Returns:
            False if a signal did.
        """
        how, network = self.imitator.how, self.imitator.network
        if not self.done:
            self.imitator.warm_moments()
        with StopSignals() as stop:
            while self.done < how.epochs and not stop.asked:
                began = time.perf_counter()
                learned = self.imitator.epoch(self.done)
                self.seconds += time.perf_counter() - began
                self.done += 1
                values = {"imitation/train_nll": learned["nll"], "losses/grad_norm": learned["grad_norm"]}
                values |= self.imitator.measure()
                loss = values["imitation/held_out_nll"]
                if self.best is None or loss < self.best[0] or not how.keep_best:
                    self.best = loss, copy.deepcopy(network.state_dict())
                    self.best_epoch = self.done
                if self.play is not None and crossed(self.play_every, self.done - 1, self.done):
                    values |= self.play()
                self.history.append({"epoch": self.done, "seconds": self.seconds, **values})
                steps = self.done * self.steps_per_epoch
                metrics.scalars(values, steps)
                metrics.progress(steps, loss, steps / self.seconds, "held-out nll")
                self.save(metrics)
        finished = not stop.asked
        last = copy.deepcopy(network.state_dict())
        network.load_state_dict(self.best[1])
        self.save(metrics, last)
        return finished

    def save(self, metrics: Metrics, last: dict[str, Tensor] | None = None) -> None:
        """Writes the agent as it is, and what :meth:`resume` needs; ``last`` are the weights to go on from."""
        metrics.flush()
        state = {"done": self.done, "best_epoch": self.best_epoch, "history": self.history, "seconds": self.seconds}
        state |= {"best_nll": self.best[0], "best": self.best[1], "last": last}
        save_checkpoint({"agent": self.imitator.agent.state_dict(), "imitation": state}, self.path)

    def resume(self) -> None:
        """Goes on from the last epoch that was finished, exactly.

        Raises:
            FileNotFoundError, ValueError: there is none that fits.
        """
        content = load_checkpoint(self.path, self.imitator.device)
        if "imitation" not in content:
            raise ValueError(f"{self.path} was written by a training run, not by learning from a recording")
        state = content["imitation"]
        self.imitator.agent.load_state_dict(content["agent"])
        if state["last"] is not None:
            self.imitator.network.load_state_dict(state["last"])
        self.done, self.best_epoch, self.history = state["done"], state["best_epoch"], state["history"]
        self.seconds, self.best = state["seconds"], (state["best_nll"], state["best"])

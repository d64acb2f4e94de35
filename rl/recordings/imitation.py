"""Learns from recordings: one pass teaches the network of a PPO agent the likelihood of recorded actions.

The loss is the joint negative log-likelihood, summed over all action branches, so it is -log pi of the same policy that
PPO goes on with. Memory runs through whole episodes: streams replay one after the other, their state is carried from
window to window, and cleared where an episode begins.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl.agents import RecurrentPPO
from rl.agents.actor import PREVIOUS_ACTION, PREVIOUS_REWARD
from rl.checks import one_of, positive, whole, within
from rl.flat_adam import guarded_step, is_usable, undone_on_failure
from rl.networks.heads import BernoulliHead, CategoricalHead
from rl.networks.modes import evaluation_mode
from rl.recordings.recording import SPLITS, Recording, Split, Streams, deal, hold_out, split_into_pieces
from rl.recordings.repeat_baseline import find_changes, repeat_nll
from rl.schedules import Schedule, check_schedules, scheduled
from rl.types import Observation, State


@dataclass(kw_only=True)
class Imitation:
    """The hyperparameters of learning from a recording.

    Args:
        epochs: passes over what is not held out.
        streams: episodes replayed side by side.
        window_size: steps of each stream between two updates.
        bptt: within a window the gradient goes back through pieces so long; None for the whole window. The state is
            carried over their borders all the same.
        piece_steps: longer episodes are split into pieces so long, each beginning with an empty memory, to fill the
            streams from few episodes; None keeps them whole.
        burn_in: steps in front of such a piece that only warm its memory, without loss.
        learning_rate: of Adam.
        learning_rate_schedule: how it gets to ``learning_rate_final`` from epoch to epoch, see ``rl.schedules``.
        learning_rate_final: after the last epoch; None for 0.
        learning_rate_warmup: share of the epochs in which it rises from a tenth.
        max_grad_norm: a longer gradient is scaled down to this norm.
        held_out: share of the recording that is never learned from.
        split: hold out whole ``episodes`` (all of a group together), or the last part of each by ``time``.
        keep_best: end with the weights of the epoch of the lowest held-out loss instead of the last one.

    Raises:
        ValueError: a value is out of range, or two do not go together.
    """

    epochs: int = 20
    streams: int = 8
    window_size: int = 64
    bptt: int | None = None
    piece_steps: int | None = None
    burn_in: int = 0
    learning_rate: float = 3e-3
    learning_rate_schedule: Schedule = "linear"
    learning_rate_final: float | None = None
    learning_rate_warmup: float = 0.0
    max_grad_norm: float = 1.0
    held_out: float = 0.1
    split: Split = "episodes"
    keep_best: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        positive(epochs=self.epochs, streams=self.streams, window_size=self.window_size)
        positive(**{name: getattr(self, name) for name in ("bptt", "piece_steps") if getattr(self, name) is not None})
        whole(0, burn_in=self.burn_in)
        within(1e-12, float("inf"), learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        within(0.001, 0.999, held_out=self.held_out)
        one_of(SPLITS, split=self.split)
        check_schedules(vars(self), ("learning_rate",))
        if self.burn_in and self.piece_steps is None:
            raise ValueError(f"burn_in={self.burn_in} warms pieces of episodes: set piece_steps as well")


class Imitator:
    """A teacher of one agent from one recording: an epoch at a time, and what it was worth.

    Args:
        agent: for the spaces of the recording; its network and optimiser are used.
        recording: what to learn from.
        hyperparameters: of the learning.
        seed: of the split and of the order in which episodes are replayed.
        fed_rewards: float32 ``[N]``, what an agent is told of the rewards in play; None for those of the recording.

    Attributes:
        train_steps: int64 ``[n]``, steps of the recording that are learned from.
        held_steps: int64 ``[m]``, steps that are held out.
        train_pieces: of what is learned from, see ``rl.recordings.recording.split_into_pieces``.
        held_pieces: of what is held out.

    Raises:
        ValueError: the recording cannot be split like that.
    """

    def __init__(
        self,
        agent: RecurrentPPO,
        recording: Recording,
        hyperparameters: Imitation,
        seed: int,
        fed_rewards: np.ndarray | None = None,
    ):
        self.agent, self.network, self.hyperparameters, self.seed = agent, agent.network, hyperparameters, seed
        self.head, self.device = agent.network.head, agent.device
        self.recording = recording
        train, held = hold_out(recording, hyperparameters.held_out, hyperparameters.split, seed)
        self.train_pieces = split_into_pieces(train, hyperparameters.piece_steps, hyperparameters.burn_in)
        self.held_pieces = split_into_pieces(held)
        self.actions = self.head.from_environment(recording.actions)  # [N, columns]
        self.targets = torch.from_numpy(self.actions).to(self.device)
        self.obs = {name: torch.from_numpy(leaf).to(self.device) for name, leaf in recording.obs.items()}
        if agent.feed_previous:
            self.obs |= self._previous_inputs(recording.rewards if fed_rewards is None else fed_rewards)
        agent.correct_scales(self.obs)
        self.parameters = list(self.network.parameters())
        self.train_steps, self.held_steps = (
            np.concatenate([np.arange(first, end) for first, end in spans]) for spans in (train, held)
        )
        self.baseline = self._fit_baseline()

    def _previous_inputs(self, paid: np.ndarray) -> Observation:
        """Make what an agent is fed of its last step, which paid ``[N]``; zeros at the first step of an episode."""
        starts = torch.from_numpy(self.recording.starts).to(self.device).unsqueeze(1)
        rewards = torch.from_numpy(paid).to(self.device).unsqueeze(1)
        last = {PREVIOUS_ACTION: self.head.as_previous(self.targets), PREVIOUS_REWARD: rewards}
        return {name: leaf.roll(1, 0).masked_fill(starts, 0) for name, leaf in last.items()}

    def _fit_baseline(self) -> dict[str, np.ndarray]:
        """Compute the losses of the repeat rule and of the marginal rule on the held-out steps, ``[m, columns]``."""
        sizes = None
        if isinstance(self.head, CategoricalHead):
            sizes = self.head.sizes
        elif isinstance(self.head, BernoulliHead):
            sizes = [2] * self.head.num_params
        rules = repeat_nll(self.actions, self.recording.starts, self.train_steps, self.held_steps, sizes)
        return dict(zip(("repeat", "marginal"), rules, strict=True))

    def compute_fingerprint(self) -> str:
        """Compute a digest of what is learned from and what is held out; observations, which may be large, left out."""
        recording, digest = self.recording, hashlib.sha256()
        for array in (recording.actions, recording.rewards, recording.bounds, self.train_steps, self.held_steps):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def update_moments(self) -> None:
        """Take what is learned from into the running moments of the observations, where the agent keeps them."""
        steps = torch.from_numpy(self.train_steps).to(self.device)
        self.network.update_moments({name: leaf[steps] for name, leaf in self.obs.items()})

    def epoch(self, number: int) -> dict[str, float]:
        """Make one pass over what is learned from.

        Args:
            number: from 0; it decides order and learning rate, so that an epoch can be repeated.

        Returns:
            Mean loss and norm of the gradient.

        Raises:
            FloatingPointError: a loss, gradient or weight was not finite; weights and optimiser are as they were
                before the epoch.
        """
        hyperparameters, optimizer = self.hyperparameters, self.agent.optimizer
        optimizer.param_groups[0]["lr"] = scheduled(hyperparameters, "learning_rate", number / hyperparameters.epochs)
        streams = deal(self.train_pieces, hyperparameters.streams, seed=self.seed * 100_003 + number)
        window_steps = hyperparameters.window_size * streams.steps.shape[1]
        weight = 1.0 / window_steps  # of a step, however few count in a window
        nll, norms = torch.zeros((), device=self.device), []
        finite = torch.ones((), dtype=torch.bool, device=self.device)
        self.network.train()
        with undone_on_failure(self.network, optimizer):
            for window, log_probs in self.replay(streams, hyperparameters.bptt):
                counted = torch.from_numpy(window.counted).to(self.device, non_blocking=True).unsqueeze(-1)  # [L, B, 1]
                loss = -weight * (log_probs * counted).sum()
                norm, is_finite = guarded_step(optimizer, loss, self.parameters, hyperparameters.max_grad_norm, finite)
                finite = finite & is_finite
                nll += loss.detach() / weight
                norms.append(norm)
            if not bool(finite & is_usable(optimizer)):
                raise FloatingPointError(
                    "a gradient was not finite: look for extreme observations or lower learning_rate"
                )
        steps = int((self.train_pieces[:, 2] - self.train_pieces[:, 1]).sum())
        return {"nll": float(nll) / steps, "grad_norm": float(torch.stack(norms).mean())}

    def replay(self, streams: Streams, bptt: int | None = None) -> Iterator[tuple[Streams, Tensor]]:
        """Yield windows and log-probabilities ``[L, B, branches]`` of their actions; the state is carried, detached."""
        window_size = self.hyperparameters.window_size
        state = self.network.initial_state(streams.steps.shape[1], self.device)
        for window in streams.windows(window_size):
            parts = []
            for part in window.windows(bptt or window_size):
                state = {name: leaf.detach() for name, leaf in state.items()}
                log_probs, state = self._log_probs(part, state)
                parts.append(log_probs)
            yield window, torch.cat(parts)

    def _log_probs(self, part: Streams, state: State) -> tuple[Tensor, State]:
        """Replay a part of a window: log-probabilities ``[L, B, branches]`` and the state after it."""
        shape = part.steps.shape
        steps = torch.from_numpy(part.steps.ravel()).to(self.device, non_blocking=True)
        obs = {name: leaf.index_select(0, steps).unflatten(0, shape) for name, leaf in self.obs.items()}
        params, _, state = self.network.unroll(obs, state, torch.from_numpy(part.starts))
        return self.head.evaluate(params, self.targets.index_select(0, steps).unflatten(0, shape))[0], state

    @torch.no_grad()
    def held_out_nll(self) -> np.ndarray:
        """Compute the loss of each held-out step, ``[m, branches]``; memories are empty where held-out spans begin."""
        losses = np.zeros((len(self.targets), len(self.head.branches)))
        with evaluation_mode(self.network):
            for window, log_probs in self.replay(deal(self.held_pieces, self.hyperparameters.streams)):
                losses[window.steps[window.counted]] = -log_probs.cpu().numpy()[window.counted]
        return losses[self.held_steps]

    def measure(self) -> dict[str, float]:
        """Measure what the network is worth on the held-out steps, by TensorBoard tag, in nats a step."""
        losses, repeat = self.held_out_nll(), self.baseline["repeat"]
        changed = find_changes(self.actions, self.recording.starts)[self.held_steps]
        values = {
            "imitation/held_out_nll": losses.sum(axis=1).mean(),
            "imitation/repeat_nll": repeat.sum(axis=1).mean(),
        }
        values["imitation/skill"] = values["imitation/repeat_nll"] - values["imitation/held_out_nll"]
        if changed.any():
            values["imitation/held_out_nll_changes"] = losses[changed].sum(axis=1).mean()
            values["imitation/repeat_nll_changes"] = repeat[changed].sum(axis=1).mean()
        for name, weights in self.recording.branch_weights.items():
            values[f"imitation/held_out_{name}"] = (losses @ weights).mean()
            values[f"imitation/repeat_{name}"] = (repeat @ weights).mean()
        return {tag: float(value) for tag, value in values.items()}

    def summarise(self) -> dict[str, Any]:
        """Collect ``measure`` for ``result.json``, with the loss of each branch and of the marginal rule."""
        marginal, losses = self.baseline["marginal"], self.held_out_nll()
        weightings = self.recording.branch_weights.items()
        return {
            **{tag.partition("/")[2]: value for tag, value in self.measure().items()},
            "marginal_nll": float(marginal.sum(axis=1).mean()),
            **{f"marginal_{name}": float((marginal @ weights).mean()) for name, weights in weightings},
            "held_out_nll_branches": dict(zip(self.head.branches, losses.mean(axis=0).tolist(), strict=True)),
            "train_steps": len(self.train_steps),
            "held_out_steps": len(self.held_steps),
            "episodes": len(self.recording.groups),
            "held_out_pieces": len(self.held_pieces),
        }

"""Implicit quantile networks over replayed sequences: equations, hyperparameters and the loop over minibatches."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from rl.checks import positive, within
from rl.flat_adam import FlatAdam, guarded_step
from rl.iqn.losses import n_step_returns, quantile_huber_loss, squash, unsquash
from rl.iqn.sequence_replay import ReplayBatch, SequenceReplay
from rl.networks import QuantileNetwork
from rl.normalisation import ReturnScale
from rl.transfer import upload


@torch.no_grad()
def follow(target: nn.Module, network: nn.Module, share: float) -> None:
    """The weights of ``target`` go the ``share`` of the way to those of ``network``."""
    for behind, ahead in zip(target.parameters(), network.parameters(), strict=True):
        behind.lerp_(ahead, share)


@dataclass(kw_only=True)
class IQN:
    """How replayed sequences are turned into better weights (Dabney et al., 2018; R2D2: Kapturowski et al., 2019).

    Args:
        batch_size: transitions in a minibatch, rounded to whole sequences.
        bptt: steps of a sequence that are trained, so the length of the gradient through time.
        burn_in: steps replayed without loss in front of them, to warm the stored state with the current weights.
        capacity: transitions in the replay.
        learning_starts: transitions in the replay before the first update.
        replay_ratio: transitions trained for each one played.
        gamma: discount.
        n_step: steps of reward before the value of what follows stands for the rest.
        num_quantiles: tau drawn for each sequence, whose quantiles are trained.
        num_target_quantiles: tau drawn for each sequence, whose quantiles they are compared with.
        kappa: where the quantile Huber loss becomes linear.
        reward_scale: rewards are multiplied by it. Values of a few ``kappa`` are learned fastest and most steadily.
        value_rescaling: values are learned on the scale of :func:`squash`.
        target_interval: minibatches between two moves of the target network.
        target_share: how far it then goes to the weights of the network: 1 copies them.
        priority_exponent: sequences are drawn in proportion to their error to this power; 0 draws all alike.
        priority_correction: exponent of the weights that make up for it.
        priority_peak: the error of a sequence is this much its largest and for the rest its mean one.
        learning_rate: of Adam.
        anneal_learning_rate: linearly to 0 at the end of training.
        max_grad_norm: a longer gradient is scaled down to this norm.

    Raises:
        ValueError: a value out of range.
    """

    batch_size: int = 128
    bptt: int = 16
    burn_in: int = 8
    capacity: int = 100_000
    learning_starts: int = 1_000
    replay_ratio: float = 8.0
    gamma: float = 0.99
    n_step: int = 3
    num_quantiles: int = 8
    num_target_quantiles: int = 8
    kappa: float = 1.0
    reward_scale: float = 1.0
    value_rescaling: bool = False
    target_interval: int = 25
    target_share: float = 1.0
    priority_exponent: float = 0.0
    priority_correction: float = 0.6
    priority_peak: float = 0.9
    learning_rate: float = 1e-3
    anneal_learning_rate: bool = False
    max_grad_norm: float = 10.0

    def __post_init__(self):
        positive(batch_size=self.batch_size, bptt=self.bptt, capacity=self.capacity, n_step=self.n_step)
        positive(num_quantiles=self.num_quantiles, num_target_quantiles=self.num_target_quantiles)
        positive(target_interval=self.target_interval)
        within(0, float("inf"), burn_in=self.burn_in, learning_starts=self.learning_starts)
        within(0.0, float("inf"), priority_exponent=self.priority_exponent)
        within(0.0, 1.0, gamma=self.gamma, priority_correction=self.priority_correction)
        within(0.0, 1.0, priority_peak=self.priority_peak, target_share=self.target_share)
        above_zero = ("replay_ratio", "kappa", "reward_scale", "learning_rate", "max_grad_norm")
        within(1e-12, float("inf"), **{name: getattr(self, name) for name in above_zero})
        self.sequences = max(1, round(self.batch_size / self.bptt))
        self.length = self.burn_in + self.bptt + self.n_step  # rows of a sequence

    def update(
        self,
        network: QuantileNetwork,
        target: QuantileNetwork,
        optimizer: FlatAdam,
        replay: SequenceReplay,
        count: int,
        done: int,
        shuffle: Generator,
        generator: Generator,
        progress: float,
        return_scale: ReturnScale | None = None,
    ) -> dict[str, float]:
        """Learns from ``count`` minibatches; nothing is read back from the device before the end.

        Args:
            network, target, optimizer: changed in place.
            replay: has at least one whole sequence; gets new priorities.
            count: minibatches.
            done: minibatches before these, for the moves of the target network.
            shuffle: draws sequences, on the CPU.
            generator: draws tau, on the device of the network.
            progress: share of training done, 0 to 1, for the annealed learning rate.
            return_scale: scales the replayed rewards by what it knows by now; None leaves them.

        Returns:
            Means over the minibatches, by metric name, and ``loss``.

        Raises:
            FloatingPointError: a loss or gradient was not finite; the steps that it would have spoilt were not taken.
        """
        left = max(0.0, 1.0 - progress) if self.anneal_learning_rate else 1.0
        optimizer.param_groups[0]["lr"] = self.learning_rate * left
        parameters = list(network.parameters())
        reports, slots, errors = [], [], []
        all_finite = torch.ones((), dtype=torch.bool, device=replay.device)
        exponents = self.priority_exponent, self.priority_correction
        for index, mb in enumerate(replay.minibatches(count, self.sequences, shuffle, *exponents)):
            loss, q_mean, error = self.loss(network, target, mb, generator, return_scale)
            norm, finite = guarded_step(optimizer, loss, parameters, self.max_grad_norm, all_finite)
            all_finite = all_finite & finite
            if (done + index + 1) % self.target_interval == 0:
                follow(target, network, self.target_share)
            reports.append(torch.stack([loss.detach(), q_mean, norm]))
            slots.append(mb.slots)
            errors.append(error)
        return self._read(replay, reports, slots, errors, all_finite)

    def loss(
        self,
        network: QuantileNetwork,
        target: QuantileNetwork,
        minibatch: ReplayBatch,
        generator: Generator,
        return_scale: ReturnScale | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the loss of one minibatch.

        To add a term of your own, override this method: call it and add your term to the loss.

        Returns:
            The loss and the mean value of the replayed actions, 0-d; the error of each sequence ``[N]``, for its priority.
        """
        warm, state, device = self.burn_in, minibatch.state, minibatch.actions.device
        obs = {name: leaf[warm:] for name, leaf in minibatch.obs.items()}
        returns, factors, weights, following = self._plan(minibatch, device, return_scale)
        with torch.no_grad():
            future, _ = target.unroll(minibatch.obs, state, minibatch.starts)  # [M, N, H]
            if warm:
                before = {name: leaf[:warm] for name, leaf in minibatch.obs.items()}
                _, state = network.unroll(before, state, minibatch.starts[:warm])
        features, _ = network.unroll(obs, state, minibatch.starts[warm:])  # [L + n, N, H]
        sequences = features.shape[1]
        with torch.no_grad():
            best = network.action_values(features[1:], {name: leaf[1:] for name, leaf in obs.items()}).argmax(-1)
            taus = torch.rand(sequences, self.num_target_quantiles, generator=generator, device=device)
            beyond = _of(target.quantiles(future[warm + 1 :], taus), best)  # [L + n - 1, N, N']
            beyond = beyond.gather(0, following.unsqueeze(-1).expand(-1, -1, beyond.shape[-1]))  # [L, N, N']
            if self.value_rescaling:
                beyond = unsquash(beyond)
            targets = returns.unsqueeze(-1) + factors.unsqueeze(-1) * beyond
            if self.value_rescaling:
                targets = squash(targets)
            taus = torch.rand(sequences, self.num_quantiles, generator=generator, device=device)
        taken = network.head.codes(minibatch.actions[warm : warm + self.bptt])  # [L, N]
        quantiles = _of(network.quantiles(features[: self.bptt], taus), taken)  # [L, N, num_quantiles]
        loss = quantile_huber_loss(quantiles, taus, targets, self.kappa, weights)
        with torch.no_grad():
            means, trained = quantiles.mean(-1), (weights > 0).float()
            q_mean = (means * trained).sum() / trained.sum().clamp_min(1.0)
            error = self._priority((targets.mean(-1) - means).abs() * trained, trained)
        return loss, q_mean, error

    def _plan(
        self, minibatch: ReplayBatch, device: torch.device, return_scale: ReturnScale | None
    ) -> tuple[Tensor, ...]:
        """What the rewards and ends say, worked out on the CPU where they lie: four ``[L, N]`` on ``device``.

        Returns:
            The returns and factors of :func:`n_step_returns`, the weights of the steps, and the rows that stand for the
            rest, counted from the one after the first.
        """
        rewards = minibatch.rewards if return_scale is None else return_scale(minibatch.rewards)
        trained = slice(self.burn_in, None)
        returns, factors, following = n_step_returns(
            rewards[trained] * self.reward_scale,
            minibatch.terminated[trained],
            minibatch.final[trained],
            self.n_step,
            self.gamma,
        )
        counts = ~minibatch.final[self.burn_in : self.burn_in + self.bptt]
        weights = counts * minibatch.weights / counts.sum().clamp_min(1)
        return *upload(torch.stack([returns, factors, weights]), device).unbind(0), upload(following - 1, device)

    def _priority(self, errors: Tensor, trained: Tensor) -> Tensor:
        """Eta max_t |d_t| + (1 - eta) mean_t |d_t|, ``[L, N]`` -> ``[N]`` (R2D2, section 2.3)."""
        mean = errors.sum(0) / trained.sum(0).clamp_min(1.0)
        return self.priority_peak * errors.amax(0) + (1.0 - self.priority_peak) * mean + 1e-6

    def _read(
        self,
        replay: SequenceReplay,
        reports: list[Tensor],
        slots: list[np.ndarray],
        errors: list[Tensor],
        finite: Tensor,
    ) -> dict[str, float]:
        """The one transfer to the host: means over the minibatches, and the new priorities."""
        means = torch.stack(reports).mean(0)
        prioritised = errors if self.priority_exponent else []
        loss, q_mean, norm, fine, *priorities = torch.cat([means, finite.float().view(1), *prioritised]).tolist()
        if not fine:
            raise FloatingPointError(
                "a loss or gradient was not finite: look for extreme rewards or observations, or lower learning_rate"
            )
        if priorities:
            replay.prioritise(np.concatenate(slots), np.array(priorities))
        return {"quantile_loss": loss, "q_mean": q_mean, "grad_norm": norm, "loss": loss}


def _of(quantiles: Tensor, actions: Tensor) -> Tensor:
    """Quantiles ``[..., N, A]`` of the actions ``[...]``: ``[..., N]``."""
    index = actions[..., None, None].expand(*quantiles.shape[:-1], 1)
    return quantiles.gather(-1, index).squeeze(-1)

"""The update of implicit quantile networks over replayed sequences: hyperparameters and the loop over minibatches."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from rl.checks import positive, whole, within
from rl.flat_adam import FlatAdam, is_usable
from rl.iqn.losses import n_step_returns, quantile_huber_loss, sequence_priorities, squash, unsquash
from rl.iqn.minibatch_step import MinibatchStep
from rl.iqn.sequence_replay import SequenceReplay
from rl.networks import QuantileNetwork
from rl.normalisation import ReturnScale
from rl.schedules import Schedule, check_schedules, scheduled
from rl.types import ReplayBatch


@dataclass(kw_only=True)
class IQN:
    """IQN (Dabney et al., 2018) over sequences replayed from stored states (R2D2: Kapturowski et al., 2019).

    A subclass that adds a term to the loss overrides ``loss``. Its steps are not recorded as CUDA graphs, which would
    not see numbers of Python change, unless it says ``records_loss = True``: then all that changes lies in tensors.

    Args:
        batch_size: transitions in a minibatch, rounded to whole sequences.
        bptt: steps of a sequence that are trained, so the length of the gradient through time.
        burn_in: steps replayed without loss in front of them, to warm the stored state with the current weights.
        capacity: transitions in the replay.
        learning_starts: transitions in the replay before the first update, unless it is full before.
        replay_ratio: transitions trained for each one played.
        gamma: discount.
        n_step: n of the n-step returns: rewards that are added before the value of what follows stands for the rest.
        num_quantiles: tau drawn for each sequence, whose quantiles are trained.
        num_target_quantiles: tau drawn for each sequence, whose quantiles they are compared with.
        kappa: where the quantile Huber loss becomes linear.
        reward_scale: rewards are multiplied by it. Values of a few ``kappa`` are learned fastest and most steadily.
        value_rescaling: values are learned on the scale of ``rl.iqn.losses.squash``.
        target_interval: minibatches between two moves of the target network.
        target_share: how far it then goes to the weights of the network: 1 copies them.
        priority_exponent: alpha: sequences are drawn in proportion to their priority to this power; 0 draws all alike.
        priority_correction: beta, the importance-sampling exponent.
        priority_peak: eta: priority = eta * max |TD error| + (1 - eta) * mean |TD error| of a sequence.
        learning_rate: of Adam.
        learning_rate_schedule: how it gets to ``learning_rate_final``, see ``rl.schedules``.
        learning_rate_final: at the end of training; None for 0.
        learning_rate_warmup: share of training in which it rises from a tenth.
        max_grad_norm: a longer gradient is scaled down to this norm.
        graphs: on a CUDA device acting and the step of a minibatch are recorded as graphs, see ``rl.graphs``.

    Attributes:
        sequences: N, sequences in a minibatch.
        length: M, entries of a sequence: burn-in, trained steps and the n steps after them.

    Raises:
        ValueError: a value is out of range.
    """

    records_loss: ClassVar[bool] = True

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
    learning_rate_schedule: Schedule = "constant"
    learning_rate_final: float | None = None
    learning_rate_warmup: float = 0.0
    max_grad_norm: float = 10.0
    graphs: bool = True

    def __init_subclass__(cls) -> None:
        """Do not record a loss that may hold numbers of Python."""
        if "loss" in vars(cls):
            cls.records_loss = vars(cls).get("records_loss", False)

    def __post_init__(self) -> None:
        """Check the values."""
        positive(batch_size=self.batch_size, bptt=self.bptt, capacity=self.capacity, n_step=self.n_step)
        positive(num_quantiles=self.num_quantiles, num_target_quantiles=self.num_target_quantiles)
        positive(target_interval=self.target_interval)
        whole(0, burn_in=self.burn_in, learning_starts=self.learning_starts)
        within(0.0, float("inf"), priority_exponent=self.priority_exponent)
        within(0.0, 1.0, gamma=self.gamma, priority_correction=self.priority_correction)
        within(0.0, 1.0, priority_peak=self.priority_peak, target_share=self.target_share)
        above_zero = ("replay_ratio", "kappa", "reward_scale", "learning_rate", "max_grad_norm")
        within(1e-12, float("inf"), **{name: getattr(self, name) for name in above_zero})
        check_schedules(vars(self), ("learning_rate",))
        self.sequences = max(1, round(self.batch_size / self.bptt))
        self.length = self.burn_in + self.bptt + self.n_step
        self._step: MinibatchStep | None = None  # lasts from update to update, and with it its graphs

    def check_room(self, steps: int) -> None:
        """Check that learning ever starts in a replay that holds at most so many steps.

        Raises:
            ValueError: it does not.
        """
        if self.learning_starts > steps:
            raise ValueError(
                f"learning_starts={self.learning_starts}: with capacity={self.capacity} the replay holds at most "
                f"{steps} steps, so nothing would be learned"
            )

    def update(
        self,
        network: QuantileNetwork,
        target: QuantileNetwork,
        optimizer: FlatAdam,
        replay: SequenceReplay,
        count: int,
        count_before: int,
        shuffle: Generator,
        generator: Generator,
        progress: float,
        return_scale: ReturnScale | None = None,
    ) -> dict[str, float]:
        """Learn from ``count`` minibatches; nothing is read back from the device before the end.

        Args:
            network: changed in place.
            target: changed in place, the network that values what follows.
            optimizer: of the network, changed in place.
            replay: has at least one whole sequence; gets new priorities.
            count: minibatches, at least 1.
            count_before: minibatches of the updates before this one, for the moves of the target network.
            shuffle: draws sequences, on the CPU.
            generator: draws tau, on the device of the network.
            progress: share of training done, 0 to 1, for the schedule of the learning rate.
            return_scale: divides the replayed rewards by what it knows by now; None leaves them.

        Returns:
            Means over the minibatches, by metric name, ``loss``, and the learning rate.

        Raises:
            FloatingPointError: a loss, gradient, weight or moment was not finite; the steps after it were not
                taken.
        """
        learning_rate = scheduled(self, "learning_rate", progress)
        parts = network, target, optimizer, replay, generator, return_scale
        step = self._step
        if step is None or not step.serves(*parts):
            step = self._step = MinibatchStep(self, *parts)
        step.begin(learning_rate)
        minibatches: list[dict[str, Tensor]] = []
        going_on = torch.ones((), dtype=torch.bool, device=replay.device)
        exponents = self.priority_exponent, self.priority_correction
        slots, weights = replay.draw(count, self.sequences, shuffle, *exponents)  # each [count, N]
        for number, drawn in enumerate(zip(slots, weights, strict=True), start=count_before + 1):
            metrics = step(*drawn, going_on)
            going_on = metrics.pop("going_on")
            if number % self.target_interval == 0:
                move_target(target, network, self.target_share)
            minibatches.append(metrics)
        optimizer.param_groups[0]["lr"] = learning_rate  # a number again
        priorities = torch.cat([metrics.pop("priorities") for metrics in minibatches])
        means = read_means(minibatches, going_on & is_usable(optimizer))
        if self.priority_exponent > 0.0:
            replay.prioritise(slots.flatten(), priorities)
        return means | {"learning_rate": learning_rate}

    def loss(
        self,
        network: QuantileNetwork,
        target: QuantileNetwork,
        mb: ReplayBatch,
        generator: Generator,
        return_scale: ReturnScale | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one minibatch.

        The quantile Huber loss of Z_tau(o_t, a_t) beside G_t + gamma^m Z_tau'(o_{t+m}, a*), where G_t sums m rewards,
        the target network gives Z_tau' and the network chooses a* = argmax_a E[Z(o_{t+m}, a)] (double Q-learning).

        To add a term of your own, override this method: call it, add your term to the loss, and put what you want to
        see in TensorBoard beside the metrics.

        Args:
            network: gives the quantiles and the states.
            target: gives the quantiles of what follows.
            mb: the minibatch, with the states to begin with.
            generator: draws tau, on the device of the network.
            return_scale: divides the rewards; None leaves them.

        Returns:
            The loss, 0-d; and by metric name ``priorities [N]`` of the sequences and 0-d tensors, whose means over the
            minibatches are reported.
        """
        warm, state, device = self.burn_in, mb.state, mb.actions.device
        returns, factors, weights, following = self._returns_and_weights(mb, return_scale)
        with torch.no_grad():
            future, _ = target.unroll(mb.obs, state, mb.starts)  # [M, N, H]
            if warm:
                before = {name: leaf[:warm] for name, leaf in mb.obs.items()}
                _, state = network.unroll(before, state, mb.starts[:warm])
        obs = {name: leaf[warm:] for name, leaf in mb.obs.items()}
        features, _ = network.unroll(obs, state, mb.starts[warm:])  # [L + n, N, H]
        sequences = features.shape[1]
        with torch.no_grad():
            best = network.action_values(features[1:], {name: leaf[1:] for name, leaf in obs.items()}).argmax(-1)
            taus = torch.rand(sequences, self.num_target_quantiles, generator=generator, device=device)
            beyond = quantiles_of_actions(target.quantiles(future[warm + 1 :], taus), best)  # [L + n - 1, N, N']
            beyond = beyond.gather(0, following.unsqueeze(-1).expand(-1, -1, beyond.shape[-1]))  # [L, N, N']
            if self.value_rescaling:
                beyond = unsquash(beyond)
            targets = returns.unsqueeze(-1) + factors.unsqueeze(-1) * beyond
            if self.value_rescaling:
                targets = squash(targets)
            taus = torch.rand(sequences, self.num_quantiles, generator=generator, device=device)
        taken = network.head.codes(mb.actions[warm : warm + self.bptt])  # [L, N]
        quantiles = quantiles_of_actions(network.quantiles(features[: self.bptt], taus), taken)  # [L, N, num_quantiles]
        loss = quantile_huber_loss(quantiles, taus, targets, self.kappa, weights)
        with torch.no_grad():
            means, trained = quantiles.mean(-1), (weights > 0).float()
            q_mean = (means * trained).sum() / trained.sum().clamp_min(1.0)
            priorities = sequence_priorities((targets.mean(-1) - means).abs(), trained, self.priority_peak)
        return loss, {"quantile_loss": loss.detach(), "q_mean": q_mean, "priorities": priorities}

    def _returns_and_weights(
        self, mb: ReplayBatch, return_scale: ReturnScale | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute what rewards and ends alone say of the targets.

        Args:
            mb: the minibatch.
            return_scale: divides the rewards; None leaves them.

        Returns:
            The returns and factors of ``rl.iqn.losses.n_step_returns``, the weights of the steps in the loss, and
            the entries whose values stand for the rest, counted from the one after the first trained step: each
            ``[L, N]``.
        """
        rewards = mb.rewards if return_scale is None else return_scale(mb.rewards)
        after_burn_in, trained = slice(self.burn_in, None), slice(self.burn_in, self.burn_in + self.bptt)
        returns, factors, following = n_step_returns(
            rewards[after_burn_in] * self.reward_scale,
            mb.terminated[after_burn_in],
            mb.final[after_burn_in],
            self.n_step,
            self.gamma,
        )
        counts = ~mb.final[trained]
        weights = counts * mb.weights / counts.sum().clamp_min(1)
        return returns, factors, weights, following - 1


@torch.no_grad()
def move_target(target: nn.Module, network: nn.Module, share: float) -> None:
    """Move the weights of ``target`` the ``share`` of the way to those of ``network``."""
    torch._foreach_lerp_(list(target.parameters()), list(network.parameters()), share)


def quantiles_of_actions(quantiles: Tensor, actions: Tensor) -> Tensor:
    """Pick from quantiles ``[..., N, A]`` those of the actions ``[...]``: ``[..., N]``."""
    index = actions[..., None, None].expand(*quantiles.shape[:-1], 1)
    return quantiles.gather(-1, index).squeeze(-1)


def read_means(minibatches: list[dict[str, Tensor]], finite: Tensor) -> dict[str, float]:
    """Read the results of an update, in the one transfer to the host.

    Args:
        minibatches: 0-d metrics of each, by name.
        finite: 0-d bool, whether all losses and gradients were, and what became of the weights.

    Returns:
        Means over the minibatches, by metric name.

    Raises:
        FloatingPointError: something was not finite.
    """
    means = {name: torch.stack([metrics[name] for metrics in minibatches]).mean() for name in minibatches[0]}
    is_finite, *results = torch.stack([finite.float(), *means.values()]).tolist()
    if not is_finite:
        raise FloatingPointError(
            "a loss or gradient was not finite, or a weight after it: look for extreme rewards or observations, or "
            "lower learning_rate"
        )
    return dict(zip(means, results, strict=True))

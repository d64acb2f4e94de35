"""The update of proximal policy optimisation over replayed sequences: hyperparameters and the loop over minibatches."""

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from rl.flat_adam import FlatAdam, is_usable
from rl.graphs import Recorded, Tensors
from rl.networks import ActorCritic
from rl.networks.heads import Head
from rl.normalisation import AdvantageScale, ReturnScale
from rl.ppo.advantages import bootstrap_values, gae
from rl.ppo.losses import Coefficients, approximate_kl, explained_variance, ppo_loss
from rl.ppo.minibatch_step import MinibatchStep
from rl.ppo.options import SCHEDULED, Ratio, check_hyperparameters
from rl.ppo.recompute import replay_in_parts
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.ppo.teacher import Teacher
from rl.schedules import RateSchedule, Schedule, adapted, scheduled
from rl.shards import ALONE, Shards
from rl.types import Sequences, Targets


@dataclass(kw_only=True)
class PPO:
    """PPO (Schulman et al., 2017) over sequences replayed from stored states (R2D2: Kapturowski et al., 2019).

    A subclass that adds a term to the loss overrides ``loss``. Its steps are not recorded as CUDA graphs, which would
    not see numbers of Python change, unless it says ``records_loss = True``: then all that changes lies in tensors.

    Args:
        epochs: passes over a rollout.
        num_minibatches: in each pass.
        bptt: length of the replayed sequences, so of the gradient through time; None for the whole rollout.
        burn_in: steps replayed without loss in front of a sequence, to warm its stored state with the current weights.
        refresh_states: recompute the stored states with the current weights before each epoch after the first.
        gamma: discount.
        gae_lambda: lambda of the advantages.
        clip: clip range of the probability ratio.
        clip_schedule: how it gets to ``clip_final``, see ``rl.schedules``.
        clip_final: at the end of training; None for 0.
        value_clip: clip range of the value; None for the plain squared error.
        ratio: ``joint`` clips one ratio over all action branches, ``per_head`` one for each.
        value_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus.
        entropy_coef_schedule: how it gets to ``entropy_coef_final``.
        entropy_coef_final: its weight at the end of training; None for 0.
        teacher_kl: weight of KL(policy || teacher), summed over the action branches; above 0 it needs a teacher.
        teacher_kl_schedule: how it gets to ``teacher_kl_final``.
        teacher_kl_final: its weight at the end of training; None for 0.
        recall_coef: weight of telling what was observed 1, 2, 4, ... steps before, see ``rl.networks.recall``.
        normalise_advantages: to mean 0 and variance 1 or less over a rollout, see ``rl.normalisation.AdvantageScale``.
        target_kl: once the estimated KL of a minibatch exceeds 1.5 times this, the rest of all epochs is skipped.
        learning_rate: of Adam.
        learning_rate_schedule: how it gets to ``learning_rate_final``; ``adaptive`` sets it before the step of every
            minibatch by the estimated KL, see ``rl.schedules.adapted``, but for the first one of an update.
        learning_rate_final: at the end of training; None for 0.
        learning_rate_warmup: share of training in which it rises from a tenth.
        learning_rate_min: the smallest adaptive one.
        learning_rate_max: the largest adaptive one.
        desired_kl: that an adaptive one keeps within a factor of 2.
        max_grad_norm: a longer gradient is scaled down to this norm.
        graphs: on a CUDA device acting and the step of a minibatch are recorded as graphs, see ``rl.graphs``.
        recompute_parts: above 1 the sequences of a minibatch are unrolled in so many parts, and the activations of each
            are computed again in its backward pass: they take so many times less memory, see ``rl.ppo.recompute``.

    Raises:
        ValueError: a value is out of range, or two exclude each other.
    """

    records_loss: ClassVar[bool] = True
    shards: ClassVar[Shards] = ALONE

    epochs: int = 4
    num_minibatches: int = 8
    bptt: int | None = 32
    burn_in: int = 0
    refresh_states: bool = False
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    clip_schedule: Schedule = "constant"
    clip_final: float | None = None
    value_clip: float | None = None
    ratio: Ratio = "joint"
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    entropy_coef_schedule: Schedule = "constant"
    entropy_coef_final: float | None = None
    teacher_kl: float = 0.0
    teacher_kl_schedule: Schedule = "linear"
    teacher_kl_final: float | None = None
    recall_coef: float = 0.0
    normalise_advantages: bool = True
    target_kl: float | None = None
    learning_rate: float = 1.5e-3
    learning_rate_schedule: RateSchedule = "constant"
    learning_rate_final: float | None = None
    learning_rate_warmup: float = 0.0
    learning_rate_min: float = 1e-5
    learning_rate_max: float = 1e-2
    desired_kl: float = 0.01
    max_grad_norm: float = 0.5
    graphs: bool = True
    recompute_parts: int = 1

    def __init_subclass__(cls) -> None:
        """Do not record a loss that may hold numbers of Python."""
        if "loss" in vars(cls):
            cls.records_loss = vars(cls).get("records_loss", False)

    def __post_init__(self) -> None:
        """Check the values."""
        check_hyperparameters(asdict(self))
        self._step: MinibatchStep | None = None
        self._estimate = Recorded(self._compute_advantages, enabled=self.graphs)

    @property
    def adapts(self) -> bool:
        """Say whether the divergence of the policy sets the learning rate, which is then state of the optimiser."""
        return self.learning_rate_schedule == "adaptive"

    def adapted(self, rate: Tensor, kl: Tensor) -> Tensor:
        """Compute the learning rate of a step, 0-d, from that of the last one and the KL before it, both 0-d."""
        return adapted(rate, kl, self.desired_kl, self.learning_rate_min, self.learning_rate_max)

    def _compute_advantages(self, given: Tensors) -> Tensors:
        return {"advantages": gae(**given, gamma=self.gamma, lam=self.gae_lambda)}

    def _step_of(self, network: ActorCritic, optimizer: FlatAdam, teacher: Teacher | None) -> MinibatchStep:
        """Return what takes the steps of these; it lasts from update to update, and with it its graphs."""
        step = self._step
        if step is None or (step.network, step.optimizer, step.teacher) != (network, optimizer, teacher):
            step = self._step = MinibatchStep(self, network, optimizer, teacher)
        return step

    def targets(
        self,
        buffer: RolloutBuffer,
        head: Head,
        final_values: Tensor,
        last_values: Tensor,
        return_scale: ReturnScale | None,
        advantage_scale: AdvantageScale | None = None,
        teacher_params: Tensor | None = None,
    ) -> tuple[Targets, dict[str, float]]:
        """Compute advantages, returns and old log-probabilities of a rollout.

        Args:
            buffer: the rollout.
            head: of the network that played it.
            final_values: ``[T, B]``, V(final observation) where truncated.
            last_values: ``[B]``, V of the observation after the last step.
            return_scale: takes in the rewards, then divides them; None leaves them.
            advantage_scale: takes in the advantages, then divides them; None for one that knows this rollout alone.
            teacher_params: ``[T, B, P]`` of the teacher, if there is one.

        Returns:
            The targets, and what is worth reporting of them by metric name.

        Raises:
            FloatingPointError: a reward or value is not finite; nothing has been changed.
        """
        steps, device = slice(0, buffer.size), buffer.values.device
        values = buffer.values[steps]
        told = buffer.rewards, buffer.terminated, buffer.truncated, buffer.starts
        rewards, terminated, truncated, starts = [leaf[steps].to(device, non_blocking=True) for leaf in told]
        next_values = bootstrap_values(values, last_values, terminated, truncated, final_values)
        if not all(self.shards.gather(bool(torch.isfinite(rewards + values + next_values).all()))):
            raise FloatingPointError(
                "a value or observation of this rollout is not finite: nothing was learned from it"
            )
        if return_scale is not None:
            return_scale.update(rewards, starts, self.gamma)
            rewards = return_scale(rewards)
        given = {"rewards": rewards, "values": values, "next_values": next_values, "ended": terminated | truncated}
        advantages = self._estimate(given)["advantages"]
        returns = advantages + values
        metrics = {"explained_variance": explained_variance(values, returns).item()}
        if self.normalise_advantages:
            advantages = (AdvantageScale() if advantage_scale is None else advantage_scale)(advantages)
        old_log_probs, _ = head.evaluate(buffer.params[steps], buffer.actions[steps])
        return Targets(old_log_probs, values, advantages, returns, teacher_params), metrics

    def update(
        self,
        network: ActorCritic,
        optimizer: FlatAdam,
        buffer: RolloutBuffer,
        targets: Targets,
        shuffle: Generator,
        progress: float,
        teacher: Teacher | None = None,
    ) -> dict[str, float]:
        """Learn from one rollout; nothing is read back from the device inside the loop over minibatches.

        Args:
            network: changed in place.
            optimizer: of the network, changed in place.
            buffer: the rollout.
            targets: from ``targets``.
            shuffle: draws the order of the sequences.
            progress: share of training done, 0 to 1, for the schedules.
            teacher: whose parameters the targets hold, if they hold some.

        Returns:
            Means over the minibatches, by metric name, ``loss``, and what followed a schedule.

        Raises:
            FloatingPointError: a loss, gradient, weight or moment was not finite.
        """
        now, device = self.coefficients(progress), targets.returns.device
        if self.adapts:
            now = now._replace(learning_rate=optimizer.param_groups[0]["lr"])
        step = self._step_of(network, optimizer, teacher)
        step.begin(now, device)
        minibatches: list[dict[str, Tensor]] = []
        all_finite = going_on = torch.ones((), dtype=torch.bool, device=device)
        for epoch in range(self.epochs):
            if epoch and self.refresh_states:
                with torch.no_grad():
                    buffer.refresh(network.unroll, self.bptt)
            for mb, warm_up in buffer.sequences(targets, self.num_minibatches, self.bptt, shuffle, self.burn_in):
                metrics = step(mb, warm_up, going_on)
                all_finite, going_on = all_finite & metrics.pop("finite"), metrics.pop("going_on")
                minibatches.append(metrics)
            if self.target_kl is not None and not bool(going_on):
                break
        optimizer.param_groups[0]["lr"] = now.learning_rate  # a number again
        sound, told = all_finite & is_usable(optimizer), (now.clip, network.head.branches)
        read = read_metrics(minibatches, sound, *told, {"learning_rate": step.rate} if self.adapts else {})
        found = {name: getattr(now, name) for name in ("learning_rate", "clip", "entropy_coef")} | read
        optimizer.param_groups[0]["lr"] = found["learning_rate"]
        return found

    def loss(
        self, network: ActorCritic, mb: Sequences, now: Coefficients, teacher: Teacher | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one minibatch.

        policy_loss + value_coef * value_loss - entropy_coef * entropy + teacher_kl * KL(policy || teacher) +
        recall_coef * recall_loss

        To add a term of your own, override this method: call it, add your term to the loss, and put what you want to
        see in TensorBoard beside the metrics.

        Args:
            network: gives the parameters, values and states.
            mb: the minibatch, with the state to begin with.
            now: from ``coefficients``.
            teacher: to stay near to.

        Returns:
            The loss, 0-d; and by metric name ``ratio [L, N, heads]``, ``entropy [L, N, branches]`` and 0-d tensors,
            whose means over the minibatches are reported.
        """
        params, values, *errors = replay_in_parts(network, mb, self.recompute_parts)  # [L, N, P], [L, N]
        log_probs, entropies = network.head.evaluate(params, mb.actions)  # each [L, N, branches]
        loss, ratio, metrics = ppo_loss(log_probs, values, entropies, mb, now)
        if teacher is not None:
            kl = teacher.kl(network.head, params, mb).sum(-1).mean()
            loss = loss + now.teacher_kl * kl
            metrics["teacher_kl"] = kl.detach()
        for recall_loss in (error.mean() for error in errors):  # one, of a network that recalls
            loss = loss + self.recall_coef * recall_loss
            metrics["recall_loss"] = recall_loss.detach()
        return loss, metrics | {"ratio": ratio, "entropy": entropies.detach()}

    def coefficients(self, progress: float) -> Coefficients:
        """Compute what an update uses when the share ``progress`` of training is done."""
        now = {name: scheduled(self, name, progress) for name in SCHEDULED}
        return Coefficients(
            **now, value_coef=self.value_coef, value_clip=self.value_clip, per_head=self.ratio == "per_head"
        )


def read_metrics(
    minibatches: list[dict[str, Tensor]],
    finite: Tensor,
    clip: float | Tensor,
    branches: tuple[str, ...],
    others: dict[str, Tensor],
) -> dict[str, float]:
    """Read the results of an update, in the one transfer to the host.

    Args:
        minibatches: the metrics of each, from ``PPO.loss``.
        finite: 0-d bool, whether all losses and gradients were, and what became of the weights.
        clip: clip range of the ratio, for ``clipfrac``.
        branches: names of the action branches.
        others: 0-d by name, to be read as well.

    Returns:
        Means over the minibatches, by metric name, and the others.

    Raises:
        FloatingPointError: something was not finite.
    """
    columns = {name: [metrics[name] for metrics in minibatches] for name in minibatches[0]}
    first, *_ = ratios = [part.flatten(0, 1) for part in columns.pop("ratio")]
    ratio = torch.cat(ratios)  # [transitions, heads]
    entropy = torch.cat([part.flatten(0, 1) for part in columns.pop("entropy")]).mean(0)  # [branches]
    numbers = {name: torch.stack(column).mean() for name, column in columns.items()}
    numbers |= {"entropy": entropy.sum(), "approx_kl": approximate_kl(ratio), "finite": finite.float()}
    numbers |= {"clipfrac": ((ratio - 1.0).abs() > clip).float().mean(), "ratio_error": (first - 1.0).abs().max()}
    if len(branches) > 1:
        numbers |= {f"entropy_{branch}": value for branch, value in zip(branches, entropy, strict=True)}
    numbers |= others
    results = dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
    if not results.pop("finite"):
        raise FloatingPointError(
            "a loss or gradient was not finite, or a weight after it: look for extreme rewards or observations, or "
            "lower learning_rate"
        )
    return results

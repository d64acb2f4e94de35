"""The update of proximal policy optimisation over replayed sequences: hyperparameters and the loop over minibatches."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from rl.checks import one_of, positive, within
from rl.flat_adam import set_clipped_gradient
from rl.networks import ActorCritic
from rl.normalisation import ReturnScale
from rl.ppo import losses
from rl.ppo.advantages import bootstrap_values, gae
from rl.ppo.rollout_buffer import RolloutBuffer, Targets, WarmUp
from rl.ppo.teacher import Teacher
from rl.transfer import upload
from rl.types import Sequences, State


class Annealed(NamedTuple):
    """The values of one update that may change in the course of training."""

    learning_rate: float
    clip: float
    entropy_coef: float
    teacher_kl: float


@dataclass(kw_only=True)
class PPO:
    """How a rollout is turned into better weights (Schulman et al., 2017; R2D2: Kapturowski et al., 2019).

    Args:
        epochs: passes over a rollout.
        num_minibatches: in each pass.
        bptt: length of the replayed sequences, so of the gradient through time; None for the whole rollout.
        burn_in: steps replayed without loss in front of a sequence, to warm its stored state with the current weights.
        refresh_states: recompute the stored states with the current weights before each epoch after the first.
        gamma: discount.
        gae_lambda: lambda of the advantages.
        clip: clip range of the probability ratio.
        value_clip: clip range of the value; None for the plain squared error.
        ratio: ``joint`` clips one ratio over all action branches, ``per_head`` one for each.
        value_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus.
        entropy_coef_final: its weight at the end of training, reached linearly; None keeps it constant.
        teacher_kl: weight of KL(policy || teacher), summed over the action branches; above 0 it needs a teacher.
        teacher_kl_final: its weight at the end of training, reached linearly; None keeps it constant.
        normalise_advantages: to mean 0 and variance 1 over the rollout.
        target_kl: once the estimated KL of a minibatch exceeds 1.5 times this, the rest of all epochs is skipped.
        learning_rate: of Adam.
        anneal_learning_rate: linearly to 0 at the end of training.
        anneal_clip: linearly to 0 at the end of training.
        max_grad_norm: a longer gradient is scaled down to this norm.

    Raises:
        ValueError: a value out of range, or two that exclude each other.
    """

    epochs: int = 4
    num_minibatches: int = 8
    bptt: int | None = 32
    burn_in: int = 0
    refresh_states: bool = False
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_clip: float | None = None
    ratio: Literal["joint", "per_head"] = "joint"
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    entropy_coef_final: float | None = None
    teacher_kl: float = 0.0
    teacher_kl_final: float | None = 0.0
    normalise_advantages: bool = True
    target_kl: float | None = None
    learning_rate: float = 1e-3
    anneal_learning_rate: bool = False
    anneal_clip: bool = False
    max_grad_norm: float = 0.5

    def __post_init__(self):
        positive(epochs=self.epochs, num_minibatches=self.num_minibatches)
        if self.bptt is not None:
            positive(bptt=self.bptt)
        within(0, self.bptt or float("inf"), burn_in=self.burn_in)
        within(0.0, 1.0, gamma=self.gamma, gae_lambda=self.gae_lambda)
        one_of(("joint", "per_head"), ratio=self.ratio)
        limits = {
            "value_clip": self.value_clip,
            "target_kl": self.target_kl,
            "entropy_coef_final": self.entropy_coef_final,
            "teacher_kl": self.teacher_kl,
            "teacher_kl_final": self.teacher_kl_final,
        }
        within(0.0, float("inf"), **{name: value for name, value in limits.items() if value is not None})
        within(0.0, float("inf"), value_coef=self.value_coef, entropy_coef=self.entropy_coef)
        within(1e-12, float("inf"), clip=self.clip, learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        if self.burn_in and self.refresh_states:
            raise ValueError("burn_in and refresh_states both renew the stored states: use one of them")

    def check_rollout(self, num_envs: int, num_steps: int, state_stride: int, fixed_size: bool) -> None:
        """Rollouts of these sizes can be cut into sequences and minibatches.

        Args:
            num_envs, num_steps: size of a rollout.
            state_stride: distance of the stored states.
            fixed_size: False if a client may end rollouts at any step; they are then cut as evenly as possible.

        Raises:
            ValueError: they cannot.
        """
        length = self.bptt or num_steps
        positive(num_envs=num_envs, num_steps=num_steps, state_stride=state_stride)
        if fixed_size and num_steps % length:
            raise ValueError(f"bptt={length} does not divide num_steps={num_steps}: all sequences must have one length")
        if state_stride > 1 and not fixed_size:
            raise ValueError(f"state_stride={state_stride}: one environment may stop at any step, so it must be 1")
        if length % state_stride or self.burn_in % state_stride:
            raise ValueError(f"state_stride={state_stride} must divide bptt={length} and burn_in={self.burn_in}")
        sequences = num_envs * (num_steps // length)
        if fixed_size and self.num_minibatches > sequences:
            raise ValueError(
                f"num_minibatches={self.num_minibatches} is more than the {sequences} sequences of a rollout "
                f"({num_envs} environments x {num_steps // length}): lower it, or lower bptt"
            )

    def check_teacher(self, teacher: Teacher | None) -> None:
        """There is a teacher if the loss needs one.

        Raises:
            ValueError: there is none.
        """
        if self.teacher_kl and teacher is None:
            raise ValueError(
                f"teacher_kl={self.teacher_kl} needs a teacher: call load_network, or give init_from=RUN_DIR"
            )

    def targets(
        self,
        buffer: RolloutBuffer,
        head: nn.Module,
        cut: Tensor,
        last_values: Tensor,
        return_scale: ReturnScale | None,
        teacher_params: Tensor | None = None,
    ) -> tuple[Targets, dict[str, float]]:
        """Advantages and returns of a rollout, with its old log-probabilities, and what is worth reporting of them.

        Args:
            buffer: the rollout.
            head: of the network that played it.
            cut: ``[T, B]``, V(final observation) where truncated.
            last_values: ``[B]``, V of the observation after the last step.
            return_scale: divides the rewards; None leaves them.
            teacher_params: ``[T, B, P]`` of the teacher, if there is one.

        Raises:
            FloatingPointError: a return is not finite; nothing has been changed yet.
        """
        steps, device = slice(0, buffer.size), buffer.values.device
        values = buffer.values[steps]
        rewards, terminated, truncated, starts = (
            upload(leaf[steps], device) for leaf in (buffer.rewards, buffer.terminated, buffer.truncated, buffer.starts)
        )
        next_values = bootstrap_values(values, last_values, terminated, truncated, cut)
        if not bool(torch.isfinite(rewards + values + next_values).all()):
            raise FloatingPointError(
                "a value or observation of this rollout is not finite: nothing was learned from it"
            )
        if return_scale is not None:
            return_scale.take_in(rewards, starts, self.gamma)
            rewards = return_scale(rewards)
        advantages = gae(rewards, values, next_values, terminated | truncated, self.gamma, self.gae_lambda)
        returns = advantages + values
        metrics = {"explained_variance": losses.explained_variance(values, returns).item()}
        if self.normalise_advantages:
            advantages = (advantages - advantages.mean()) / (advantages.std(unbiased=False) + 1e-8)
        old_log_probs, _ = head.evaluate(buffer.params[steps], buffer.actions[steps])
        return Targets(old_log_probs, values, advantages, returns, teacher_params), metrics

    def update(
        self,
        network: ActorCritic,
        optimizer: Optimizer,
        buffer: RolloutBuffer,
        targets: Targets,
        shuffle: Generator,
        progress: float,
        teacher: Teacher | None = None,
    ) -> dict[str, float]:
        """Learns from one rollout; nothing is read back from the device inside the loop over minibatches.

        Args:
            network, optimizer: changed in place.
            buffer: the rollout.
            targets: from :meth:`targets`.
            shuffle: draws the order of the sequences.
            progress: share of training done, 0 to 1, for the annealed values.
            teacher: whose parameters the targets hold, if they hold some.

        Returns:
            Means over the minibatches, by metric name, and ``loss``.

        Raises:
            FloatingPointError: a gradient was not finite; the steps that it would have spoilt were not taken.
        """
        now = self._annealed(left=max(0.0, 1.0 - progress))
        for group in optimizer.param_groups:
            group["lr"] = now.learning_rate
        parameters = list(network.parameters())
        rows, ratios = [], []
        finite = torch.ones((), dtype=torch.bool, device=targets.returns.device)
        going_on = finite  # False once the KL limit or a bad gradient ends the update
        for epoch in range(self.epochs):
            if epoch and self.refresh_states:
                with torch.no_grad():
                    buffer.refresh(network.unroll, self.bptt)
            for minibatch, warm_up in buffer.sequences(targets, self.num_minibatches, self.bptt, shuffle, self.burn_in):
                outputs, slopes, ratio, row = self._losses(network, minibatch, warm_up, now, teacher)
                gradients = torch.autograd.grad(outputs, parameters, slopes, materialize_grads=True)
                norm = set_clipped_gradient(optimizer, gradients, self.max_grad_norm)
                finite = finite & torch.isfinite(norm)
                going_on = going_on & finite
                if self.target_kl is not None:
                    going_on = going_on & (losses.approximate_kl(ratio) <= 1.5 * self.target_kl)
                optimizer.found_inf = (~going_on).float()  # the kernel then leaves the weights, without asking the host
                optimizer.step()
                rows.append(row | {"grad_norm": norm})
                ratios.append(ratio)
            if self.target_kl is not None and not bool(going_on):
                break
        return self._read(network, rows, ratios, finite, now)

    def _annealed(self, left: float) -> Annealed:
        """The values for an update when the share ``left`` of training is to come."""

        def between(first: float, final: float | None) -> float:
            return first if final is None else final + (first - final) * left

        return Annealed(
            learning_rate=between(self.learning_rate, 0.0 if self.anneal_learning_rate else None),
            clip=between(self.clip, 0.0 if self.anneal_clip else None),
            entropy_coef=between(self.entropy_coef, self.entropy_coef_final),
            teacher_kl=between(self.teacher_kl, self.teacher_kl_final),
        )

    def _losses(
        self, network: ActorCritic, mb: Sequences, warm_up: WarmUp | None, now: Annealed, teacher: Teacher | None
    ) -> tuple[list[Tensor], list[Tensor], Tensor, dict[str, Tensor]]:
        """One minibatch: what the loss is made from, the derivatives of the loss by that, ratio and terms to report.

        The loss is policy_loss + value_coef * value_loss - entropy_coef * entropy + teacher_kl * KL(policy || teacher).
        """
        state = mb.state if warm_up is None else self._warmed(network, mb.state, warm_up)
        params, values, _ = network.unroll(mb.obs, state, mb.starts)  # [L, N, P], [L, N]
        log_probs, entropies = network.head.evaluate(params, mb.actions)  # each [L, N, branches]
        with torch.no_grad():
            ratio = losses.probability_ratio(log_probs, mb.old_log_probs, self.ratio == "per_head")  # [L, N, heads]
            policy_loss, by_log_probs = losses.policy_loss(ratio, mb.advantages, now.clip)
            value_loss, by_values = losses.value_loss(values, mb.old_values, mb.returns, self.value_clip)
            by_entropies = torch.full_like(entropies, -now.entropy_coef / values.numel())
        outputs = [log_probs, values, entropies]
        slopes = [by_log_probs.expand_as(log_probs), self.value_coef * by_values, by_entropies]
        row = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropies.detach()}
        if teacher is not None:
            kl = network.head.kl(params, mb.actions, teacher.head, mb.teacher_params)  # [L, N, branches]
            outputs.append(kl)
            slopes.append(torch.full_like(kl, now.teacher_kl / values.numel()))
            row["teacher_kl"] = kl.detach().sum(-1).mean()
        return outputs, slopes, ratio, row

    def _warmed(self, network: ActorCritic, stored: State, warm_up: WarmUp) -> State:
        with torch.no_grad():
            *_, warmed = network.unroll(warm_up.obs, warm_up.state, warm_up.starts)
        keep = {name: warm_up.available.view(-1, *[1] * (leaf.dim() - 1)) for name, leaf in stored.items()}
        return {name: torch.where(keep[name], warmed[name], leaf) for name, leaf in stored.items()}

    def _read(
        self,
        network: ActorCritic,
        rows: list[dict[str, Tensor]],
        ratios: list[Tensor],
        finite: Tensor,
        now: Annealed,
    ) -> dict[str, float]:
        """The one transfer to the host: means over the minibatches."""
        branches = network.head.branches
        entropy = torch.cat([row.pop("entropy").flatten(0, 1) for row in rows]).mean(0)  # [branches]
        ratio = torch.cat([part.flatten(0, 1) for part in ratios])  # [transitions, heads]
        numbers = {
            **{name: torch.stack([row[name] for row in rows]).mean() for name in rows[0]},
            **{f"entropy_{branch}": value for branch, value in zip(branches, entropy, strict=True)},
            "entropy": entropy.sum(),
            "approx_kl": losses.approximate_kl(ratio),
            "clipfrac": ((ratio - 1.0).abs() > now.clip).float().mean(),
            "ratio_error": (ratios[0] - 1.0).abs().max(),
            "finite": finite.float(),
        }
        metrics = dict(zip(numbers, torch.stack(list(numbers.values())).tolist(), strict=True))
        if not metrics.pop("finite"):
            raise FloatingPointError(
                "a gradient was not finite; from there on the weights were left as they were: "
                "look for extreme rewards or observations, or lower learning_rate"
            )
        metrics["loss"] = (
            metrics["policy_loss"]
            + self.value_coef * metrics["value_loss"]
            - now.entropy_coef * metrics["entropy"]
            + now.teacher_kl * metrics.get("teacher_kl", 0.0)
        )
        if len(branches) == 1:
            del metrics[f"entropy_{branches[0]}"]
        return metrics

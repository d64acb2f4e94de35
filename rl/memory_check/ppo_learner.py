"""A recurrent PPO agent as a learner that is checked."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rl.agents import RecurrentPPO
from rl.memory_check.network_subject import NetworkSubject
from rl.memory_check.our_learner import OurLearner, UnrollSpy, link_weights, patched
from rl.memory_check.subject import Replayed, Trace
from rl.normalisation import ReturnScale
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.types import Sequences, Targets


class PPOLearner(OurLearner):
    """A recurrent PPO agent; ``learn`` with learning rate 0 is its replay, so whatever a subclass does counts."""

    every_step_once = True
    agent: RecurrentPPO

    def prepare(self) -> None:
        """Read how the agent cuts its rollouts."""
        self.bptt, self.stride = self.agent.ppo.bptt, self.agent.state_stride
        self.replays: dict[int, PPOReplay] = {}  # by seed

    def collect(self) -> Trace:
        """Play a rollout and compute what would be learned from it, without learning.

        Raises:
            ValueError: nothing can be learned from it.
        """
        self.replays = {}
        trace, replay = self.play(self.agent.num_steps), self._learn_nothing(seed=0)
        if replay.targets is None or not replay.minibatches:
            raise ValueError(
                f"num_steps={self.agent.num_steps}: it must be more, for nothing was learned from a rollout: an "
                "environment had no step of its own in it"
            )
        targets = replay.targets
        trace.starts, trace.values = replay.starts, targets.old_values
        trace.returns, trace.advantages = targets.returns, targets.advantages
        trace.gamma, trace.gae_lambda = self.agent.ppo.gamma, self.agent.ppo.gae_lambda
        if replay.scale is not None:
            trace.rewards = replay.scale(trace.rewards.to(self.device)).cpu()
        return trace

    def replay(self, seed: int) -> list[Replayed]:
        """Go through the minibatches of one epoch as the update does; weights stay."""
        return self._learn_nothing(seed).minibatches

    def _learn_nothing(self, seed: int) -> "PPOReplay":
        """Let a copy of the agent learn with learning rate 0; return what it did."""
        if seed in self.replays:
            return self.replays[seed]
        twin = deepcopy(self.agent)
        link_weights(twin)
        twin.shuffle.manual_seed(seed)
        replay = PPOReplay(twin)
        epochs = 2 if twin.ppo.refresh_states else 1  # they are refreshed before the second
        settings = {"learning_rate": 0.0, "epochs": epochs, "target_kl": None, "recompute_parts": 1}
        spies = {"targets": replay.make_targets, "loss": replay.compute_loss}
        watched = {name: replay.spy.watch(getattr(twin.network, name)) for name in ("replay", "unroll")}
        with patched(twin.ppo, **settings, **spies), patched(twin.network, **watched):
            twin.learn(self.next_obs)
        self.replays[seed] = replay
        replay.minibatches = replay.minibatches[len(replay.minibatches) * (epochs - 1) // epochs :]
        return replay


class PPOReplay:
    """What a PPO agent does when it learns: what it learns from, and its minibatches.

    Returns and advantages of the update are replaced by the number of each step, which the minibatches then show.

    Args:
        agent: a copy, is going to learn.

    Attributes:
        targets: what it would have learned from; None before.
        starts: ``[T, B]`` bool, as the rollout holds them.
        scale: of the rewards then; None without one.
        minibatches: in the order in which they came.
    """

    def __init__(self, agent: RecurrentPPO):
        self.agent, self.spy = agent, UnrollSpy(NetworkSubject(agent.network, agent.model_name), 2)
        self.own_targets, self.own_loss = agent.ppo.targets, agent.ppo.loss
        self.targets: Targets | None = None
        self.starts = torch.zeros(0, dtype=torch.bool)
        self.scale: ReturnScale | None = None
        self.minibatches: list[Replayed] = []

    def make_targets(self, buffer: RolloutBuffer, *rest: Any) -> tuple[Targets, dict[str, float]]:
        """Compute the targets, note them and hide the number of each step in them."""
        self.targets, metrics = self.own_targets(buffer, *rest)
        self.starts, self.scale = buffer.starts[: buffer.size].clone(), deepcopy(self.agent.return_scale)
        returns = self.targets.returns
        numbers = torch.arange(returns.numel(), dtype=returns.dtype, device=returns.device).view_as(returns)
        return replace(self.targets, returns=numbers, advantages=numbers.clone()), metrics

    def compute_loss(self, network: Any, mb: Sequences, *rest: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a minibatch, and note what was replayed for it."""
        self.spy.calls = []
        loss, metrics = self.own_loss(network, mb, *rest)
        state, starts, outputs, inputs = self.spy.calls[0]
        index = (
            torch.where(mb.returns == mb.advantages, mb.returns, -1.0).long().cpu()
        )  # -1: they do not belong together
        errors = metrics["ratio"].detach().flatten(2) - 1.0  # [L, N, heads]
        worst = errors.gather(-1, errors.abs().argmax(-1, keepdim=True)).squeeze(-1)
        self.minibatches.append(Replayed(index, state, starts, outputs, (1.0 + worst).cpu(), inputs))
        return loss, metrics

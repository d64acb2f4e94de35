"""A recurrent IQN as a learner that is checked."""

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl.agents import RecurrentIQN
from rl.memory_check.comparing import take_steps
from rl.memory_check.network_subject import NetworkSubject
from rl.memory_check.our_learner import OurLearner, UnrollSpy, count_steps, link_weights, patched
from rl.memory_check.subject import Replayed, Trace
from rl.types import ReplayBatch

MINIBATCHES = 8
"""So many are replayed."""


class IQNLearner(OurLearner):
    """A recurrent IQN; its trained steps are compared, behind the burn-in, with the values that it acted by."""

    every_step_once = False
    agent: RecurrentIQN

    def prepare(self) -> None:
        """Read how the agent cuts its sequences, and let it learn from few of them."""
        self.bptt, self.stride = self.agent.iqn.bptt, 1
        self.agent.iqn.learning_starts = 0
        self.steps_at = torch.zeros(0, dtype=torch.int64)

    def collect(self) -> Trace:
        """Play so many steps that there are whole sequences to replay."""
        trace = self.play(count_steps(self.agent))
        trace.gamma, trace.n_step = self.agent.iqn.gamma, self.agent.iqn.n_step
        if self.agent.return_scale is not None:
            trace.rewards = self.agent.return_scale(trace.rewards)
        trace.rewards = trace.rewards * self.agent.iqn.reward_scale
        replay, kept = self.agent.buffer, self.recorder.kept
        env = torch.arange(replay.num_envs)
        entries = torch.from_numpy(np.stack(self.recorder.entries))[kept, env]
        written = replay.written.cpu()
        steps = torch.full((int(written.max()), replay.num_envs), -1)  # by entry; -1 where it is no step
        steps[entries, env] = torch.arange(entries.numel()).view_as(entries)
        self.steps_at = torch.full((replay.size, replay.num_envs), -1)
        for number, step in enumerate(steps):  # a later entry writes over an earlier one
            place = number % replay.size
            self.steps_at[place] = torch.where(number < written, step, self.steps_at[place])
        self.steps_at = self.steps_at.flatten()
        return trace

    def after_correction(self) -> None:
        """Give the target the corrected scales."""
        self.agent.target.load_state_dict(self.agent.network.state_dict())

    def replay(self, seed: int) -> list[Replayed]:
        """Replay a few minibatches as the update does; weights stay."""
        twin = deepcopy(self.agent)
        link_weights(twin)
        twin.shuffle.manual_seed(seed)
        iqn, spy = twin.iqn, UnrollSpy(NetworkSubject(twin.network, twin.model_name), 1)
        own_loss, own_sums = iqn.loss, iqn._returns_and_weights
        minibatches: list[Replayed] = []
        sums: list[tuple[Tensor, Tensor]] = []

        def compute_loss(network: Any, target: Any, mb: ReplayBatch, *rest: Any) -> tuple[Tensor, dict[str, Tensor]]:
            spy.calls = []
            loss, metrics = own_loss(network, target, mb, *rest)
            state, starts, outputs, inputs = spy.calls[0]
            index = self._find_steps(mb.slots)
            trained = slice(len(index))
            replayed = Replayed(index, state, starts[trained], outputs[trained], None, take_steps(inputs, trained))
            replayed.rewards, replayed.factors = (part.cpu() for part in sums[-1])
            minibatches.append(replayed)
            return loss, metrics

        def add_rewards(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            returns, factors, weights, following = own_sums(*args)
            sums.append((returns, factors))
            return returns, factors, weights, following

        ratio = MINIBATCHES * iqn.sequences * iqn.bptt / max(1, int(twin.buffer.added))
        with (
            patched(iqn, learning_rate=0.0, replay_ratio=ratio, loss=compute_loss, _returns_and_weights=add_rewards),
            patched(twin.network, unroll=spy.watch(twin.network.unroll)),
            patched(twin, _update_moments=_do_nothing),  # it comes before the replay, whose features then differ
        ):
            twin.learn(self.next_obs)
        return minibatches

    def _find_steps(self, slots: Tensor) -> Tensor:
        """Return the step of the trace that each trained entry of the sequences is, ``[bptt, N]``, -1 for none."""
        replay, iqn = self.agent.buffer, self.agent.iqn
        trained, slots = torch.arange(iqn.burn_in, iqn.burn_in + iqn.bptt).unsqueeze(1), slots.cpu()
        entries = (slots // replay.num_envs * replay.stride + trained) % replay.size
        return self.steps_at[entries * replay.num_envs + slots % replay.num_envs]


def _do_nothing() -> None:
    pass

"""One whole update of recurrent PPO in plain float64 PyTorch: slow, written from the equations, knows nothing of rl.

Schulman et al., 2017 (arXiv 1707.06347) for the losses, Schulman et al., 2016 (arXiv 1506.02438) for the advantages,
Kingma and Ba, 2015 (arXiv 1412.6980) for Adam, Kapturowski et al., 2019 for sequences from stored states and burn-in.
``T`` steps, ``B`` environments, ``N`` sequences, ``D`` features, ``P`` distribution parameters, ``H`` hidden units.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from tests.rl.ppo.reference_network import divergence, encode, evaluate, recall_error, step
from tests.schedules import slow_schedule


@dataclass
class Rollout:
    """What environments showed and an agent did, as seen from outside; ``[T, B, ...]`` unless told.

    Attributes:
        obs: ``[T, B, D]``.
        starts: where an episode opens.
        actions: ``[T, B, branches]``, or ``[T, B, size]`` numbers of a Box.
        hidden: ``[T, B, branches]``, where a branch was sampled but not executed.
        rewards: of each step.
        terminated: the future is worth nothing; wins over ``truncated``.
        truncated: the future is worth V(final observation).
        final_obs: ``[T, B, D]``, read where truncated.
        next_obs: ``[B, D]``, after the last step.
    """

    obs: Tensor
    starts: Tensor
    actions: Tensor
    hidden: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor
    next_obs: Tensor


# --------------------------------------------------------------------------------------------------------- the learner


class Reference:
    """A learner beside an agent: the same weights to begin with, told the same rollouts.

    Args:
        weights: by parameter name.
        options: every hyperparameter of PPO by name, none left out.
        shuffle: draws the order of the sequences, as the agent's own would.
        num_envs: B.
        sizes: of the action branches; None for a Box.
        feed_previous: previous action and reward are inputs, too.
        scale_returns: divide rewards by the deviation of the discounted return.
        teacher: weights of the teacher; None without one.
    """

    def __init__(
        self, weights, options, shuffle, num_envs, sizes, feed_previous=False, scale_returns=False, teacher=None
    ):
        def doubled(w):
            return {name: weight.detach().double().clone() for name, weight in w.items()}

        self.w = {name: weight.requires_grad_() for name, weight in doubled(weights).items()}
        self.o, self.shuffle, self.sizes = options, shuffle, sizes
        self.feed_previous, self.scale_returns = feed_previous, scale_returns
        trunks = 1 + any(name.startswith("critic.") for name in weights)
        layers = sum(name.startswith("actor.core") and name.endswith("weight_hh") for name in weights)
        rows, hidden = weights["actor.core.layers.0.weight_hh"].shape
        leaves = {3: 1, 4: 2}[rows // hidden]  # a GRU has three gates and h, an LSTM four and h, c
        self.state = torch.zeros(num_envs, trunks, layers, leaves, hidden, dtype=torch.float64)
        self.teacher, self.teacher_state = (None, None) if teacher is None else (doubled(teacher), self.state)
        self.last_action = self.last_reward = None
        self.running, self.returns_seen = torch.zeros(num_envs, dtype=torch.float64), []
        self.spreads = []  # variances of the advantages so far
        self.m = self.v = torch.zeros((), dtype=torch.float64)  # the moments of Adam
        self.steps_taken, self.learning_rate = 0, options["learning_rate"]
        self.reached = set()  # which clips were active, for tests of the tests

    def learn(self, rollout: Rollout, progress: float) -> dict[str, float]:
        """Learn from one rollout when the share ``progress`` of training is done; return the metrics."""
        o = self.o
        rate, self.clip, self.entropy_coef, self.teacher_coef = (
            slow_schedule(o[f"{name}_schedule"], o[name], o[f"{name}_final"], progress, o.get(f"{name}_warmup", 0.0))
            for name in ("learning_rate", "clip", "entropy_coef", "teacher_kl")
        )
        adapts = o["learning_rate_schedule"] == "adaptive"
        if not adapts:
            self.learning_rate = rate
        self.look_back_on(rollout)
        minibatches, going_on = [], True
        for epoch in range(o["epochs"]):
            if epoch and o["refresh_states"]:
                self.refresh()
            for begin, env, length in self.minibatches():
                loss, metrics = self.loss(begin, env, length)
                if o["target_kl"] is not None and metrics["approx_kl"] > 1.5 * o["target_kl"]:
                    going_on = False
                    break
                if adapts and minibatches:
                    self.adapt(metrics["approx_kl"])
                minibatches.append(metrics | {"grad_norm": self.descend(loss)})
            if not going_on:
                break
        told = {"learning_rate": self.learning_rate, "clip": self.clip, "entropy_coef": self.entropy_coef}
        means = {name: sum(m[name] for m in minibatches) / len(minibatches) for name in minibatches[0]}
        return means | self.explained | told

    def adapt(self, kl: float) -> None:
        """Keep the divergence within a factor of 2 of the desired one: by 1.5 up or down, within bounds."""
        o = self.o
        if kl > 2 * o["desired_kl"]:
            self.learning_rate = max(o["learning_rate_min"], self.learning_rate / 1.5)
        elif kl < o["desired_kl"] / 2:
            self.learning_rate = min(o["learning_rate_max"], self.learning_rate * 1.5)

    # ------------------------------------------------------------------------------------------ from rollout to targets

    def look_back_on(self, r: Rollout) -> None:
        """Compute what the rollout teaches: stored states, old log-probabilities and values, advantages, returns."""
        T, B = r.starts.shape
        self.r, never = r, torch.zeros(B, dtype=torch.bool)
        if self.last_action is None:
            self.last_action, self.last_reward = torch.zeros_like(r.actions[0]), torch.zeros_like(r.rewards[0])
        self.x, self.x_final = [], []  # inputs, and what would have been the next ones, [B, D] for each step
        for t in range(T):
            self.x.append(self.inputs(r.obs[t], r.starts[t]))
            self.last_action, self.last_reward = r.actions[t], r.rewards[t]
            self.x_final.append(self.inputs(r.final_obs[t], never))
        x_next = self.inputs(r.next_obs, never)
        with torch.no_grad():
            self.states, log_probs, values, final_values = [], [], [], []
            for t in range(T):
                self.states.append(self.state)
                params, value, self.state = step(self.w, self.x[t], self.state, r.starts[t])
                log_probs.append(evaluate(self.w, self.sizes, params, r.actions[t])[0])
                values.append(value)
                final_values.append(step(self.w, self.x_final[t], self.state, never)[1])
            values.append(step(self.w, x_next, self.state, never)[1])
            if self.teacher is not None:
                said = []
                for t in range(T):
                    params, _, self.teacher_state = step(self.teacher, self.x[t], self.teacher_state, r.starts[t])
                    said.append(params)
                self.teacher_params = torch.stack(said)
        self.x = torch.stack(self.x)
        self.old_log_probs = torch.stack(log_probs).masked_fill(r.hidden, 0.0)
        self.old_values = torch.stack(values[:-1])
        rewards = self.scaled(r.rewards, r.starts) if self.scale_returns else r.rewards
        advantages = torch.zeros(T, B, dtype=torch.float64)
        for b in range(B):
            for t in range(T):
                weight = 1.0
                for k in range(t, T):  # all later errors of the episode, (gamma lambda) ** (k - t) each
                    ended = bool(r.terminated[k, b] or r.truncated[k, b])
                    future = 0.0 if r.terminated[k, b] else (final_values[k] if ended else values[k + 1])[b]
                    error = rewards[k, b] + self.o["gamma"] * future - values[k][b]
                    advantages[t, b] += weight * error
                    weight *= self.o["gamma"] * self.o["gae_lambda"]
                    if ended:
                        break
        self.returns = advantages + self.old_values
        unexplained = advantages.var(unbiased=False) / self.returns.var(unbiased=False)
        self.explained = {"explained_variance": 1.0 - unexplained.item()}
        if self.o["normalise_advantages"]:
            self.spreads.append(advantages.var(unbiased=False))
            spread = max(self.spreads[-1], sum(self.spreads) / len(self.spreads)) ** 0.5
            advantages = (advantages - advantages.mean()) / (spread + 1e-8)
        self.advantages = advantages

    def inputs(self, obs: Tensor, starts: Tensor) -> Tensor:
        """Join an observation ``[B, D]`` with the previous action and reward, of which there are none at a start."""
        if not self.feed_previous:
            return obs
        reward = self.last_reward.masked_fill(starts, 0.0).unsqueeze(-1)
        if self.sizes is None:
            return torch.cat([obs, self.last_action.masked_fill(starts.unsqueeze(-1), 0.0), reward], -1)
        actions = self.last_action.masked_fill(starts.unsqueeze(-1), -1.0)
        pairs = zip(actions.unbind(-1), self.sizes, strict=True)  # one-hot, the first place for "none"
        codes = [(action.unsqueeze(-1) == torch.arange(-1, size)).double() for action, size in pairs]
        return torch.cat([obs, *codes, reward], -1)

    def scaled(self, rewards: Tensor, starts: Tensor) -> Tensor:
        """Divide rewards by the standard deviation of all discounted returns so far; at most 10 in size."""
        for reward, opens in zip(rewards, starts, strict=True):
            self.running = self.running * ~opens * self.o["gamma"] + reward
            self.returns_seen.append(self.running)
        variance = torch.stack(self.returns_seen).var(unbiased=False)
        return (rewards / (variance + 1e-8).sqrt()).clamp(-10.0, 10.0)

    # ----------------------------------------------------------------------------------------------------- minibatches

    def chunks(self) -> list[tuple[int, int]]:
        """Cut T steps into as few pieces as ``bptt`` allows, as even as can be: (first step, length)."""
        T = len(self.x)
        pieces = math.ceil(T / (self.o["bptt"] or T))
        bounds = [T * i // pieces for i in range(pieces + 1)]
        return [(begin, end - begin) for begin, end in pairwise(bounds)]

    def minibatches(self):
        """Yield ``first steps [N], environments [N], length``: (chunk, environment) pairs of one length, shuffled."""
        chunks, B = self.chunks(), self.r.starts.shape[1]
        for length in sorted({length for _, length in chunks}):
            begins = torch.tensor([begin for begin, size in chunks if size == length])
            order = torch.randperm(len(begins) * B, generator=self.shuffle)
            share = self.o["num_minibatches"] * len(begins) / len(chunks)
            for part in order.tensor_split(min(len(order), max(1, round(share)))):
                yield begins[part // B], part % B, length

    def refresh(self) -> None:
        """Store the states at the start of chunks anew, under the weights of now."""
        state, begins = self.states[0], {begin for begin, _ in self.chunks()}
        with torch.no_grad():
            for t in range(len(self.x)):
                if t in begins:
                    self.states[t] = state
                _, _, state = step(self.w, self.x[t], state, self.r.starts[t])

    def first_state(self, begin: Tensor, env: Tensor) -> Tensor:
        """Return the states before the first steps: stored, or warmed by the steps before if there are enough."""
        states = []
        for t, b in zip(begin.tolist(), env.tolist(), strict=True):
            since = t - self.o["burn_in"] if t >= self.o["burn_in"] else t
            state, one = self.states[since][b : b + 1], slice(b, b + 1)
            with torch.no_grad():
                for k in range(since, t):
                    _, _, state = step(self.w, self.x[k][one], state, self.r.starts[k, one])
            states.append(state)
        return torch.cat(states)

    def loss(self, begin: Tensor, env: Tensor, length: int) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of N sequences, and metrics."""
        o, state, steps, outputs, seen = self.o, self.first_state(begin, env), [], [], []
        for t in range(length):
            at = begin + t, env
            params, value, state = step(self.w, self.x[at], state, self.r.starts[at])
            outputs.append((params, value))
            seen.append((state[:, 0, -1, 0], encode(self.w, "actor", self.x[at]), self.r.starts[at]))
            steps.append(begin + t)
        at = torch.cat(steps), env.repeat(length)  # all L * N steps
        params, value = (torch.cat(column) for column in zip(*outputs, strict=True))
        log_probs, entropies = evaluate(self.w, self.sizes, params, self.r.actions[at])
        log_ratio = log_probs.masked_fill(self.r.hidden[at], 0.0) - self.old_log_probs[at]
        if o["ratio"] == "joint":
            log_ratio = log_ratio.sum(-1, keepdim=True)
        ratio, advantage = log_ratio.exp(), self.advantages[at].unsqueeze(-1)
        clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
        error, old = (value - self.returns[at]) ** 2, self.old_values[at]
        if o["value_clip"] is not None:
            held = old + (value - old).clamp(-o["value_clip"], o["value_clip"])
            self.note("value held", (held - self.returns[at]) ** 2 > error)
            error = torch.maximum(error, (held - self.returns[at]) ** 2)
        self.note("ratio above", (ratio > clipped) & (advantage > 0))
        self.note("ratio below", (ratio < clipped) & (advantage < 0))
        parts = {
            "policy_loss": -torch.minimum(ratio * advantage, clipped * advantage).sum(-1).mean(),
            "value_loss": 0.5 * error.mean(),
            "entropy": entropies.sum(-1).mean(),
            "approx_kl": (ratio - 1 - log_ratio).sum(-1).mean(),
            "clipfrac": (ratio != clipped).double().mean(),
        }
        loss = parts["policy_loss"] + o["value_coef"] * parts["value_loss"] - self.entropy_coef * parts["entropy"]
        if self.teacher is not None:
            kl = divergence(self.w, params, self.teacher, self.teacher_params[at], self.sizes)
            parts["teacher_kl"] = kl.masked_fill(self.r.hidden[at], 0.0).sum(-1).mean()
            loss = loss + self.teacher_coef * parts["teacher_kl"]
        if o["recall_coef"]:
            columns = (list(column) for column in zip(*seen, strict=True))
            parts["recall_loss"] = recall_error(self.w, *columns, o["bptt"] or len(self.x))
            loss = loss + o["recall_coef"] * parts["recall_loss"]
        if entropies.shape[1] > 1:
            parts |= {f"entropy_action_{branch}": entropies[:, branch].mean() for branch in range(entropies.shape[1])}
        return loss, {name: value.item() for name, value in (parts | {"loss": loss}).items()}

    def descend(self, loss: Tensor) -> float:
        """Take a step of Adam (decays 0.9, 0.999; epsilon 1e-5) down the clipped gradient; return its norm before.

        It is clipped at ``max_grad_norm``, and at twice the root of the sum of the second moments, plus 1e-3.
        """
        weights = list(self.w.values())
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        gradient = torch.cat([part.flatten() for part in gradients])
        norm, limit = gradient.norm().item(), self.o["max_grad_norm"]
        self.note("gradient scaled", gradient.norm() > limit)
        if self.steps_taken:
            usual = (self.v.sum() / (1 - 0.999**self.steps_taken)).sqrt().item()
            self.note("gradient sudden", gradient.norm() > 2 * usual + 1e-3)
            limit = min(limit, 2 * usual + 1e-3)
        gradient = gradient * min(1.0, limit / norm)
        self.steps_taken += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        m, v = self.m / (1 - 0.9**self.steps_taken), self.v / (1 - 0.999**self.steps_taken)
        change = self.learning_rate * m / (v.sqrt() + 1e-5)
        with torch.no_grad():
            for weight, part in zip(weights, change.split([w.numel() for w in weights]), strict=True):
                weight -= part.view_as(weight)
        return norm

    def note(self, name: str, where: Tensor) -> None:
        """Remember that a clip was active somewhere."""
        if bool(where.any()):
            self.reached.add(name)

"""A slow update of IQN in float64, written from the equations: one step at a time, differentiated by autograd.

It shares with the update no more than the core of the network, which it unrolls by single steps, the reading of
sequences from a replay, and the random numbers, which it draws in the same order.
"""

import math
from copy import deepcopy
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import torch

from tests.schedules import slow_schedule


class SlowIQN:
    """The update of ``rl.iqn.IQN`` on copies of the two networks.

    Args:
        iqn: whose hyperparameters it takes, and nothing else.
        network: copied.
        target: copied.
    """

    def __init__(self, iqn, network, target):
        self.options = SimpleNamespace(**asdict(iqn))
        self.network, self.target = deepcopy(network).double(), deepcopy(target).double()
        self.parameters = list(self.network.parameters())
        self.steps = 0
        self.first, self.second = ([torch.zeros_like(p) for p in self.parameters] for _ in range(2))

    def update(self, replay, count, count_before, shuffle, generator, progress, variance=None):
        """Learns from ``count`` minibatches; means of the metrics, and priorities by slot.

        Args:
            replay: is only read.
            count: minibatches.
            count_before: minibatches before these.
            shuffle: draws sequences.
            generator: draws tau.
            progress: share of training done.
            variance: of the returns, whose root rewards are divided by; None leaves them.
        """
        options = self.options
        told = options.learning_rate_schedule, options.learning_rate, options.learning_rate_final
        rate = slow_schedule(*told, progress, options.learning_rate_warmup)
        sequences = max(1, round(options.batch_size / options.bptt))
        chances = np.where(replay.ready().numpy(), replay.priorities.numpy() ** options.priority_exponent, 0.0)
        chances /= chances.sum()
        drawn = torch.multinomial(torch.from_numpy(chances), count * sequences, replacement=True, generator=shuffle)
        metrics, priorities = [], {}
        for index, slots in enumerate(drawn.view(count, sequences).tolist()):
            unlikely = np.array([(1.0 / (np.count_nonzero(chances) * chances[slot])) for slot in slots])
            weights = (unlikely / unlikely.max()) ** options.priority_correction
            batch = replay.read(torch.tensor(slots), torch.ones(sequences))
            loss, q_mean, errors = self.loss(batch, weights, generator, variance)
            gradients = torch.autograd.grad(loss, self.parameters)
            norm = math.sqrt(sum((gradient**2).sum().item() for gradient in gradients))
            limit = min(options.max_grad_norm, self.sudden())
            self.step([gradient * min(1.0, limit / norm) for gradient in gradients], rate)
            if (count_before + index + 1) % options.target_interval == 0:
                for behind, ahead in zip(self.target.parameters(), self.parameters, strict=True):
                    behind.data = behind.data + options.target_share * (ahead.detach() - behind.data)
            metrics.append({"loss": loss.item(), "quantile_loss": loss.item(), "q_mean": q_mean, "grad_norm": norm})
            if options.priority_exponent:
                priorities |= dict(zip(slots, errors, strict=True))
        means = {name: np.mean([row[name] for row in metrics]) for name in metrics[0]}
        return means | {"learning_rate": rate}, priorities

    def sudden(self):
        """Twice the root mean square of the norms of the gradients so far, plus 1e-3; the first has no limit."""
        if not self.steps:
            return math.inf
        return 2 * math.sqrt(sum(second.sum().item() for second in self.second) / (1 - 0.999**self.steps)) + 1e-3

    def step(self, gradients, rate):
        """Adam (Kingma and Ba, 2015)."""
        self.steps += 1
        for parameter, gradient, first, second in zip(self.parameters, gradients, self.first, self.second, strict=True):
            first.mul_(0.9).add_(0.1 * gradient)
            second.mul_(0.999).add_(0.001 * gradient**2)
            mean, square = first / (1 - 0.9**self.steps), second / (1 - 0.999**self.steps)
            parameter.data = parameter.data - rate * mean / (square.sqrt() + 1e-5)

    def loss(self, batch, weights, generator, variance):
        """Loss of a minibatch, the mean value of what was done, and the priorities of its sequences."""
        options = self.options
        trained = range(options.burn_in, options.burn_in + options.bptt)
        sequences = batch.starts.shape[1]
        target_taus = torch.rand(sequences, options.num_target_quantiles, generator=generator).double()
        taus = torch.rand(sequences, options.num_quantiles, generator=generator).double()
        psi, future = self.unroll(self.network, batch), self.unroll(self.target, batch)
        losses, values, priorities = [], [], []
        for n in range(sequences):
            errors = []
            for t in trained:
                if batch.final[t, n]:
                    continue
                goal, at = self.goal(batch, psi, future, t, n, target_taus[n], variance)
                assert at <= t + options.n_step
                code = int(np.ravel_multi_index(batch.actions[t, n].tolist(), self.network.head.sizes))
                theta = quantiles(self.network, psi[t][n], taus[n])[:, code]
                losses.append(weights[n] * self.huber(goal - theta.unsqueeze(1), taus[n].unsqueeze(1)).mean(1).sum())
                values.append(theta.mean().item())
                errors.append(abs(goal.mean().item() - theta.mean().item()))
            eta = options.priority_peak
            priorities.append(eta * max(errors, default=0.0) + (1 - eta) * np.mean(errors or [0.0]) + 1e-6)
        return sum(losses) / len(losses), np.mean(values), priorities

    def huber(self, errors, taus):
        """The quantile Huber loss of every pair (Dabney et al., 2018, equations 2 and 3)."""
        kappa, size = self.options.kappa, errors.abs()
        huber = torch.where(size <= kappa, size**2 / 2, kappa * (size - kappa / 2))
        return torch.where(errors < 0, 1 - taus, taus) * huber / kappa

    def goal(self, batch, psi, future, t, n, taus, variance):
        """What the quantiles of a step are compared with, ``[N']``, and the entry at which the sum of rewards ends."""
        options, total, discount, at = self.options, 0.0, 1.0, t
        while True:
            reward = batch.rewards[at, n].item()
            if variance is not None:
                reward = min(10.0, max(-10.0, reward / math.sqrt(variance)))
            total += discount * options.reward_scale * reward
            discount *= options.gamma
            if batch.terminated[at, n]:
                discount = 0.0
                break
            at += 1
            if batch.final[at, n] or at == t + options.n_step:
                break
        if discount == 0.0:
            beyond = torch.zeros(len(taus), dtype=torch.float64)
        else:
            mask = batch.obs["action_mask"][at, n].tolist() if "action_mask" in batch.obs else None
            best = best_action(self.network, psi[at][n].detach(), mask)
            beyond = quantiles(self.target, future[at][n], taus)[:, best].detach()
            if options.value_rescaling:
                beyond = beyond.sign() * (((((1 + 4e-3 * (beyond.abs() + 1.001)).sqrt() - 1) / 2e-3) ** 2) - 1)
        goal = total + discount * beyond
        return goal.sign() * ((goal.abs() + 1).sqrt() - 1) + 1e-3 * goal if options.value_rescaling else goal, at

    def unroll(self, network, batch):
        """Psi of every entry, a list of ``[N, H]``; no gradient reaches into the burn-in."""
        state = {name: leaf.double() if leaf.is_floating_point() else leaf for name, leaf in batch.state.items()}
        encoder, found = network.trunk.encoder, []
        for t in range(len(batch.starts)):
            inputs = [part(batch.obs[name][t]) for name, part in zip(encoder.names, encoder.parts, strict=True)]
            with torch.set_grad_enabled(network is self.network and t >= self.options.burn_in):
                features = torch.tanh(encoder.layer(torch.cat(inputs, dim=-1).double()))
                psi, state = network.trunk.core.step(features, state, batch.starts[t])
            found.append(psi)
        return found


def quantiles(network, psi, taus):
    """Z_tau(o, a) for psi ``[H]`` and taus ``[K]``: ``[K, A]`` (Dabney et al., 2018, equation 4)."""
    frequencies = math.pi * torch.arange(network.embedding.in_features, dtype=torch.float64)
    phi = torch.relu(network.embedding(torch.cos(taus.unsqueeze(1) * frequencies)))
    outputs = network.output(torch.relu(network.hidden(psi * phi)))
    if not network.dueling:
        return outputs
    advantages = outputs[:, :-1]
    return outputs[:, -1:] + advantages - advantages.mean(1, keepdim=True)


def best_action(network, psi, mask):
    """The allowed action of the highest mean over the midpoints (k + 1/2) / K."""
    count = len(network.midpoints)
    taus = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    values = quantiles(network, psi, taus).mean(0).tolist()
    sizes = network.head.sizes
    offsets = np.cumsum([0, *sizes[:-1]])

    def allowed(code):
        branches = np.unravel_index(code, sizes)
        return mask is None or all(mask[before + branch] for before, branch in zip(offsets, branches, strict=True))

    return max((code for code in range(len(values)) if allowed(code)), key=lambda code: values[code])

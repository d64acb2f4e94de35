"""Measure light speed: the network and the minibatches of a training run through bare kernels, and nothing else.

No buffer, no gather, no targets, no metrics, no checks. Per step: encoder, cell, heads, a Gumbel draw, the environment.
Per minibatch: the same forward pass over the sequence with its episode starts, the gradient of the loss written out,
the backward pass, the clipped norm and one fused Adam step. What training takes beyond this is what this project adds.
"""

import time

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from experiments.peers.recurrent_ppo import Iterations
from rl.cores.gru import GRULayer
from rl.cores.lstm import LSTMLayer
from rl.cores.rnn import RNNLayer
from rl.cores.stack import Stack
from rl.networks.encoders import VectorEncoder
from rl.types import Observation, Sequences, State


class LightSpeed:
    """The bare loop of one training run with one discrete action and a shared trunk.

    Args:
        run: a training run of the same sizes; its agent, environments and one of its rollouts are used.
    """

    def __init__(self, run: Iterations):
        self.run, self.agent = run, run.agent
        self.network, self.optimizer = run.agent.network, run.agent.optimizer
        self.parameters = list(self.network.parameters())
        self.minibatches = self._draw_minibatches()
        self.obs, self.count = run.obs, self.network.head.num_params

    def _draw_minibatches(self) -> list[Sequences]:
        """Return one epoch of a real rollout."""
        self.run.collect()
        agent, ppo = self.agent, self.agent.ppo
        targets, _ = agent.targets(self.run.obs)
        drawn = list(
            self.run.buffer.sequences(targets, ppo.num_minibatches, ppo.bptt, torch.Generator().manual_seed(0))
        )
        agent.forget_rollout()
        return [minibatch for minibatch, _ in drawn]

    def measure(self, seconds: float) -> float:
        """Play and learn for so long; return environment steps per second."""
        began, steps = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < seconds:
            self.collect()
            for _ in range(self.agent.ppo.epochs):
                for minibatch in self.minibatches:
                    self.learn(minibatch)
            steps += self.agent.num_steps * self.agent.num_envs
        return steps / elapsed

    def encode(self, obs: Observation) -> Tensor:
        """Run the encoder; where the observation is a vector, its layer, if it has one, without its module."""
        encoder = self.network.actor.encoder
        if encoder.layer is None:
            return obs["obs"]
        if isinstance(encoder.parts[0], VectorEncoder):
            return torch.tanh(linear(obs["obs"], encoder.layer.weight, encoder.layer.bias))
        return encoder(obs)

    def decode(self, y: Tensor) -> Tensor:
        """Map outputs of the layer ``[..., H]`` to logits and value ``[..., A + 1]``."""
        network = self.network
        of_policy, of_value = linear(y, network.hidden.weight, network.hidden.bias).tanh().chunk(2, dim=-1)
        (policy, value), (shift, base) = (
            network.heads.weight.split((self.count, 1)),
            network.heads.bias.split((self.count, 1)),
        )
        return torch.cat([linear(of_policy, policy, shift), linear(of_value, value, base)], dim=-1)

    @property
    def layer(self) -> GRULayer | LSTMLayer | RNNLayer:
        """The one recurrent layer."""
        core = self.network.actor.core
        assert isinstance(core, Stack)
        (layer,) = core.layers
        assert isinstance(layer, (GRULayer, LSTMLayer, RNNLayer))
        return layer

    @torch.inference_mode()
    def collect(self) -> None:
        """Play one rollout."""
        layer = self.layer
        state = tuple(torch.zeros(self.agent.num_envs, layer.weight_hh.shape[1]) for _ in layer.leaves)
        for _ in range(self.agent.num_steps):
            state = layer.step(self.encode({"obs": torch.from_numpy(self.obs)}), state)
            logits = self.decode(state[0])[:, :-1]
            actions = (logits - torch.empty_like(logits).exponential_().log_()).argmax(dim=-1)
            after = self.run.envs.step(actions.numpy())
            self.obs, ended = after.obs, after.ended
            if ended.any():
                rows = torch.from_numpy(np.flatnonzero(ended))
                for leaf in state:
                    leaf[rows] = 0.0

    def learn(self, mb: Sequences) -> None:
        """Learn from one minibatch."""
        layer = self.layer
        y, _ = layer.unroll(self.encode(mb.obs), take_leaves(mb.state, layer.leaves), mb.starts)
        out = self.decode(y)  # [L, N, A + 1]
        with torch.no_grad():
            gradient = self.compute_output_gradient(out, mb)
        gradients = torch.autograd.grad(out, self.parameters, gradient)
        (vector,) = self.optimizer.param_groups[0]["params"]
        vector.grad = torch.cat([part.reshape(-1) for part in gradients])
        norm = torch.linalg.vector_norm(vector.grad)
        self.optimizer.grad_scale = (norm / self.agent.ppo.max_grad_norm).clamp_(min=1.0)
        self.optimizer.step()

    def compute_output_gradient(self, out: Tensor, mb: Sequences) -> Tensor:
        """Return the derivative of clipped surrogate + value error - entropy by logits and value, ``[L, N, A + 1]``."""
        ppo, count = self.agent.ppo, mb.returns.numel()
        logs = out[..., :-1].log_softmax(-1)
        p = logs.exp()
        ratio = (logs.gather(-1, mb.actions) - mb.old_log_probs).exp()
        advantages = mb.advantages.unsqueeze(-1)
        gain = ratio * advantages
        by_log_prob = gain * (gain <= ratio.clamp(1 - ppo.clip, 1 + ppo.clip) * advantages) / -count
        by_entropy = ppo.entropy_coef / count
        gradient = torch.empty_like(out)
        logits = gradient[..., :-1]
        torch.mul(p, (logs - (p * logs).sum(-1, keepdim=True)) * by_entropy - by_log_prob, out=logits)
        logits.scatter_add_(-1, mb.actions, by_log_prob)
        torch.mul(out[..., -1] - mb.returns, ppo.value_coef / count, out=gradient[..., -1])
        return gradient


def take_leaves(state: State, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Return the state of the one layer, leaves ``[B, H]``."""
    return tuple(state[name][:, 0] for name in names)

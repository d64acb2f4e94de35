"""Shared by the tests of imitation: agents and imitators for random recordings, and a slow twin to compare with."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from rl import cores
from rl.agents import RecurrentPPO
from rl.recordings import Imitation, Imitator
from tests.schedules import slow_schedule

LENGTHS = (5, 9, 3, 7, 6, 4)


@pytest.fixture
def make_agent(randomise):
    """An agent for a recording; its weights are random, so that no error hides in a policy that is almost uniform."""

    def make(recording, core=cores.gru, core_options=None, **options):
        spaces_ = recording.observation_space, recording.action_space
        core = partial(core, hidden_size=8, **(core_options or {}))
        agent = RecurrentPPO(*spaces_, 8, seed=0, core=core, **options)
        randomise(agent.network)
        return agent

    return make


@pytest.fixture
def make_imitator(make_agent, make_recording):
    """An imitator of random recordings."""

    def make(action_space=None, lengths=LENGTHS, agent_options=None, seed=0, **hyperparameters):
        recording = make_recording(lengths, action_space)
        agent = make_agent(recording, **(agent_options or {}))
        return Imitator(agent, recording, Imitation(**({"held_out": 0.4, "streams": 2} | hyperparameters)), seed=seed)

    return make


class SlowImitation:
    """Imitation of a MultiDiscrete recording by a GRU, in plain PyTorch and float64, from the words of the
    documentation: every stream replays by itself, step by step. Nothing of the project is used but first weights.
    """

    def __init__(self, agent, recording, hyperparameters, seed):
        self.recording, self.hyper, self.seed = recording, hyperparameters, seed
        named = agent.network.named_parameters()
        self.weights = {name: leaf.detach().double().requires_grad_() for name, leaf in named}
        self.parameters = list(self.weights.values())
        self.adam = torch.optim.Adam(self.parameters, lr=1.0, eps=1e-5)
        self.train_spans, self.held_spans = self.split()

    def split(self):
        bounds, groups = self.recording.bounds.tolist(), self.recording.groups.tolist()
        spans = list(pairwise(bounds))
        if self.hyper.split == "time":
            middles = [end - round((end - first) * self.hyper.held_out) for first, end in spans]
            train = [(first, middle) for (first, _), middle in zip(spans, middles, strict=True)]
            return train, [(middle, end) for (_, end), middle in zip(spans, middles, strict=True)]
        drawn = np.random.default_rng(self.seed).permutation(sorted(set(groups)))
        held = drawn[: max(1, round(len(drawn) * self.hyper.held_out))]
        sides = [span for span, group in zip(spans, groups, strict=True) if group not in held]
        return sides, [span for span, group in zip(spans, groups, strict=True) if group in held]

    def streams(self, number):
        """The steps of each stream in an epoch: ``(step, is a start, counts)``."""
        pieces = []
        for first, end in self.train_spans:
            length = self.hyper.piece_steps or end - first
            for begin in range(first, end, length):
                warm = range(max(first, begin - self.hyper.burn_in), begin)
                steps = [(step, True) for step in range(begin, min(begin + length, end))]
                pieces.append([(step, False) for step in warm] + steps)
        streams = [[] for _ in range(min(self.hyper.streams, len(pieces)))]
        for index in np.random.default_rng(self.seed * 100_003 + number).permutation(len(pieces)):
            shortest = min(streams, key=len)
            shortest += [(step, place == 0, counts) for place, (step, counts) in enumerate(pieces[index])]
        return streams

    def log_prob(self, step, state, starts):
        """Of a step of the recording, and the next state ``[1, H]``."""
        recording, weights, sizes = self.recording, self.weights, self.recording.action_space.nvec.tolist()
        opens = step in recording.bounds
        last = [0] * len(sizes) if opens else (recording.actions[step - 1] + 1).tolist()  # 0 is none
        codes = [torch.eye(size + 1)[action] for size, action in zip(sizes, last, strict=True)]
        reward = torch.tensor([0.0 if opens else recording.rewards[step - 1]])
        inputs = torch.cat([torch.from_numpy(recording.obs["obs"][step]), *codes, reward]).double()
        state = torch.zeros_like(state) if starts else state
        encoder, core, half = "actor.encoder.layer.", "actor.core.layers.0.", len(weights["hidden.weight"]) // 2
        features = torch.tanh(weights[encoder + "weight"] @ inputs + weights[encoder + "bias"]).unsqueeze(0)
        cell = (weights[core + name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        state = torch.gru_cell(features, state, *cell)
        hidden = torch.tanh(weights["hidden.weight"][:half] @ state[0] + weights["hidden.bias"][:half])
        logits = (weights["heads.weight"] @ hidden + weights["heads.bias"])[:-1]  # the last one is the value
        branches = logits.split(sizes)
        return sum(x.log_softmax(-1)[a] for x, a in zip(branches, recording.actions[step], strict=True)), state

    def initial_state(self):
        return torch.zeros(1, self.weights["actor.core.layers.0.weight_hh"].shape[1], dtype=torch.float64)

    def epoch(self, number):
        hyper, streams = self.hyper, self.streams(number)
        told = hyper.learning_rate_schedule, hyper.learning_rate, hyper.learning_rate_final
        rate = slow_schedule(*told, number / hyper.epochs, hyper.learning_rate_warmup)
        self.adam.param_groups[0]["lr"] = rate
        states = [self.initial_state() for _ in streams]
        for begin in range(0, max(map(len, streams)), hyper.window_size):
            loss = sum(0.0 * parameter.sum() for parameter in self.parameters)
            for index, stream in enumerate(streams):
                for place, (step, starts, counts) in enumerate(stream[begin : begin + hyper.window_size]):
                    if place % (hyper.bptt or hyper.window_size) == 0:
                        states[index] = states[index].detach()
                    log_prob, states[index] = self.log_prob(step, states[index], starts)
                    loss = loss - log_prob * counts / (hyper.window_size * len(streams))
            gradients = torch.autograd.grad(loss, self.parameters)
            norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient * min(1.0, min(hyper.max_grad_norm, self.sudden()) / norm.item())
            self.adam.step()

    def sudden(self):
        """Twice the root mean square of the norms of the gradients so far, plus 1e-3; the first has no limit."""
        moments = [self.adam.state[parameter] for parameter in self.parameters if parameter in self.adam.state]
        if not moments:
            return float("inf")
        total = sum(one["exp_avg_sq"].sum() for one in moments) / (1 - 0.999 ** moments[0]["step"].item())
        return 2 * total.sqrt().item() + 1e-3

    @torch.no_grad()
    def held_out_nll(self):
        losses = []
        for first, end in self.held_spans:
            state = self.initial_state()
            for step in range(first, end):
                log_prob, state = self.log_prob(step, state, step == first)
                losses.append(-log_prob.item())
        return np.mean(losses)

    def train(self):
        """All epochs; the weights to keep, and the number of their epoch."""
        kept, best, lowest = None, 0, np.inf
        for number in range(self.hyper.epochs):
            self.epoch(number)
            loss = self.held_out_nll()
            if loss < lowest or not self.hyper.keep_best:
                kept, best, lowest = [parameter.detach().clone() for parameter in self.parameters], number + 1, loss
        return kept, best


@pytest.fixture
def slow_imitation():
    """``slow_imitation(imitator)``: the slow twin of an imitator that has not learned yet."""
    return lambda imitator: SlowImitation(imitator.agent, imitator.recording, imitator.hyperparameters, imitator.seed)

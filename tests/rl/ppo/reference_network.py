"""The network of ``tests.rl.ppo.reference`` in plain float64 PyTorch: slow, written from the equations.

``N`` sequences, ``D`` features, ``P`` distribution parameters, ``H`` hidden units.
"""

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def cell(w: Weights, name: str, x: Tensor, leaves: Tensor) -> Tensor:
    """Take a step of an Elman network, a GRU or an LSTM: ``x [N, D]``, state ``[N, 1 or 2, H]`` -> the next state."""
    h = leaves[:, 0]
    by_input = x @ w[f"{name}.weight_ih"].T + w[f"{name}.bias_ih"]
    by_state = h @ w[f"{name}.weight_hh"].T + w[f"{name}.bias_hh"]
    if by_state.shape == h.shape:
        return torch.tanh(by_input + by_state).unsqueeze(1)
    if leaves.shape[1] == 1:
        r, z = torch.sigmoid(by_input + by_state)[:, : 2 * h.shape[1]].chunk(2, -1)
        n = torch.tanh(by_input.chunk(3, -1)[2] + r * by_state.chunk(3, -1)[2])
        return ((1 - z) * n + z * h).unsqueeze(1)
    i, f, g, o = (by_input + by_state).chunk(4, -1)
    c = torch.sigmoid(f) * leaves[:, 1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.stack([torch.sigmoid(o) * torch.tanh(c), c], dim=1)


def step(w: Weights, x: Tensor, state: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take a step: ``x [N, D]``, ``state [N, trunks, layers, leaves, H]`` -> ``[N, P]``, ``[N]``, the next state."""
    state = state * ~starts.view(-1, 1, 1, 1, 1)
    outputs, states = [], []
    for trunk, name in enumerate(("actor", "critic")[: state.shape[1]]):
        y, layers = encode(w, name, x), []
        for layer in range(state.shape[2]):
            layers.append(cell(w, f"{name}.core.layers.{layer}", y, state[:, trunk, layer]))
            y = layers[-1][:, 0]
        outputs.append(y)
        states.append(torch.stack(layers, dim=1))
    if "heads.weight" not in w:
        params, value = read(w, "head_layers.policy", outputs[0]), read(w, "head_layers.value", outputs[-1])
        return params, value.squeeze(-1), torch.stack(states, dim=1)
    weight, bias, half = w["heads.weight"], w["heads.bias"], len(w["hidden.weight"]) // 2
    of_policy = torch.tanh(outputs[0] @ w["hidden.weight"][:half].T + w["hidden.bias"][:half])
    of_value = torch.tanh(outputs[-1] @ w["hidden.weight"][half:].T + w["hidden.bias"][half:])
    params, value = of_policy @ weight[:-1].T + bias[:-1], of_value @ weight[-1] + bias[-1]
    return params, value, torch.stack(states, dim=1)


def encode(w: Weights, name: str, x: Tensor) -> Tensor:
    """Return what the memory of a trunk is fed: ``x [N, D]``, through a tanh layer if there is one."""
    if f"{name}.encoder.layer.weight" not in w:
        return x
    return torch.tanh(x @ w[f"{name}.encoder.layer.weight"].T + w[f"{name}.encoder.layer.bias"])


def recall_error(w: Weights, remembered: list[Tensor], fed: list[Tensor], starts: list[Tensor], bptt: int) -> Tensor:
    """Return how wrong the memory tells what it was fed 1, 2, 4, ... steps before; of L steps ``[N, ...]`` each."""
    distances = [2**power for power in range(30) if 2**power < bptt]
    (length, size), (rows, width) = (len(fed), len(fed[0])), (len(w["recall.heads.weight"]), fed[0].shape[1])
    assert rows == width * len(distances)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(length):
        hidden = torch.tanh(remembered[t] @ w["recall.hidden.weight"].T + w["recall.hidden.bias"])
        told = hidden @ w["recall.heads.weight"].T + w["recall.heads.bias"]
        for place, distance in enumerate(distances):
            for n in range(size):
                before = t - distance
                if before >= 0 and not any(starts[k][n] for k in range(before + 1, t + 1)):
                    error = told[n, place * width : (place + 1) * width] - fed[before][n].detach()
                    total = total + (error**2).mean()
    return total / (length * size * len(distances))


def read(w: Weights, name: str, x: Tensor) -> Tensor:
    """Apply linear layers, ``name.0``, ``name.2`` and so on, with ReLU in between: ``x [N, H]`` -> ``[N, P]``."""
    places = sorted(int(key.split(".")[-2]) for key in w if key.startswith(f"{name}.") and key.endswith(".weight"))
    for place in places:
        x = (x.relu() if place else x) @ w[f"{name}.{place}.weight"].T + w[f"{name}.{place}.bias"]
    return x


def evaluate(w: Weights, sizes: list[int] | None, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies ``[N, branches]``: softmax over ``sizes``, or normal if there are none."""
    if sizes is None:
        log_std = w["head.log_std"]
        log_probs = -0.5 * ((actions - params) / log_std.exp()) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
        entropies = log_std + 0.5 * math.log(2 * math.pi * math.e)
        return log_probs.sum(-1, keepdim=True), entropies.sum().expand(len(params), 1)
    pairs = list(zip(params.split(sizes, -1), actions.long().unbind(-1), strict=True))
    columns = [logits.log_softmax(-1) for logits, _ in pairs]
    log_probs = [logs[range(len(logs)), action] for logs, (_, action) in zip(columns, pairs, strict=True)]
    return torch.stack(log_probs, -1), torch.stack([-(logs.exp() * logs).sum(-1) for logs in columns], -1)


def divergence(w: Weights, params: Tensor, other: Weights, others: Tensor, sizes: list[int] | None) -> Tensor:
    """Return KL(policy || teacher), ``[N, branches]``."""
    if sizes is None:
        own, theirs = w["head.log_std"].exp(), other["head.log_std"].exp()
        parts = (theirs / own).log() + (own**2 + (params - others) ** 2) / (2 * theirs**2) - 0.5
        return parts.sum(-1, keepdim=True)
    pairs = zip(params.split(sizes, -1), others.split(sizes, -1), strict=True)
    logs = [(own.log_softmax(-1), theirs.log_softmax(-1)) for own, theirs in pairs]
    return torch.stack([(own.exp() * (own - theirs)).sum(-1) for own, theirs in logs], -1)

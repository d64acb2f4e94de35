"""Causal self-attention over a sliding window (Vaswani et al., 2017), pre-norm (Xiong et al., 2020).

x' = x + O(attend(norm(x))), x'' = x' + W_2 gelu(W_1 norm(x')). Positions enter as one learned number for each head and
distance that is added to the scores (Raffel et al., 2020). Only the distance counts, so a step needs no clock.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from rl.checks import positive
from rl.cores.dropout import refuse_dropout
from rl.cores.memory_span import window_of
from rl.cores.residual import Residual, ages, linear
from rl.types import State

MLP_RATIO = 2
"""Width of the hidden layer of the perceptron in a layer, in multiples of ``hidden_size``."""


class AttentionLayer(nn.Module):
    """One layer: each step attends to itself and to at most ``window_size - 1`` steps before it in its episode.

    State: ``keys`` and ``values`` ``[B, W - 1, H]`` of the steps before, oldest first, zero where there was none in
    this episode, and ``age [B]`` int64, how many there were. ``unroll`` splits a sequence into blocks of C <= W
    queries, each with the C + W - 1 keys that it can reach: all blocks are one product, its cost linear in T.
    """

    leaves = ("keys", "values", "age")
    columns: Tensor  # [heads, H], 1 in the columns of each head

    def __init__(self, hidden_size: int, window_size: int, num_heads: int):
        super().__init__()
        self.window_size, self.num_heads = window_size, num_heads
        self.norm = nn.LayerNorm(hidden_size)
        self.qkv = linear(hidden_size, 3 * hidden_size)
        self.distance = nn.Parameter(torch.zeros(num_heads, window_size))  # of the keys, farthest first
        self.attended = linear(hidden_size, hidden_size)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.up = linear(hidden_size, MLP_RATIO * hidden_size)
        self.down = linear(MLP_RATIO * hidden_size, hidden_size)
        self.scale = (hidden_size // num_heads) ** -0.5
        columns = torch.eye(num_heads).repeat_interleave(hidden_size // num_heads, dim=1)
        self.register_buffer("columns", columns, persistent=False)

    def initial_state(self, batch_size: int, device: torch.device | str | None) -> State:
        """Make an empty window."""
        shape = batch_size, self.window_size - 1, self.qkv.in_features
        age = torch.zeros(batch_size, dtype=torch.int64, device=device)
        return {"keys": torch.zeros(shape, device=device), "values": torch.zeros(shape, device=device), "age": age}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one step: ``x [B, H]`` -> ``[B, H]``, the next window."""
        W = self.window_size
        query, key, value = self.qkv(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)  # [B, 1, H]
        keys, values = torch.cat([state["keys"], key], dim=1), torch.cat([state["values"], value], dim=1)  # [B, W, H]
        reach = torch.arange(W - 1, -1, -1, device=x.device) <= state["age"].unsqueeze(1)  # [B, W]
        # One product for all heads: row h of the queries is zero outside the columns of head h.
        scores = torch.bmm(query * self.columns * self.scale, keys.transpose(1, 2)) + self.distance  # [B, heads, W]
        weights = scores.masked_fill(~reach.unsqueeze(1), -torch.inf).softmax(dim=-1)
        attended = (torch.bmm(weights, values) * self.columns).sum(1)  # [B, H]
        age = (state["age"] + 1).clamp_max(W - 1)
        return self._rest(x, attended), {"keys": keys[:, 1:], "values": values[:, 1:], "age": age}

    def unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run ``x [T, B, H]``, ``starts [T, B]`` -> ``[T, B, H]``, the window after step T."""
        T, W = len(x), self.window_size
        query, key, value = self.qkv(self.norm(x)).transpose(0, 1).chunk(3, dim=-1)  # [B, T, H]
        keys, values = torch.cat([state["keys"], key], dim=1), torch.cat([state["values"], value], dim=1)
        age = ages(starts, state["age"]).t()  # [B, T]
        attended = self._attend(query, keys, values, age).transpose(0, 1)  # [T, B, H]

        keys, values, last = keys[:, T:], values[:, T:], (age[:, -1] + 1).clamp_max(W - 1)
        if starts.device.type != "cpu" or starts.any():  # asking a GPU would cost more
            gone = (torch.arange(W - 1, 0, -1, device=x.device) > last.unsqueeze(1)).unsqueeze(2)  # [B, W - 1, 1]
            keys, values = keys.masked_fill(gone, 0.0), values.masked_fill(gone, 0.0)
        return self._rest(x, attended), {"keys": keys, "values": values, "age": last}

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, age: Tensor) -> Tensor:
        """Attend: ``query [B, T, H]``, ``keys, values [B, W - 1 + T, H]``, ``age [B, T]`` -> ``[B, T, H]``."""
        (B, T, H), W, heads = query.shape, self.window_size, self.num_heads
        blocks = -(-T // W)
        C = -(-T // blocks)  # queries of a block
        S = C + W - 1  # keys of a block
        if (extra := blocks * C - T) > 0:
            query, keys, values = (pad(part, (0, 0, 0, extra)) for part in (query, keys, values))
            age = pad(age, (0, extra))
        query = query.reshape(B * blocks, C, heads, -1).transpose(1, 2)  # [n, heads, C, d] with n = B * blocks
        keys, values = (_overlapping(part, C, S).view(B * blocks, S, heads, -1) for part in (keys, values))
        keys, values = keys.permute(0, 2, 3, 1), values.transpose(1, 2)  # [n, heads, d, S], [n, heads, S, d]
        distance = torch.arange(W - 1, W - 1 + C, device=age.device).unsqueeze(1) - torch.arange(S, device=age.device)
        reach = (distance >= 0) & (distance <= age.reshape(-1, C, 1).clamp_max(W - 1))  # [n, C, S]
        scores = torch.matmul(query * self.scale, keys) + self._diagonals(C)
        weights = scores.masked_fill(~reach.unsqueeze(1), -torch.inf).softmax(dim=-1)  # [n, heads, C, S]
        attended = torch.matmul(weights, values)  # [n, heads, C, d]
        return attended.transpose(1, 2).reshape(B, blocks * C, H)[:, :T]

    def _diagonals(self, C: int) -> Tensor:
        """Spread ``distance [heads, W]`` over ``[heads, C, C + W - 1]``: line i holds it from column i on."""
        line = pad(self.distance, (0, C))  # C + W numbers: in lines of C + W - 1 each begins one column later
        W, heads = self.window_size, self.num_heads
        return line.repeat(1, C)[:, : C * (C + W - 1)].view(heads, C, C + W - 1)

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.attended(attended)
        return x + self.down(gelu(self.up(self.mlp_norm(x))))


def _overlapping(x: Tensor, step: int, size: int) -> Tensor:
    """Copy windows that begin ``step`` steps apart: ``[B, (n - 1) step + size, H]`` -> ``[B, n, size, H]``."""
    begins = range(0, x.shape[1] - size + 1, step)
    return torch.stack([x[:, begin : begin + size] for begin in begins], dim=1)


def attention(
    input_size: int,
    hidden_size: int = 128,
    num_layers: int = 2,
    dropout: float = 0.0,
    memory_span: float | None = None,
    window_size: int | None = None,
    num_heads: int = 2,
) -> Residual:
    """Build attention over the last ``window_size`` steps. State ``{"keys", "values", "age"}``.

    The state holds 2 (W - 1) H numbers for each layer: rollouts store it once for each sequence.

    Args:
        input_size: features of the input.
        hidden_size: H, width of each layer.
        num_layers: number of layers.
        dropout: must be 0; it is an argument so that cores can be swapped.
        memory_span: W in steps, if ``window_size`` is not given.
        window_size: W, the steps that a layer sees, the present one included; 32 if neither is given.
        num_heads: heads of each layer, a divisor of ``hidden_size``.

    Raises:
        ValueError: a size is below 1 (``window_size``: below 2), ``num_heads`` does not divide ``hidden_size``, or
            ``dropout`` is not 0.
    """
    window = window_of(window_size, memory_span)
    positive(
        input_size=input_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        window_size=window,
        num_heads=num_heads,
    )
    check_window(hidden_size, window, num_heads)
    refuse_dropout("attention", dropout)
    layers = [AttentionLayer(hidden_size, window, num_heads) for _ in range(num_layers)]
    return Residual(input_size, hidden_size, layers)


def check_window(hidden_size: int, window_size: int, num_heads: int) -> None:
    """Check the sizes of attention that ``rl.checks.positive`` has passed.

    Raises:
        ValueError: ``num_heads`` does not divide ``hidden_size``, or the window holds the present step alone.
    """
    if hidden_size % num_heads:
        raise ValueError(f"num_heads={num_heads}: it must divide hidden_size={hidden_size}")
    if window_size < 2:
        raise ValueError(f"window_size={window_size}: it must be at least 2, the present step and one before it")

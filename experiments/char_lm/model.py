"""Predict the next symbol of a text with any core: the model, one update, its cost in bits, samples."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from experiments.char_lm.text import Block, cut_streams
from rl.checks import positive, within
from rl.types import Core, State


class SequenceModel(nn.Module):
    """A model ``symbols, state -> logits of the symbols that follow, next state``: embedding, core, one linear layer.

    Args:
        num_symbols: size of the alphabet, V; a symbol is a whole number below it.
        core: ``core(input_size) -> Core``.
        embedding_size: input size of the core.
    """

    def __init__(self, num_symbols: int, core: Callable[..., Core], embedding_size: int = 64):
        super().__init__()
        positive(num_symbols=num_symbols, embedding_size=embedding_size)
        self.embedding = nn.Embedding(num_symbols, embedding_size)
        self.core = core(embedding_size)
        self.head = nn.Linear(self.core.output_size, num_symbols)

    def initial_state(self, batch_size: int) -> State:
        """Make the state of ``batch_size`` fresh memories, on the device of the model."""
        return self.core.initial_state(batch_size, self.head.weight.device)

    def step(self, symbols: Tensor, state: State, starts: Tensor | None = None) -> tuple[Tensor, State]:
        """Take one step: ``symbols [B]``, ``starts [B]`` or None -> logits ``[B, V]`` and the next state."""
        y, state = self.core.step(self.embedding(symbols), state, starts)
        return self.head(y), state

    def unroll(self, symbols: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run ``symbols [T, B]``, ``starts [T, B]`` on any device -> logits ``[T, B, V]``, the state after step T."""
        starts = starts.to(symbols.device, non_blocking=True)
        y, state = self.core.unroll(self.embedding(symbols), state, starts)
        return self.head(y), state


def train_step(
    model: SequenceModel, optimizer: Optimizer, block: Block, state: State, max_grad_norm: float
) -> tuple[State, float, float]:
    """Do one update; back-propagation ends at the edges of the block.

    Args:
        model: learns.
        optimizer: of its parameters.
        block: what to learn from.
        state: before the block.
        max_grad_norm: a longer gradient is scaled down to this norm.

    Returns:
        The state after the block, the mean cross-entropy in bits, the norm of the gradient before clipping.

    Raises:
        ArithmeticError: the loss is not finite.
    """
    device = model.head.weight.device
    logits, state = model.unroll(block.symbols.to(device, non_blocking=True), state, block.starts)
    loss = cross_entropy(logits.flatten(0, 1), block.targets.to(device, non_blocking=True).flatten())
    bits = loss.item() / math.log(2.0)
    if not math.isfinite(bits):
        raise ArithmeticError("the loss is not a finite number: lower the learning rate")
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return {name: leaf.detach() for name, leaf in state.items()}, bits, norm.item()


@contextmanager
def use_eval_mode(model: nn.Module) -> Iterator[None]:
    """While open, switch dropout off."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def measure_bits(model: SequenceModel, symbols: Tensor, number: int, length: int, carry: bool = True) -> float:
    """Return the mean cross-entropy of a text in bits.

    Args:
        model: predicts.
        symbols: the text, ``[N]``.
        number: of streams that it is read in, or fewer so that each fills a block.
        length: symbols of a block.
        carry: a memory starts at the beginning of a stream and keeps its state from block to block; without it every
            block starts from the initial state.

    Raises:
        ValueError: there is nothing to predict.
    """
    if len(symbols) < 2:
        raise ValueError(f"a text of {len(symbols)} symbols has none to predict")
    number = max(1, min(number, (len(symbols) - 1) // length))
    device = model.head.weight.device
    state, nats, count = model.initial_state(number), 0.0, 0
    with use_eval_mode(model):
        for block in cut_streams(symbols, number, length, carry):
            logits, state = model.unroll(block.symbols.to(device, non_blocking=True), state, block.starts)
            targets = block.targets.to(device, non_blocking=True).flatten()
            nats += cross_entropy(logits.flatten(0, 1), targets, reduction="sum").item()
            count += len(targets)
    return nats / count / math.log(2.0)


@torch.no_grad()
def sample(
    model: SequenceModel, prompt: Tensor, length: int, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """Return symbols that go on from a prompt, one ``step`` each, from a fresh memory.

    Args:
        model: predicts.
        prompt: symbols ``[P]``.
        length: how many symbols to return.
        temperature: the logits are divided by it before sampling; with 0 the likeliest symbol is taken.
        generator: on the CPU, where the draws are made.

    Raises:
        ValueError: the prompt is empty or the temperature negative.
    """
    if len(prompt) == 0:
        raise ValueError("the prompt is empty: give at least one symbol")
    within(0.0, math.inf, temperature=temperature)
    state, symbols = model.initial_state(1), prompt.tolist()
    with use_eval_mode(model):
        for t in range(len(prompt) + length - 1):
            logits, state = model.step(torch.tensor([symbols[t]], device=model.head.weight.device), state)
            if t + 1 < len(symbols):
                continue  # still reading the prompt
            if temperature == 0.0:
                symbols.append(int(logits[0].argmax()))
            else:
                weights = torch.softmax(logits[0].double().cpu() / temperature, dim=0)
                symbols.append(int(torch.multinomial(weights, 1, generator=generator)))
    return torch.tensor(symbols[len(prompt) :], dtype=torch.int64)

"""Predicting the next symbol of a text with any core: alphabet, model, how a text is cut, one update, bits, samples."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from rl.checks import positive, within
from rl.transfer import upload
from rl.types import Core, State


@dataclass
class Alphabet:
    """The characters that a model knows; a symbol is a place among them."""

    characters: str

    def encode(self, text: str, name: str = "the text") -> Tensor:
        """Symbols ``[len(text)]`` int64.

        Raises:
            ValueError: a character that is not in the alphabet; ``name`` says of what.
        """
        places = {character: place for place, character in enumerate(self.characters)}
        unknown = sorted(set(text) - places.keys())
        if unknown:
            raise ValueError(f"{name} has {unknown[0]!r}, which is not among the {len(places)} characters of the model")
        return torch.tensor([places[character] for character in text], dtype=torch.int64)

    def decode(self, symbols: Tensor) -> str:
        """The counterpart of :meth:`encode`."""
        return "".join(self.characters[place] for place in symbols.tolist())


class SequenceModel(nn.Module):
    """``symbols, state -> logits of the symbols that follow, next state``: embedding, core, one linear layer.

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
        """The state of ``batch_size`` fresh memories, on the device of the model."""
        return self.core.initial_state(batch_size, self.head.weight.device)

    def step(self, symbols: Tensor, state: State, starts: Tensor | None = None) -> tuple[Tensor, State]:
        """``symbols [B]``, ``starts [B]`` or None -> logits ``[B, V]`` and the next state."""
        y, state = self.core.step(self.embedding(symbols), state, starts)
        return self.head(y), state

    def unroll(self, symbols: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """``symbols [T, B]``, ``starts [T, B]`` on the CPU -> logits ``[T, B, V]`` and the state after step T."""
        y, state = self.core.unroll(self.embedding(symbols), state, starts)
        return self.head(y), state


@dataclass
class Block:
    """What one update or one evaluation step sees; ``targets`` are the symbols that follow ``symbols``.

    Attributes:
        symbols, targets: ``[T, B]`` int64.
        starts: ``[T, B]`` bool.
    """

    symbols: Tensor
    targets: Tensor
    starts: Tensor


def streams(symbols: Tensor, number: int) -> Tensor:
    """A text ``[N]`` as ``number`` streams side by side, ``[S + 1, number]`` with S = (N - 1) // number.

    Stream i predicts the S symbols behind place i * S; its last symbol, a target only, opens stream i + 1. Fewer than
    ``number`` symbols at the end of the text are left over.
    """
    length = (len(symbols) - 1) // number
    return symbols[: length * number + 1].unfold(0, length + 1, length).t()


def stream_blocks(symbols: Tensor, number: int, length: int, carry: bool = True) -> Iterator[Block]:
    """One pass over the streams of a text, ``length`` steps of all of them at a time (the last block may be shorter).

    Memories start where the streams do; without ``carry`` they start in every block.
    """
    columns = streams(symbols, number)
    end = len(columns) - 1
    for begin in range(0, end, length):
        stop = min(begin + length, end)
        starts = torch.zeros(stop - begin, number, dtype=torch.bool)
        starts[0] = begin == 0 or not carry
        yield Block(columns[begin:stop], columns[begin + 1 : stop + 1], starts)


def endless_stream_blocks(symbols: Tensor, number: int, length: int) -> Iterator[Block]:
    """:func:`stream_blocks` again and again: for truncated back-propagation, with the state carried between blocks."""
    while True:
        yield from stream_blocks(symbols, number, length)


def random_blocks(symbols: Tensor, number: int, length: int, generator: torch.Generator) -> Iterator[Block]:
    """Windows from random places, each with a fresh memory, without end."""
    starts = torch.zeros(length, number, dtype=torch.bool)
    starts[0] = True
    while True:
        first = torch.randint(len(symbols) - length, (number,), generator=generator)
        window = symbols[first + torch.arange(length + 1).unsqueeze(1)]  # [length + 1, number]
        yield Block(window[:-1], window[1:], starts)


def train_step(
    model: SequenceModel, optimizer: Optimizer, block: Block, state: State, max_grad_norm: float
) -> tuple[State, float, float]:
    """One update; back-propagation ends at the edges of the block.

    Returns:
        The state after the block, the mean cross-entropy in bits, the norm of the gradient before clipping.

    Raises:
        ArithmeticError: the loss is not finite.
    """
    device = model.head.weight.device
    logits, state = model.unroll(upload(block.symbols, device), state, block.starts)
    loss = cross_entropy(logits.flatten(0, 1), upload(block.targets, device).flatten())
    bits = loss.item() / math.log(2.0)
    if not math.isfinite(bits):
        raise ArithmeticError("the loss is not a finite number: lower the learning rate")
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return {name: leaf.detach() for name, leaf in state.items()}, bits, norm.item()


@torch.no_grad()
def bits_per_symbol(model: SequenceModel, symbols: Tensor, number: int, length: int, carry: bool = True) -> float:
    """Mean cross-entropy of a text ``[N]`` in bits: as ``number`` streams, or fewer so that each fills a block.

    With ``carry`` a memory starts at the beginning of a stream and keeps its state from block to block; without it
    every block of ``length`` symbols starts from the initial state.

    Raises:
        ValueError: there is nothing to predict.
    """
    if len(symbols) < 2:
        raise ValueError(f"a text of {len(symbols)} symbols has none to predict")
    number = max(1, min(number, (len(symbols) - 1) // length))
    device = model.head.weight.device
    state, nats, count = model.initial_state(number), 0.0, 0
    training = model.training
    model.eval()
    for block in stream_blocks(symbols, number, length, carry):
        logits, state = model.unroll(upload(block.symbols, device), state, block.starts)
        targets = upload(block.targets, device).flatten()
        nats += cross_entropy(logits.flatten(0, 1), targets, reduction="sum").item()
        count += len(targets)
    model.train(training)
    return nats / count / math.log(2.0)


@torch.no_grad()
def sample(
    model: SequenceModel, prompt: Tensor, length: int, temperature: float, generator: torch.Generator | None = None
) -> Tensor:
    """``length`` symbols that go on from ``prompt [P]``, one ``step`` each, from a fresh memory.

    Args:
        temperature: the logits are divided by it before sampling; with 0 the likeliest symbol is taken.
        generator: on the CPU, where the draws are made.

    Raises:
        ValueError: an empty prompt or a negative temperature.
    """
    if len(prompt) == 0:
        raise ValueError("the prompt is empty: give at least one symbol")
    within(0.0, math.inf, temperature=temperature)
    training = model.training
    model.eval()
    state, symbols = model.initial_state(1), prompt.tolist()
    for t in range(len(prompt) + length - 1):
        logits, state = model.step(torch.tensor([symbols[t]], device=model.head.weight.device), state)
        if t + 1 < len(symbols):
            continue  # still reading the prompt
        if temperature == 0.0:
            symbols.append(int(logits[0].argmax()))
        else:
            weights = torch.softmax(logits[0].double().cpu() / temperature, dim=0)
            symbols.append(int(torch.multinomial(weights, 1, generator=generator)))
    model.train(training)
    return torch.tensor(symbols[len(prompt) :], dtype=torch.int64)

"""Read a text, split it, encode it, and cut it into the blocks that updates and evaluations see."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor

from experiments.launch.check import ConfigError


def read_text(path: str | None) -> str:
    """Read a file; without one, join the topics of Python's help in the order of their names.

    Raises:
        ConfigError: the file cannot be read as text.
    """
    if path is None:
        return "\n".join(topics[name] for name in sorted(topics))
    try:
        return Path(path).expanduser().read_text(encoding="utf-8-sig")  # which may begin with a byte order mark
    except OSError as error:
        raise ConfigError(f"text={path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"text={path} is not a text in UTF-8") from error


def split_text(text: str, batch: int, block: int) -> tuple[str, str]:
    """Return the first nine tenths, to learn from, and the rest, which is held out.

    Args:
        text: to be split.
        batch: streams side by side.
        block: characters of a stream in one update.

    Raises:
        ConfigError: there is not one block of every stream to learn from, or nothing held out to predict.
    """
    border = len(text) * 9 // 10
    if border <= batch * block or len(text) - border < 2:
        raise ConfigError(
            f"the text has {len(text)} characters, and nine tenths of them are not more than batch={batch} x "
            f"block={block}: give a longer one or smaller numbers"
        )
    return text[:border], text[border:]


@dataclass
class Alphabet:
    """The characters that a model knows; a symbol is a place among them."""

    characters: str

    def encode(self, text: str, name: str = "the text") -> Tensor:
        """Return the symbols of a text, int64 ``[len(text)]``.

        Args:
            text: to be encoded.
            name: of the text, for messages.

        Raises:
            ValueError: the text has a character that is not in the alphabet.
        """
        places = {character: place for place, character in enumerate(self.characters)}
        unknown = sorted(set(text) - places.keys())
        if unknown:
            raise ValueError(f"{name} has {unknown[0]!r}, which is not among the {len(places)} characters of the model")
        return torch.tensor([places[character] for character in text], dtype=torch.int64)

    def decode(self, symbols: Tensor) -> str:
        """Return the text of symbols ``[N]``."""
        return "".join(self.characters[place] for place in symbols.tolist())


@dataclass
class Block:
    """What one update or one evaluation step sees.

    Attributes:
        symbols: int64 ``[T, B]``.
        targets: int64 ``[T, B]``, the symbols that follow them.
        starts: bool ``[T, B]``, where a memory starts anew.
    """

    symbols: Tensor
    targets: Tensor
    starts: Tensor


def make_streams(symbols: Tensor, number: int) -> Tensor:
    """Cut a text into streams side by side.

    Args:
        symbols: the text, ``[N]``.
        number: of streams.

    Returns:
        ``[S + 1, number]`` with S = (N - 1) // number. Stream i predicts the S symbols behind place i * S; its last
        symbol, a target only, opens stream i + 1. Fewer than ``number`` symbols at the end of the text are left over.
    """
    length = (len(symbols) - 1) // number
    return symbols[: length * number + 1].unfold(0, length + 1, length).t()


def cut_streams(symbols: Tensor, number: int, length: int, carry: bool = True) -> Iterator[Block]:
    """Go once through the streams of a text, some steps of all of them at a time.

    Args:
        symbols: the text, ``[N]``.
        number: of streams.
        length: steps of a block; the last one may be shorter.
        carry: memories start where the streams do; without it they start in every block.
    """
    columns = make_streams(symbols, number)
    end = len(columns) - 1
    for begin in range(0, end, length):
        stop = min(begin + length, end)
        starts = torch.zeros(stop - begin, number, dtype=torch.bool)
        starts[0] = begin == 0 or not carry
        yield Block(columns[begin:stop], columns[begin + 1 : stop + 1], starts)


def cut_streams_forever(symbols: Tensor, number: int, length: int) -> Iterator[Block]:
    """Repeat ``cut_streams``: for truncated back-propagation, with the state carried between blocks."""
    while True:
        yield from cut_streams(symbols, number, length)


def draw_windows_forever(symbols: Tensor, number: int, length: int, generator: torch.Generator) -> Iterator[Block]:
    """Draw windows of ``length`` steps from random places of a text ``[N]``, each with a fresh memory."""
    starts = torch.zeros(length, number, dtype=torch.bool)
    starts[0] = True
    while True:
        first = torch.randint(len(symbols) - length, (number,), generator=generator)
        window = symbols[first + torch.arange(length + 1).unsqueeze(1)]  # [length + 1, number]
        yield Block(window[:-1], window[1:], starts)

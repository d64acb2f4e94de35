"""What can happen to the bytes of a file, and to an entry inside."""

import io
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import torch

Damage = Callable[[bytearray, Random], None]


def flip_bit(data: bytearray, random: Random) -> None:
    """Flip one bit."""
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def flip_bits(data: bytearray, random: Random) -> None:
    """Flip twenty bits."""
    for _ in range(20):
        flip_bit(data, random)


def cut_end(data: bytearray, random: Random) -> None:
    """Cut the end off."""
    del data[random.randrange(1, len(data)) :]


def cut_block(data: bytearray, random: Random) -> None:
    """Cut a block out."""
    begin = random.randrange(len(data) - 1)
    del data[begin : begin + random.randrange(1, 1 + len(data) // 4)]


def zero_block(data: bytearray, random: Random) -> None:
    """Zero a block, as a disk does that lost its cache."""
    begin = random.randrange(len(data))
    for index in range(begin, min(len(data), begin + random.choice((16, 512, 4096)))):
        data[index] = 0


def fill_block(data: bytearray, random: Random) -> None:
    """Fill a block with noise."""
    begin = random.randrange(len(data))
    for index in range(begin, min(len(data), begin + 64)):
        data[index] = random.randrange(256)


def empty(data: bytearray, random: Random) -> None:
    """Leave nothing."""
    data.clear()


def swap(data: bytearray, random: Random) -> None:
    """Put a file of another format in the place."""
    data[:] = random.choice(_list_other_files())


def _list_other_files() -> list[bytes]:
    """Return what other files hold: an empty archive, arrays, a pickle of torch, text, an image's head."""
    archive, arrays, pickle = io.BytesIO(), io.BytesIO(), io.BytesIO()
    zipfile.ZipFile(archive, "w").close()
    np.savez(arrays, a=np.zeros(3))
    torch.save({"model": torch.zeros(3)}, pickle)
    texts = b"- a\n- list\n", b"null\n", b"{}\n", b"[1, 2", b"text\n", b"\x89PNG\r\n\x1a\n" + bytes(64), b"\xff\xfe\x00"
    return [archive.getvalue(), arrays.getvalue(), pickle.getvalue(), *texts]


DAMAGES: tuple[Damage, ...] = (
    *(flip_bit, flip_bit, flip_bits, cut_end, cut_end, cut_block, zero_block, fill_block, empty, swap),
)
ENTRIES = ("removed", "a text", "nothing", "a list", "a mapping", "a negative number", "not finite", "reshaped")
"""What an entry can be replaced by; the last two are for arrays."""


def damage_bytes(data: bytes, random: Random) -> tuple[bytes, str]:
    """Return other bytes than those of a file, and in words what was done to them."""
    changed = bytearray(data)
    damage = random.choice(DAMAGES)
    while bytes(changed) == data:  # zeros may have been there before
        damage(changed, random)
    return bytes(changed), (damage.__doc__ or "").rstrip(".").lower()


def edit_entry(
    content: Any, random: Random, optional: Sequence[str], ways: Sequence[str] = ENTRIES, keys: Sequence[str] = ()
) -> str:
    """Remove or replace an entry of nested dicts and return in words what was done.

    Args:
        content: is changed.
        random: draws the entry and what happens to it.
        optional: names of entries that stay as they are, with all that is in them.
        ways: of ``ENTRIES``.
        keys: of the entries at the top to choose from; empty for any entry.
    """
    places = [
        (node, key, path)
        for node, key, path in _walk(content, "")
        if not set(path.split(".")) & set(optional) and (not keys or key in keys)
    ]
    node, key, path = places[random.randrange(len(places))]
    value, way = node[key], random.choice(ways)
    array = isinstance(value, (torch.Tensor, np.ndarray)) and len(value.shape) > 0
    if way == "not finite" and ".replay.obs." in path:  # observations may hold what they want; a loss of them may not
        way = "reshaped"
    if way == "removed":
        del node[key]
    elif way in ("not finite", "reshaped") and array:
        node[key] = _spoil(value, way)
    else:
        way, node[key] = _replace(value, way)
    return f"entry {path} is {way}"


def _replace(value: Any, way: str) -> tuple[str, Any]:
    """Return a value of another type, and what it is called."""
    others: dict[str, tuple[Any, tuple[type, ...]]] = {
        "a text": ("text", (str,)),
        "nothing": (None, (type(None),)),
        "a list": (["text"], (list, tuple)),
        "a mapping": ({"text": 1}, (dict,)),
        "a negative number": (-7, (int, float)),
    }
    chosen = next(name for name in (way, *others) if name in others and not isinstance(value, others[name][1]))
    return chosen, others[chosen][0]


def _spoil(value: Any, way: str) -> Any:
    """Return an array that holds numbers that are not finite, or has another shape."""
    if way == "reshaped":
        return value.reshape(-1)[:-1] if len(value.shape) == 1 else value.reshape(-1)
    copy = value.clone() if isinstance(value, torch.Tensor) else value.copy()
    floating = copy.is_floating_point() if isinstance(copy, torch.Tensor) else np.issubdtype(copy.dtype, np.floating)
    if not floating:
        return copy.reshape(-1)[:-1]
    copy.reshape(-1)[0] = float("nan")
    return copy


def _walk(node: Any, path: str) -> list[tuple[dict[Any, Any], Any, str]]:
    """List the entries of nested dicts: the dict, the key, the path."""
    if not isinstance(node, dict):
        return []
    found = [(node, key, f"{path}{key}") for key in node]
    for key, part in node.items():
        found += _walk(part, f"{path}{key}.")
    return found

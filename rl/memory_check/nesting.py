"""Nested states and observations of other people's modules, as flat leaves and back."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from rl.types import State


def flatten(tree: Any, what: str) -> State:
    """Turn a tensor, or tuples, lists and dicts of tensors in any depth, into leaves named by where they stand.

    Args:
        tree: a state or an output.
        what: it is, for the error and as the name of a single tensor.

    Raises:
        ValueError: it holds something else.
    """
    return dict(_walk(tree, what, ""))


def _walk(tree: Any, what: str, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        yield path or what, tree
        return
    if not isinstance(tree, (tuple, list, dict)):
        place = f" at {path}" if path else ""
        allowed = "it must be a tensor, or tuples, lists or dicts of tensors"
        raise ValueError(f"{what}={tree!r}{place}: {allowed}")
    for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _walk(part, what, f"{path}.{key}" if path else str(key))


def rebuild(template: Any, leaves: Iterator[Tensor]) -> Any:
    """Put leaves, in the order of ``flatten``, into the form of ``template``."""
    if isinstance(template, Tensor):
        return next(leaves)
    if isinstance(template, dict):
        return type(template)({key: rebuild(part, leaves) for key, part in template.items()})
    parts = [rebuild(part, leaves) for part in template]
    return template._make(parts) if hasattr(template, "_make") else type(template)(parts)


def describe(tree: Any) -> str:
    """Say the shapes of what is nested: ``([1, 5, 16], [1, 5, 16])``."""
    if isinstance(tree, Tensor):
        return str([*tree.shape])
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {describe(part)}" for key, part in tree.items()) + "}"
    if isinstance(tree, (tuple, list)):
        return "(" + ", ".join(describe(part) for part in tree) + ")"
    return type(tree).__name__

"""What may be imported because data names it: a checkpoint or configuration from elsewhere is no reason to run code."""

import importlib
from collections.abc import Iterable
from typing import Any

OWN = ("rl", "envs", "gymnasium")
"""Packages that a stored path may name without being trusted explicitly."""


class UntrustedError(ValueError):
    """A stored path that names code outside this project which the user has not said to trust."""


def import_trusted(path: str, trust: Iterable[str] = ()) -> Any:
    """Import what a dotted path such as ``rl.cores.gru`` names, if its package is trusted.

    Args:
        path: of a class or function.
        trust: packages that the user trusts beside ``OWN``.

    Raises:
        UntrustedError: the package is not trusted; nothing of it was imported.
        ImportError, AttributeError, ValueError: there is no such thing.
    """
    module, _, name = path.rpartition(".")
    if path.partition(".")[0] not in (*OWN, *trust):
        raise UntrustedError(
            f"{path} is code from outside this project: it runs only if you trust it, trust={module or path}"
        )
    return getattr(importlib.import_module(module), name)

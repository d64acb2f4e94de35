"""Make an encoder that was chosen, and try it once: what it does wrong is said before anything is trained."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 3
"""Observations of the sample on which an encoder is tried."""


def make_feature_encoder(encoder: Callable[..., Any], input_shapes: dict[str, tuple[int, ...]]) -> Any:
    """Call ``encoder(input_shapes)`` and try what it makes on a sample of random numbers between 0 and 1.

    Args:
        encoder: see ``rl.types.FeatureEncoder``.
        input_shapes: of the prepared leaves.

    Returns:
        The module.

    Raises:
        ValueError: it does not keep to the contract; the sentence says in what.
    """
    name = name_encoder(encoder)
    module = encoder(input_shapes)
    if not isinstance(module, nn.Module):
        raise ValueError(f"encoder {name} made a {type(module).__name__}: it must be a torch.nn.Module")
    generator = torch.Generator().manual_seed(0)
    sample = {leaf: torch.rand(ROWS, *shape, generator=generator) for leaf, shape in input_shapes.items()}
    try:
        with torch.no_grad():
            features, again = module(sample), module(sample)
    except Exception as error:
        error.add_note(f"encoder {name} was tried on {_describe(sample)}")
        raise
    _check_features(name, module, features)
    fixed = [key for key, parameter in module.named_parameters() if not parameter.requires_grad]
    if fixed:
        raise ValueError(f"encoder {name} does not learn its parameter {fixed[0]}: make it a buffer")
    if not torch.allclose(features, again, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"encoder {name} gives other features when it is called again, so what acts is not what is replayed: take "
            "dropout and noise out of it"
        )
    with torch.no_grad():
        fewer = module({leaf: rows[:2] for leaf, rows in sample.items()})
    if not torch.allclose(features[:2], fewer, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"encoder {name} gives other features for an observation when others lie beside it: take LayerNorm or "
            "GroupNorm in place of batch normalisation"
        )
    return module


def name_encoder(encoder: Callable[..., Any]) -> str:
    """Return the name of a class or function, which may be wrapped into a ``partial``."""
    made = getattr(encoder, "func", encoder)
    return str(getattr(made, "__name__", type(made).__name__))


def _check_features(name: str, module: nn.Module, features: Any) -> None:
    """Check the size that a module names and what it made of ``ROWS`` observations."""
    size = getattr(module, "output_size", None)
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        told = f"output_size={size!r}" if hasattr(module, "output_size") else "no output_size"
        raise ValueError(f"encoder {name} has {told}: it must be a whole number of at least 1")
    if not isinstance(features, Tensor):
        raise ValueError(f"encoder {name} gives a {type(features).__name__}: it must be a tensor [N, {size}]")
    if features.shape != (ROWS, size):
        raise ValueError(
            f"encoder {name} gives features {list(features.shape)} for {ROWS} observations: with output_size={size} "
            f"they must be {[ROWS, size]}"
        )
    if features.dtype != torch.float32:
        raise ValueError(f"encoder {name} gives {features.dtype} features: they must be torch.float32")
    if not bool(torch.isfinite(features).all()):
        raise ValueError(f"encoder {name} gives features that are not finite, of numbers between 0 and 1")


def _describe(sample: dict[str, Tensor]) -> str:
    """Name the leaves with their shapes."""
    return ", ".join(f"{leaf!r} {list(rows.shape)}" for leaf, rows in sample.items())

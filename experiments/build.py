"""The earlier address of ``experiments.launch.build``, for scripts that were written for it."""

from experiments.launch.build import build

__all__ = ["build"]

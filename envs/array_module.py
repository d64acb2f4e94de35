"""The few functions of arrays that the tasks need, under the same names for numpy and for torch.

A task asks ``self.xp`` for them, and so is written once. What operators and indices do alike in numpy and torch (``+``,
``&``, ``==``, ``abs``, ``array += values``) is not among them. Nothing here makes the host wait for a device, but for
``asarray``, ``export`` and ``load``, which no step calls. torch is imported only where a device is named.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
"""An array of numpy, or a tensor of torch. Typed loosely, since torch need not be installed."""


class NumpyArrays:
    """Arrays of numpy, on the host."""

    device = generator = None
    bool, int64, float32, float64 = np.bool_, np.int64, np.float32, np.float64
    zeros, ones = staticmethod(np.zeros), staticmethod(np.ones)
    empty, arange = staticmethod(np.empty), staticmethod(np.arange)
    cos, sin = staticmethod(np.cos), staticmethod(np.sin)
    where, maximum, minimum = staticmethod(np.where), staticmethod(np.maximum), staticmethod(np.minimum)
    argsort, copy = staticmethod(np.argsort), staticmethod(np.copy)

    @staticmethod
    def asarray(array: np.ndarray) -> np.ndarray:
        """Return an array of numpy as one of this module: itself."""
        return array

    @staticmethod
    def take(table: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Return a new array ``[B, ...]`` of the entries ``index`` (int64 ``[B]``) of a table ``[N, ...]``."""
        return table.take(index, axis=0)

    @staticmethod
    def astype(array: np.ndarray, dtype: Any) -> np.ndarray:
        """Return the numbers in another dtype."""
        return array.astype(dtype)

    @staticmethod
    def put(array: np.ndarray, rows: np.ndarray, values: Any) -> None:
        """Write values ``[n, ...]`` into ``rows`` (int64 ``[n]``) of an array ``[B, ...]``.

        One number may be written into rows that are given as bool ``[B]``, too.
        """
        array[rows] = values

    @staticmethod
    def renew(array: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return what holds the new values of a state array: ``values`` themselves, which spares a copy."""
        return values

    @staticmethod
    def export(array: np.ndarray) -> np.ndarray:
        """Return a copy to be stored."""
        return array.copy()

    @staticmethod
    def load(array: np.ndarray, stored: Any) -> np.ndarray:
        """Return what takes the place of ``array``: what was stored, in its dtype."""
        return np.asarray(stored).astype(array.dtype)


class TorchArrays:
    """Tensors of torch on one device, and the generator that draws there.

    Args:
        device: the name of a device of torch.

    Raises:
        ValueError: torch cannot use it here.
    """

    def __init__(self, device: Any):
        import torch

        try:
            number = torch.zeros(1, dtype=torch.float64, device=torch.device(device))  # which MPS does not have
            self.device = number.device  # "cuda" has become "cuda:0"
            self.generator = torch.Generator(self.device)
        except (RuntimeError, AssertionError, TypeError, ImportError) as error:
            reason = str(error).splitlines()[0].partition(". ")[0]
            raise ValueError(f"device={str(device)!r}: torch cannot use it here: {reason}") from error
        self.torch = torch
        self.generator.seed()
        self.bool, self.int64, self.float32, self.float64 = torch.bool, torch.int64, torch.float32, torch.float64
        self.where, self.maximum, self.minimum = torch.where, torch.clamp_min, torch.clamp_max
        self.cos, self.sin = torch.cos, torch.sin
        self.argsort, self.copy = torch.argsort, torch.clone

    def zeros(self, shape: Any, dtype: Any) -> Array:
        """Return a tensor of zeros."""
        return self.torch.zeros(shape, dtype=dtype, device=self.device)

    def ones(self, shape: Any, dtype: Any) -> Array:
        """Return a tensor of ones."""
        return self.torch.ones(shape, dtype=dtype, device=self.device)

    def empty(self, shape: Any, dtype: Any) -> Array:
        """Return a tensor to be filled."""
        return self.torch.empty(shape, dtype=dtype, device=self.device)

    def arange(self, stop: int) -> Array:
        """Return the numbers from 0 to ``stop - 1``, int64."""
        return self.torch.arange(stop, device=self.device)

    def asarray(self, array: np.ndarray) -> Array:
        """Return a copy of an array of numpy on the device."""
        return self.torch.tensor(array, device=self.device)

    def take(self, table: Array, index: Array) -> Array:
        """Return a new tensor ``[B, ...]`` of the entries ``index`` (int64 ``[B]``) of a table ``[N, ...]``."""
        return table.index_select(0, index)

    def astype(self, array: Array, dtype: Any) -> Array:
        """Return the numbers in another dtype."""
        return array.to(dtype)

    def put(self, array: Array, rows: Array, values: Any) -> None:
        """Write values, one number or ``[B, ...]``, into the ``rows`` (bool ``[B]``) of a tensor ``[B, ...]``."""
        mask = rows.view(-1, *[1] * (array.dim() - 1))
        array.copy_(self.torch.where(mask, values, array))

    def renew(self, array: Array, values: Array) -> Array:
        """Return what holds the new values of a state array: ``array``, in place, since a CUDA graph reads it there."""
        return array.copy_(values)

    def export(self, array: Array) -> Array:
        """Return a copy on the host to be stored."""
        return array.to("cpu", copy=True)

    def load(self, array: Array, stored: Any) -> Array:
        """Write what was stored, of numpy or torch, into ``array``, and return that."""
        return array.copy_(self.torch.as_tensor(stored))

    def integers(self, low: int, high: int | None = None, size: Any = ()) -> Array:
        """Draw as ``numpy.random.Generator.integers``, int64."""
        low, high = (0, low) if high is None else (low, high)
        return self.torch.randint(low, high, as_shape(size), generator=self.generator, device=self.device)

    def random(self, size: Any = ()) -> Array:
        """Draw as ``numpy.random.Generator.random``, float64."""
        return self.uniform(0.0, 1.0, size)

    def uniform(self, low: float, high: float, size: Any = ()) -> Array:
        """Draw as ``numpy.random.Generator.uniform``, float64."""
        return self.empty(as_shape(size), self.float64).uniform_(low, high, generator=self.generator)

    def normal(self, loc: float, scale: float, size: Any = ()) -> Array:
        """Draw as ``numpy.random.Generator.normal``, float64."""
        return self.empty(as_shape(size), self.float64).normal_(loc, scale, generator=self.generator)

    def check_actions(self, actions: Any, shape: tuple[int, ...], continuous: bool) -> Array:
        """Return actions as float32 or int64. Their values are not looked at: the host would have to wait for them.

        Args:
            actions: ``[B, ...]``.
            shape: which they must have.
            continuous: numbers are wanted, not integers.

        Raises:
            ValueError: they are no tensor of that shape and kind on the device.
        """
        kind = "numbers" if continuous else "integers"
        allowed = f"a tensor of {kind} of shape {shape} on {self.device}"
        if not isinstance(actions, self.torch.Tensor):
            raise ValueError(f"actions of type {type(actions).__name__}: they must be {allowed}")
        fits = not actions.is_complex() and (continuous or not actions.is_floating_point())
        if not fits or tuple(actions.shape) != shape or actions.device != self.device:
            found = f"{actions.dtype} of shape {tuple(actions.shape)} on {actions.device}"
            raise ValueError(f"actions are {found}: they must be {allowed}")
        return actions.to(self.float32 if continuous else self.int64)

    def load_generator(self, stored: Any) -> bool:
        """Put the generator where it was; return False for the state of a generator of another kind of device."""
        state = self.torch.as_tensor(stored)
        if state.shape != self.generator.get_state().shape:
            return False
        self.generator.set_state(state)
        return True


def as_shape(size: Any) -> tuple[int, ...]:
    """Return a size, one number or several, as a shape."""
    return size if isinstance(size, tuple) else (size,)


def array_module(device: Any) -> Any:
    """Return the ``TorchArrays`` of a device, or ``NumpyArrays`` if it is None.

    Raises:
        ValueError: torch cannot use the device here.
    """
    return NumpyArrays() if device is None else TorchArrays(device)

"""Pickled data of other programs, read without running any of it.

A pickle is a program: it names functions, and calls them. Here every name is looked up in a table of plain records and
of a few functions of this file; a name that is not in it is refused before anything is called, and nothing is imported.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from rl.trust import UntrustedError

NUMBERS = "biuf"
"""Kinds of numpy's dtypes that are read: truth values, whole numbers and fractions."""


class Record:
    """Stands for an object: what it was called with, and the attributes that it held."""

    path: ClassVar[str]
    arguments: tuple[Any, ...]
    attributes: dict[str, Any]

    def __new__(cls, *arguments: Any) -> Self:
        """Make a record; a pickle may call a class, or only its ``__new__``."""
        made = super().__new__(cls)
        made.arguments, made.attributes = arguments, {}
        return made

    def __setstate__(self, state: Any) -> None:
        """Keep the attributes, if ``state`` are attributes."""
        self.attributes = state if isinstance(state, dict) else {}

    def get(self, name: str) -> Any:
        """Return an attribute, arrays and dtypes of numpy in the place of what stands for them.

        Raises:
            ValueError: there is none of this name, or it is damaged.
        """
        value = self.attributes.get(name)
        if value is None:
            raise ValueError(f"it is damaged: {self.path} has no {name}")
        return value.make() if isinstance(value, (Array, DType)) else value


def record(path: str) -> type[Record]:
    """Make the class of records that stand for what ``path`` names."""
    return type(path.rpartition(".")[2], (Record,), {"path": path})


class DType(Record):
    """Stands for a dtype of numpy, which is made once it is known to be one of numbers."""

    path = "numpy.dtype"
    order = "="

    def __setstate__(self, state: Any) -> None:
        """Take the order of the bytes, the only thing that a dtype of numbers has beside its code."""
        self.order = state[1]

    def make(self) -> np.dtype:
        """Make the dtype.

        Raises:
            UntrustedError: it is not one of numbers.
        """
        code = self.arguments[0]
        if not isinstance(code, str) or code[:1] not in NUMBERS or not code[1:].isdecimal():
            raise UntrustedError(f"it holds an array of the type {code!r}: it must be one of numbers")
        dtype = np.dtype(code)
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class Array(Record):
    """Stands for an array that is made first and filled afterwards, as arrays in older pickles are."""

    path = "numpy.ndarray"
    array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        """Fill it: version, shape, dtype, whether it lies column by column, bytes."""
        _, shape, dtype, by_columns, raw = state
        self.array = make_array(raw, dtype, shape, "F" if by_columns else "C")

    def make(self) -> np.ndarray:
        """Return the array.

        Raises:
            ValueError: it was never filled.
        """
        if self.array is None:
            raise ValueError("it is damaged: an array has no numbers")
        return self.array


def make_array(raw: bytes, dtype: DType, shape: tuple[int, ...], order: str) -> np.ndarray:
    """Make an array of its bytes."""
    return np.frombuffer(bytes(raw), dtype.make()).reshape(shape, order="F" if order == "F" else "C").copy()


def make_number(dtype: DType, raw: bytes) -> Any:
    """Make a number of its bytes."""
    return np.frombuffer(bytes(raw), dtype.make()).item()


def make_dict(*pairs: Any) -> dict[Any, Any]:
    """Make a dict in the place of an ordered one."""
    return dict(*pairs)


MAKERS: dict[str, Callable[..., Any]] = {
    "multiarray._reconstruct": Array,
    "multiarray.scalar": make_number,
    "numeric._frombuffer": make_array,
}
ARRAYS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": DType,
    "numpy.ndarray": record("numpy.ndarray"),
    **{f"numpy.{core}.{name}": made for core in ("_core", "core") for name, made in MAKERS.items()},
    "collections.OrderedDict": make_dict,
}
"""What the pickles of arrays, numbers of numpy and dicts name."""

IGNORED = "numpy.random"
"""Generators of random numbers become records that nothing is asked of, whatever they are called."""


def read_records(data: bytes, allowed: Mapping[str, Callable[..., Any]]) -> Any:
    """Read a pickle.

    Args:
        data: the pickle.
        allowed: what each path that it may name stands for, beside ``ARRAYS`` and ``IGNORED``.

    Returns:
        Plain values and records.

    Raises:
        UntrustedError: it names something else, which was neither imported nor called.
        ValueError: it is damaged.
    """
    try:
        return _Reader(data, ARRAYS | dict(allowed)).load()
    except (UntrustedError, MemoryError):
        raise
    except Exception as error:  # what a damaged pickle raises has no common base
        raise ValueError(f"it is damaged ({type(error).__name__})") from error


class _Reader(pickle.Unpickler):
    """An unpickler that knows a table of names and nothing else."""

    def __init__(self, data: bytes, known: Mapping[str, Callable[..., Any]]):
        super().__init__(io.BytesIO(data))
        self.known = known

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up; pickle asks for every one here, and has no other way to get at code."""
        path = f"{module}.{name}"
        if path in self.known:
            return self.known[path]
        if module == IGNORED or module.startswith(f"{IGNORED}."):
            return record(path)
        raise UntrustedError(f"it names {path}, which is code and no data: nothing of it was run")

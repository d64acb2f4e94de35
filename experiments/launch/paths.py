"""Paths on a command line: whatever the shell can write reaches the command as it was written."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from experiments.launch.escape import escape_interpolations

PATHS = (
    *("resume", "run", "run_dir", "init_from", "checkpoint", "weights", "model", "vec_normalize"),
    *("text", "output", "study", "page", "plot", "purejaxrl"),
)
LISTS = ("runs", "data")
"""Keys whose value is a path, and keys whose value may be a list of paths."""

PLAIN = re.compile(r"(?!(?:true|false|nan|inf)$)[A-Za-z_./][\w./-]*", re.ASCII | re.IGNORECASE)
QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)
SWEEP = re.compile(r"[a-z]+\(.*\)")
PART = re.compile(r"""(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,])+""")
"""What lies between two commas, of which those inside quotes do not count."""


def quote_path(argument: str, sweeping: bool = False) -> str:
    """Put the value of ``KEY=PATH`` in the quotes that Hydra's grammar needs; other arguments stay as they are.

    What the user has quoted for Hydra already stays too, unless there is a file of that very name. ``${...}`` in the
    name of something that exists is no interpolation.

    Args:
        argument: of the command line.
        sweeping: several values, parted by commas, are runs of a sweep.
    """
    key, equals, value = argument.partition("=")
    if not equals or key.lstrip("+") not in (*PATHS, *LISTS) or value in ("", "null"):
        return argument
    if not _exists(value):
        if key.lstrip("+") in LISTS and value.startswith("[") and value.endswith("]"):
            return f"{key}=[{','.join(_quote_all(value[1:-1]))}]"
        if sweeping and ("," in value or SWEEP.fullmatch(value)):
            return argument if SWEEP.fullmatch(value) else f"{key}={','.join(_quote_all(value))}"
    return f"{key}={_quote(value)}"


def find_resumed(arguments: Iterable[str]) -> str | None:
    """Return the folder that the last ``resume=`` among arguments names, without quotes; None if none does."""
    folders = [argument.partition("=")[2] for argument in arguments if re.match(r"\+*resume=", argument)]
    if not folders or folders[-1] in ("", "null"):
        return None
    folder = folders[-1]
    if not _exists(folder) and QUOTED.fullmatch(folder):
        folder = folder[1:-1].replace(f"\\{folder[0]}", folder[0])
    return folder if _exists(folder) else _expand(folder)


def quote(text: str) -> str:
    """Return a text as Hydra's grammar reads it back, whatever it holds."""
    return str(QuotedString(escape_interpolations(text), Quote.single).with_quotes())


def _quote_all(values: str) -> Iterator[str]:
    return (_quote(value.strip()) for value in PART.findall(values))


def _quote(value: str) -> str:
    """Return one path in quotes where it needs them, the home folder written out."""
    if _exists(value):
        return value if PLAIN.fullmatch(value) else quote(value)
    expanded = _expand(value)
    if QUOTED.fullmatch(value) or PLAIN.fullmatch(expanded):
        return expanded
    return quote(expanded) if _exists(expanded) else str(QuotedString(expanded, Quote.single).with_quotes())


def _expand(value: str) -> str:
    """Return a path with ``~`` written out; if there is no such home the path itself."""
    try:
        return str(Path(value).expanduser()) if value.startswith("~") else value
    except RuntimeError:
        return value


def _exists(value: str) -> bool:
    """Tell whether there is something of that very name."""
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # too long, or a null character
        return False

"""Tell a fault in the code of a user as theirs: what was called, what it raised, and where."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = tuple(f"{ROOT / package}/" for package in ("rl", "envs", "experiments", "conf"))
STANDARD_LIBRARY = f"{sysconfig.get_paths()['stdlib']}/"
INSTALLED = ("/site-packages/", "/dist-packages/")
BENEATH = tuple(f"{folder}{name}/" for folder in INSTALLED for name in ("gymnasium", "torch", "numpy"))
LONGEST_MESSAGE = 500  # characters


class UserCodeError(RuntimeError):
    """A fault in code of the user, told in one sentence. It holds a text only, so it passes between processes."""


class MisfitError(ValueError):
    """Something that an environment returned and that cannot be used."""


class CloseTimeoutError(TimeoutError):
    """The end of the time in which all copies of an environment must have been closed."""


def read_message(error: BaseException) -> str:
    """Return what an exception says, on one line that is not too long; some cannot even say it."""
    try:
        text = str(error)
    except Exception:  # of any kind: it is the user's own method
        return "its message cannot be read"
    text = re.sub(r"\s*\n\s*", " ", text.strip())
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}..."


def is_users(path: str) -> bool:
    """Tell whether a file of the code is one of the user's own, installed nowhere."""
    if path.startswith(("<frozen", "<string>", *OURS)):
        return False
    return not any(folder in path for folder in INSTALLED) and not path.startswith(STANDARD_LIBRARY)


def is_foreign(path: str) -> bool:
    """Tell whether a file is of the user or of a package that is neither ours nor beneath us."""
    if path.startswith(("<frozen", "<string>", *OURS)) or any(folder in path for folder in BENEATH):
        return False
    return any(folder in path for folder in INSTALLED) or not path.startswith(STANDARD_LIBRARY)


def find_users_frame(error: BaseException, causes: bool = True) -> traceback.FrameSummary | None:
    """Return the innermost frame of the user's own code that an exception came through.

    Args:
        error: the exception.
        causes: look also at the exceptions that caused it.
    """
    if causes:
        return _find_frame(error, is_users)
    return next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if is_users(f.filename)), None)


def _find_frame(error: BaseException, *kinds: Callable[[str], bool]) -> traceback.FrameSummary | None:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__
    for is_kind in kinds:
        for link in chain:
            for frame in reversed(traceback.extract_tb(link.__traceback__)):
                if is_kind(frame.filename):
                    return frame
    return None


def describe_fault(error: BaseException) -> str:
    """Return the class of an exception, what it says, and file, line and function of the user's frame."""
    text = f"{type(error).__name__}: {read_message(error)}".removesuffix(": ")
    frame = _find_frame(error, is_users, is_foreign)
    return text if frame is None else f"{text} ({name_place(frame)})"


def name_place(frame: traceback.FrameSummary) -> str:
    """Return file, line and function of a frame; a file below the working folder is named from there."""
    path = Path(frame.filename)
    with suppress(ValueError, OSError):  # it lies elsewhere, or the working folder is gone
        path = path.relative_to(Path.cwd())
    return f"{path}, line {frame.lineno}, in {frame.name}"


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Tell whatever the block raises as a fault of ``what``, unless it is an ordinary error raised by none of its code.

    Such an error, of a mistyped argument say, has a sentence of its own.

    Raises:
        UserCodeError: the block raised something.
    """
    try:
        yield
    except (KeyboardInterrupt, UserCodeError):
        raise
    except BaseException as error:
        if isinstance(error, Exception) and find_users_frame(error) is None:
            raise
        raise UserCodeError(f"{what}: {describe_fault(error)}") from error

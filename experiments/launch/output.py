"""What a command prints, and what becomes of it where it cannot be written."""

import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def tell_broken_logs(config_name: str) -> Iterator[None]:
    """While open, say once that a log cannot be written, where Python would print a traceback for each line of it."""
    told: set[int] = set()

    def tell(handler: logging.Handler, record: logging.LogRecord) -> None:
        """Say it, and be silent from then on."""
        name = getattr(handler, "baseFilename", "the log")
        if id(handler) not in told:
            told.add(id(handler))
            with suppress(OSError):
                print(f"{config_name}: {name} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)

    usual = logging.Handler.handleError
    setattr(logging.Handler, "handleError", tell)  # noqa: B010  # for a type checker; also of handlers made later
    try:
        yield
    finally:
        setattr(logging.Handler, "handleError", usual)  # noqa: B010


def flush_stdout() -> None:
    """Write what was printed, for at its end Python would tell of a full device in lines of its own.

    Raises:
        OSError: it cannot be written.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(f"stdout cannot be written: {error.strerror}") from error


def has_lost_reader() -> bool:
    """Tell whether the program that reads what is printed has ended, ``head`` say."""
    try:
        waiting = select.poll()
        waiting.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in waiting.poll(0))
    except (OSError, ValueError):  # it is no file
        return False

"""What counts as a failure: the one place that says it for every kind of try."""

import re
from pathlib import Path

from experiments.reliability.processes import Ended

WARNING = re.compile(r"^.*Warning: .*\n(  .*\n)?", re.MULTILINE)
MOST_LINES = 2
"""Of a refusal on stderr, beside warnings."""
TRACE = "PWNED"
"""A file that hostile content leaves where it runs."""


class Fault(Exception):  # noqa: N818 (what is wrong with the project, not with this program)
    """What a try has found wrong, in one sentence."""


def check_ended(ended: Ended) -> None:
    """Check what holds of every end: no hang, no traceback, no process left.

    Raises:
        Fault: one of them is there.
    """
    if ended.code is None:
        raise Fault(f"it hung and was killed after {ended.seconds:.0f} s; {quote(ended)}")
    if "Traceback (most recent call last)" in ended.text or "object_type=" in ended.text:
        raise Fault(f"a traceback; {quote(ended)}")
    if ended.left:
        raise Fault(f"{ended.left} processes were left alive; {quote(ended)}")


def check_success(ended: Ended) -> None:
    """Check that a command did what it was told.

    Raises:
        Fault: it did not.
    """
    check_ended(ended)
    if ended.code != 0:
        raise Fault(f"exit code {ended.code} where 0 was due; {quote(ended)}")


def check_refused(ended: Ended, *names: str, code: int = 1) -> None:
    """Check that a command was refused in one sentence.

    Args:
        ended: how it ended.
        names: the sentence must have one of them; none for any sentence.
        code: of the exit.

    Raises:
        Fault: it was not, or the sentence names none of ``names``.
    """
    check_ended(ended)
    if ended.code == 0:
        raise Fault(f"it went through where a refusal was due; {quote(ended)}")
    if ended.code != code:
        raise Fault(f"exit code {ended.code} where {code} was due; {quote(ended)}")
    lines = list_lines(ended.err)
    if not 1 <= len(lines) <= MOST_LINES:
        raise Fault(f"{len(lines)} lines on stderr where one sentence was due; {quote(ended)}")
    if names and not any(name in ended.err for name in names):
        raise Fault(f"the sentence does not name {' or '.join(names)}; {quote(ended)}")


def check_told(ended: Ended, *names: str) -> None:
    """Check that a command that went on beside something damaged has said so.

    Raises:
        Fault: it has not.
    """
    check_success(ended)
    if not any(name in ended.text for name in names):
        raise Fault(f"a damaged file was loaded in silence; {quote(ended)}")


def check_refused_or_told(ended: Ended, *names: str) -> None:
    """Check that something damaged was refused in a sentence, or a fallback was stated; either has one of ``names``.

    Raises:
        Fault: it was neither.
    """
    if ended.code == 0:
        check_told(ended, *names)
    else:
        check_refused(ended, *names)


def check_refused_or_done(ended: Ended, *names: str) -> None:
    """Check that a command was refused in one sentence that has one of ``names``, or has done what it was told.

    Raises:
        Fault: it was neither.
    """
    if ended.code == 0:
        check_success(ended)
    else:
        check_refused(ended, *names)


def check_stopped(ended: Ended, number: int) -> None:
    """Check that a signal has ended a command as it should: in one line at most, and with the signal's exit code.

    Raises:
        Fault: it has not.
    """
    check_ended(ended)
    if ended.code not in (128 + number, -number):  # a shell tells both as the former
        raise Fault(f"exit code {ended.code} where {128 + number} was due; {quote(ended)}")
    if len(list_lines(ended.err)) > MOST_LINES:
        raise Fault(f"{len(list_lines(ended.err))} lines on stderr; {quote(ended)}")


def check_untouched(before: set[str], folder: Path) -> None:
    """Check that a refused command has left nothing behind.

    Args:
        before: what ``list_files`` said before the command.
        folder: its working folder.

    Raises:
        Fault: there is a file or folder more, or one less.
    """
    after = list_files(folder)
    if after != before:
        changed = [f"left {name}" for name in sorted(after - before)] + [f"lost {name}" for name in before - after]
        raise Fault(f"a refused command has {', '.join(changed[:3])}")


def check_no_temporary(folder: Path) -> None:
    """Check that no temporary file of a write lies in a folder.

    Raises:
        Fault: one does.
    """
    found = [str(path.relative_to(folder)) for path in folder.rglob(".*.*") if path.is_file()]
    found = [name for name in found if re.search(r"\.\d+$|\.tmp$", name)]
    if found:
        raise Fault(f"a temporary file was left: {found[0]}")


def check_no_trace(folder: Path) -> None:
    """Check that no hostile content has run.

    Raises:
        Fault: it has.
    """
    found = list(folder.rglob(TRACE))
    if found:
        raise Fault(f"code of the data was run: {found[0].relative_to(folder)} is there")


def list_files(folder: Path) -> set[str]:
    """Return all files and folders below a folder, relative to it; what Python itself caches is left out."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {name for name in names if "__pycache__" not in name}


def list_lines(text: str) -> list[str]:
    """Return the lines of a text on stderr that are no warnings."""
    return [line for line in WARNING.sub("", text).splitlines() if line.strip()]


def quote(ended: Ended) -> str:
    """Return the last line that a command has written, for a message."""
    lines = (ended.err.strip() or ended.out.strip() or "it printed nothing").splitlines()
    return f"code {ended.code}: {lines[-1].strip()[:300]}"

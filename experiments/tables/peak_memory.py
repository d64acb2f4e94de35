"""Run a module and add a file with the peak of its resident memory in bytes.

python -m experiments.tables.peak_memory FILE MODULE ARGUMENTS

``ru_maxrss`` of a child includes the pages that its parent held when it was spawned, so the parent must be small: this
module imports no torch. If the run goes on in a second process, the larger peak stands in the file.
"""

import os
import signal
import sys
from pathlib import Path


def run_measured(file: Path, arguments: list[str]) -> int:
    """Run ``python -m ARGUMENTS``; if it ends well, write its peak memory into the file.

    Returns:
        The exit code of the module.
    """
    child = os.posix_spawn(sys.executable, [sys.executable, "-m", *arguments], os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child, which saves and ends
    _, status, usage = os.wait4(child, 0)
    if status == 0:
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        before = int(file.read_text()) if file.is_file() else 0
        file.write_text(str(max(peak, before)))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(run_measured(Path(sys.argv[1]), sys.argv[2:]))

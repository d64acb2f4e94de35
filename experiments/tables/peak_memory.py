"""Runs a module and adds a file with the peak of its resident memory in bytes.

python -m experiments.peak_memory FILE MODULE ARGUMENTS

The kernel also counts for a process what its starter held when it was started, so whoever starts it must be small:
this module imports no torch. If the run goes on in a second process, the larger peak stands in the file.
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    file, arguments = Path(sys.argv[1]), sys.argv[2:]
    child = os.posix_spawn(sys.executable, [sys.executable, "-m", *arguments], os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the child, which saves and ends
    _, status, usage = os.wait4(child, 0)
    if status == 0:
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        before = int(file.read_text()) if file.is_file() else 0
        file.write_text(str(max(peak, before)))
    sys.exit(os.waitstatus_to_exitcode(status))

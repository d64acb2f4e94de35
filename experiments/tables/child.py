"""Run a module until the process that started it ends: its standard input is a pipe, which closes then.

python -m experiments.tables.child MODULE ARGUMENTS
"""

import os
import runpy
import signal
import sys
import threading


def watch_parent() -> None:
    """Ask this process to end, as SIGTERM does, when nobody holds the other end of the pipe any more."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=watch_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

"""The commands. Only these modules import Hydra; everything below them takes plain arguments."""

import os
import signal
import sys
from types import FrameType


def _answer_signals() -> None:
    """End a command by one line while it imports what it needs, which takes seconds; ``launch`` answers later ones."""
    as_module = sys.argv[0] == "-m"  # while ``python -m`` looks for the module
    name = sys.orig_argv[sys.orig_argv.index("-m") + 1] if as_module else os.path.basename(sys.argv[0])
    if not as_module and not name.startswith("recurrent-ppo-"):
        return  # imported by another program, whose signals are its own

    def end(number: int, frame: FrameType | None) -> None:
        line = f"{name.rpartition('.')[2]}: stopped by {signal.Signals(number).name}\n"
        os.write(2, line.encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP:
            signal.signal(number, end)


_answer_signals()

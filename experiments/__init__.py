"""The commands. Only these modules import Hydra; everything below them takes plain arguments."""

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
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


def leave_run_folder() -> None:
    """Take the working folder, which ``python -m`` puts in front, off the path if it lies in a run folder."""
    cwd, home = Path.cwd(), Path(__file__).resolve().parents[1]
    runs = [place for place in (cwd, *cwd.parents) if (place / "config.yaml").is_file()]
    if sys.argv[0] == "-m" and cwd != home and any((run / "checkpoints").is_dir() for run in runs):
        sys.path[:] = [entry for entry in sys.path if entry not in ("", str(cwd))]


def check_not_hidden() -> None:
    """Check that the packages beside this one are ours: a folder of the same name in front on the path would hide them.

    Raises:
        SystemExit: one is not, and a command was about to start.
        ImportError: one is not.
    """
    home = Path(__file__).resolve().parents[1]
    for name in ("rl", "envs", "conf"):
        spec = find_spec(name)
        places = [spec.origin] if spec and spec.origin else list((spec and spec.submodule_search_locations) or ())
        found = Path(places[0]).resolve() if places else None
        if found and home / name not in (found, found.parent):
            hiding = found.parent if found.name == "__init__.py" else found
            sentence = (
                f"{hiding} hides the package {name} of recurrent-ppo: rename it, start in another folder, "
                "or use the console script (recurrent-ppo-train, say)"
            )
            if sys.argv[0] == "-m" or Path(sys.argv[0]).name.startswith("recurrent-ppo-"):
                sys.exit(sentence)
            raise ImportError(sentence)


_answer_signals()
leave_run_folder()
check_not_hidden()

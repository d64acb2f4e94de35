"""The commands. Only these modules import Hydra; everything below them takes plain arguments."""

import sys
from importlib.util import find_spec
from pathlib import Path


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


check_not_hidden()

"""Run folders of a stranger that carry code: nothing of them may run, whichever command reads them."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

import rl
from experiments.reliability.hostile_content import (
    CONFIGS,
    FOLDER,
    TEXTS,
    Config,
    Payload,
    make_pickles,
    write_modules,
)
from experiments.reliability.judge import (
    Fault,
    check_no_trace,
    check_refused,
    check_refused_or_done,
    check_refused_or_told,
    check_untouched,
    list_files,
)
from experiments.reliability.processes import Ended, call, run
from experiments.reliability.recipes import SMALL, copy_run
from experiments.reliability.tries import Place, Try, number_tries
from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.training.run import checkpoint_path

WORDS = (
    "run folders whose configuration, modules or checkpoints carry code, read by every command that takes a run "
    "folder: refused in one sentence, and nothing of them has run"
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", f"run={FOLDER}", "episodes=2"),
    "export": ("export", f"run={FOLDER}", "steps=2", "output=policy.pt2"),
    "record": ("record", f"run={FOLDER}", "episodes=2", "output=recording"),
    "resume": ("train", f"resume={FOLDER}", "total_steps=1000"),
    "init_from": ("train", *SMALL, f"init_from={FOLDER}", "run_dir=new"),
    "plot": ("plot", f"runs=[{FOLDER}]", "tag=losses/entropy", "output=curves.png"),
    "imitate": ("imitate", f"resume={FOLDER}"),
}
READ_CONFIGS = ("evaluate", "export", "record", "resume", "plot")
READ_CHECKPOINTS = ("evaluate", "export", "resume", "init_from")
LEARNERS = {"a learner from recordings": "os.system", "a learner of the stranger": "evil.Env"}


def list_tries() -> list[Try]:
    """List every content that is hostile, read by every command that reads it."""
    found: list[tuple[str, Callable[[Place], None]]] = []
    for label, config in CONFIGS.items():
        found += [(f"{label}: {name}", partial(read_config, config=config, name=name)) for name in READ_CONFIGS]
        if "trust" in config or "core" in label:
            found.append((f"{label}: init_from", partial(read_config, config=config, name="init_from")))
    for label, text in TEXTS.items():
        found += [(f"{label}: {name}", partial(read_text, text=text, name=name)) for name in READ_CONFIGS]
    for label in make_pickles():
        for file in ("last", "previous", "best"):
            for name in READ_CHECKPOINTS if file == "last" else READ_CHECKPOINTS[::2]:
                found.append((f"{label} as {file}.pt: {name}", partial(read_pickle, label=label, file=file, name=name)))
    for label, target in LEARNERS.items():
        config = {"imitation": {"_target_": target}, "data": "recording"}
        found.append((f"{label}: imitate", partial(read_config, config=config, name="imitate")))
    for path in ("os.system", "evil.Env", f"{FOLDER}.evil.Env", "rl.checkpoint.os.system"):
        found.append((f"a construction that names {path}", partial(read_construction, path=path)))
    for name in (*READ_CONFIGS, "init_from"):
        found.append((f"a run_dir elsewhere: {name}", partial(read_elsewhere, name=name)))
    if find_spec("onnxruntime"):
        found.append(("a recording of pickles", read_arrays))
    return number_tries("hostile", found)


def make_folder(place: Place) -> Path:
    """Make a run folder of a stranger that is harmless so far, but for modules that nothing may import."""
    folder = copy_run(place, "ppo", FOLDER)
    write_modules(place.folder)
    return folder


def merge(folder: Path, config: Config) -> None:
    """Put a stranger's keys into the configuration of a run, in the place of ours."""
    path = folder / "config.yaml"
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(content | config)))


def execute(place: Place, name: str) -> Ended:
    """Run a command on the stranger's folder and check that nothing of it has run."""
    ended = run(COMMANDS[name], place.folder)
    check_no_trace(place.folder)
    return ended


def read_config(place: Place, config: Config, name: str) -> None:
    """Read a configuration that carries code."""
    merge(make_folder(place), config)
    before = list_files(place.folder)
    ended = execute(place, name)
    if name in ("plot", "init_from"):  # which need not look at what it stands for
        check_refused_or_done(ended)
    else:
        check_refused(ended)
        check_untouched(before, place.folder)


def read_text(place: Place, text: str, name: str) -> None:
    """Read a configuration with tags of Python in its YAML."""
    path = make_folder(place) / "config.yaml"
    path.write_text(text + (path.read_text() if text.startswith("env:") else ""))
    before = list_files(place.folder)
    check_refused(execute(place, name))
    check_untouched(before, place.folder)


def read_pickle(place: Place, label: str, file: str, name: str) -> None:
    """Read a checkpoint whose pickle carries code."""
    path = checkpoint_path(make_folder(place)).with_name(f"{file}.pt")
    path.write_bytes(make_pickles()[label])
    ended = execute(place, name)
    if file == "last":
        check_refused_or_told(ended, path.name, "damaged", "previous.pt")
    else:
        check_refused_or_done(ended)


def read_construction(place: Place, path: str) -> None:
    """Load an agent whose checkpoint says that something else constructs it.

    Raises:
        Fault: the checkpoint does not say what constructs it, or code of the stranger ran.
    """
    folder = make_folder(place)
    content = load_checkpoint(checkpoint_path(folder))
    if "construction" not in content["agent"] or not hasattr(rl, "load_agent"):
        raise Fault("checkpoints do not hold what constructs the agent")
    changed = content["agent"]["construction"] = _name_instead(content["agent"]["construction"], path)
    if path not in str(changed):
        raise Fault("a construction names nothing that could be exchanged")
    save_checkpoint(content, checkpoint_path(folder))
    for other in checkpoint_path(folder).parent.glob("*.pt"):
        if other != checkpoint_path(folder):
            other.unlink()
    ended = call(partial(rl.load_agent, folder), place.folder)
    check_no_trace(place.folder)
    check_refused(ended, path)


def _name_instead(value: Any, path: str) -> Any:
    """Put another name wherever a dotted one of ours stands."""
    if isinstance(value, str) and value.startswith(("rl.", "gymnasium.", "envs.")):
        return path
    if isinstance(value, dict):
        return {key: _name_instead(part, path) for key, part in value.items()}
    return [_name_instead(part, path) for part in value] if isinstance(value, list) else value


def read_elsewhere(place: Place, name: str) -> None:
    """Read a run folder that says it lies elsewhere: nothing may be written there.

    Raises:
        Fault: something was.
    """
    elsewhere = place.folder.parent / "elsewhere"
    merge(make_folder(place), {"run_dir": str(elsewhere), "hydra": {"run": {"dir": str(elsewhere)}}})
    ended = execute(place, name)
    check_refused_or_done(ended)
    if elsewhere.exists():
        raise Fault("the configuration of a stranger has chosen where files are written")


def read_arrays(place: Place) -> None:
    """Play a recording of a policy whose arrays are pickles."""
    from experiments.replay_onnx import replay  # needs a package of an extra

    copy_run(place, "policy", "policy")
    path = place.folder / "policy" / "policy.npz"
    with np.load(path) as arrays:
        changed = dict(arrays) | {"input/start": np.array([Payload()], dtype=object)}
    np.savez(path, **changed)
    ended = call(partial(replay, str(path.with_suffix(".onnx")), str(path)), place.folder)
    check_no_trace(place.folder)
    check_refused(ended)

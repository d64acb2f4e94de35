"""Tiny runs of every kind: what starts them, what resumes them, and one of each that was never disturbed."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from experiments.reliability.judge import Fault, check_success
from experiments.reliability.processes import run
from experiments.reliability.tries import Place
from rl.checkpoint import load_checkpoint
from rl.training.run import checkpoint_path

SIZES = ("layer_size=4", "core.hidden_size=4")
PPO = (*SIZES, "bptt=4", "num_minibatches=1", "epochs=1")
QUANTILES = (*SIZES, "bptt=2", "burn_in=0", "n_step=1", "batch_size=2", "learning_starts=1")
MAZE = ("env=t_maze", "env.length=3")
SHARDS = "shards=2", "rank_timeout=15", "evaluation_share=null"
SEATS = ("first", "second", "third")


def _options(options: tuple[str, ...], node: str = "agent") -> tuple[str, ...]:
    return tuple(f"{node}.{option}" for option in options)


PLAY = ("evaluate_episodes=2", "final_episodes=2", "evaluation_envs=2")
LOOP = ("num_envs=2", "num_steps=4", "checkpoint_every=16", *PLAY)
SMALL = (*MAZE, *LOOP, "evaluate_every=null", "total_steps=16", *_options(PPO))
"""A training run that takes no time, without its ``run_dir``."""


@dataclass(frozen=True)
class Recipe:
    """A tiny run.

    Attributes:
        command: ``train`` or ``imitate``.
        arguments: without ``run_dir``; ``{prepared}`` in them is the folder of what was made once.
        needs: the package of an extra, or None.
    """

    command: str
    arguments: tuple[str, ...]
    needs: str | None = None

    @property
    def usable(self) -> bool:
        """Whether what it needs is installed."""
        return self.needs is None or find_spec(self.needs) is not None

    def start(self, place: Place, folder: str = "run") -> list[str]:
        """Return the words that start it."""
        return [self.command, *self.fill(place.prepared), f"run_dir={folder}"]

    def resume(self, folder: str = "run", *more: str) -> list[str]:
        """Return the words that go on with it."""
        return [self.command, f"resume={folder}", *more]

    def fill(self, prepared: Path) -> list[str]:
        """Return its arguments with the folder in place."""
        return [argument.replace("{prepared}", str(prepared)) for argument in self.arguments]


RECIPES = {
    "ppo": Recipe("train", (*MAZE, *LOOP, "total_steps=320", "evaluate_every=80", *_options(PPO))),
    "iqn": Recipe(
        "train",
        ("agent=recurrent_iqn", *MAZE, *LOOP, "total_steps=96", "evaluate_every=48", *_options(QUANTILES)),
    ),
    "ppo_in_shards": Recipe(
        "train",
        (*SHARDS, *MAZE, *LOOP, "total_steps=320", "evaluate_every=80", *_options(PPO)),
    ),
    "iqn_in_shards": Recipe(
        "train",
        (
            *(*SHARDS, "agent=recurrent_iqn", *MAZE, *LOOP, "total_steps=96", "evaluate_every=48"),
            *_options(QUANTILES),
        ),
    ),
    "population": Recipe(
        "train",
        (
            "agent=population",
            "agent@agent.members.second=recurrent_iqn",
            "+agent@agent.members.third=recurrent_ppo_lstm",
            "agent.seats=[first,second,third]",
            *("env=state_punishment", "env.size=4", "env.view_radius=1", "env.initial_resources=1", "env.max_turns=4"),
            *LOOP,
            *("num_envs=6", "evaluation_envs=3", "total_steps=96", "evaluate_every=48"),
            *_options(PPO, "agent.members.first"),
            *_options(QUANTILES, "agent.members.second"),
            *_options(PPO, "agent.members.third"),
        ),
    ),
    "imitation": Recipe(
        "imitate",
        (
            *("data={prepared}/recording", "imitation.epochs=8", "imitation.streams=2", "imitation.window_size=4"),
            *MAZE,
            *("evaluate_every=4", *PLAY),
            *_options(SIZES),
        ),
        needs="minari",
    ),
}
RECORD = ("record", "player=envs.players.TMazeExpert", *MAZE, "episodes=20")


def list_usable() -> list[str]:
    """List the recipes whose packages are installed."""
    return [name for name, recipe in RECIPES.items() if recipe.usable]


def prepare(folder: Path) -> None:
    """Make every run once, undisturbed, and what is read from: a recording, a policy; note how long each took.

    Raises:
        Fault: one of them failed, so that nothing can be tried.
    """
    folder.mkdir()
    seconds: dict[str, float] = {}
    for name, words in _list_preparations(folder):
        ended = run(words, folder)
        try:
            check_success(ended)
        except Fault as fault:
            raise Fault(f"{' '.join(words)}: {fault}") from None
        seconds[name] = ended.seconds
    (folder / "seconds.json").write_text(json.dumps(seconds))


def _list_preparations(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of ``prepare`` by name."""
    if find_spec("minari"):
        yield "record", [*RECORD, "output=recording"]
    for name in list_usable():
        yield name, RECIPES[name].start(Place(folder, folder), name)
    yield "evaluate", ["evaluate", "run=ppo", "episodes=2"]
    if find_spec("onnxruntime"):
        yield "export", ["export", "run=ppo", "output=policy/policy.onnx", "steps=8"]


def read_seconds(place: Place, name: str) -> float:
    """Return how long an undisturbed command took."""
    return float(json.loads((place.prepared / "seconds.json").read_text())[name])


def copy_run(place: Place, name: str, folder: str = "run") -> Path:
    """Copy an undisturbed run into the folder of a try and return where it lies."""
    target = place.folder / folder
    shutil.copytree(place.prepared / name, target)
    return target


def load_steps(run_dir: Path) -> dict[str, Any]:
    """Read the last checkpoint of a run that was disturbed.

    Raises:
        Fault: it is damaged.
    """
    try:
        return load_checkpoint(checkpoint_path(run_dir))
    except (ValueError, OSError) as error:
        raise Fault(f"the last checkpoint is lost: {error}") from error


def check_finished(place: Place, name: str, folder: str = "run") -> None:
    """Check that a run has come to its end, with a result.

    Raises:
        Fault: it has not.
    """
    path, done = place.folder / folder / "result.json", "epochs" if name == "imitation" else "env_steps"
    if not path.is_file():
        raise Fault("the resumed run has no result.json")
    result, undisturbed = (json.loads(file.read_text()) for file in (path, place.prepared / name / "result.json"))
    if result[done] < undisturbed[done]:
        raise Fault(f"the resumed run has done {done}={result[done]} of {undisturbed[done]}")


def check_same_weights(place: Place, name: str, folder: str = "run") -> None:
    """Check that a run ended with the agent of the undisturbed one, bit for bit.

    Raises:
        Fault: a tensor differs.
    """
    own, other = (load_steps(base)["agent"] for base in (place.folder / folder, place.prepared / name))
    expected = dict(_walk(other))
    for key, tensor in _walk(own):
        if key not in expected or not torch.equal(tensor, expected[key]):
            raise Fault(f"the resumed run differs from the undisturbed one in {key}")


def _walk(value: object, key: str = "agent") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors inside dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield key, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        yield from _walk(part, f"{key}.{name}")

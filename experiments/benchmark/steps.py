"""Rows of how much is learned from so many steps, beside sb3-contrib, and at which speed."""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from experiments.benchmark.peers import require
from experiments.benchmark.rows import Numbers, Row
from experiments.launch.run_folder import read_result

STEPS = 60_000
TASK = "repeat-previous k=4"
PRESET = [
    *("experiment=repeat_previous_4", f"total_steps={STEPS}", "agent.anneal_learning_rate=false"),
    *("evaluate_every=null", "evaluate_memory_zeroed=false"),
]
"""The learning rate stays as it is: annealed to 0 at so few steps it would be another one."""


def make_rows() -> list[Row]:
    """Return rows of the preset, of the same with an LSTM and of sb3-contrib; each round is a run with its own seed.

    Raises:
        ConfigError: sb3-contrib is not installed.
    """
    require("sb3_contrib")
    return [
        Row(f"{TASK}, GRU", partial(learn, [])),
        Row(f"{TASK}, LSTM", partial(learn, ["agent/core=lstm", "agent.core.forget_bias=0"])),
        Row(f"{TASK}, sb3_contrib", learn_with_sb3),
    ]


def learn(overrides: list[str], round: int) -> Numbers:
    """Run the preset for ``STEPS`` steps, with what differs from it."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*PRESET, *overrides, f"seed={round + 1}", f"run_dir={folder}/run"]
        subprocess.run([sys.executable, "-m", "experiments.train", *arguments], check=True, capture_output=True)
        result = read_result(Path(folder, "run"))
    return _summarise(result["env_steps"], result["eval_return_mean"], result["training_seconds"])


def learn_with_sb3(round: int) -> Numbers:
    """Do the same with sb3-contrib at the same sizes."""
    command = [sys.executable, "-m", "experiments.peers.sb3_steps", "--seed", str(round + 1), "--steps", str(STEPS)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = json.loads(printed.strip().splitlines()[-1])
    return _summarise(result["env_steps"], result["eval_return"], result["training_seconds"])


def _summarise(env_steps: int, eval_return: float, seconds: float) -> Numbers:
    return {"env_steps": env_steps, "eval_return": eval_return, "steps_per_second": env_steps / seconds}

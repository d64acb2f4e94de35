"""Rows of how much is learned from so many steps, beside sb3-contrib, and at which speed."""

from functools import partial
from typing import Any

from experiments.benchmark import peers
from experiments.benchmark.rows import Numbers, Row

STEPS = 60_000
TASK = "repeat-previous k=4"
PRESET = [
    *("experiment=repeat_previous_4", f"total_steps={STEPS}", "agent.learning_rate_schedule=constant"),
    *("evaluate_every=null", "evaluate_memory_zeroed=false"),
]
"""The learning rate stays as it is: falling to 0 over so few steps it would be another one."""
LSTM = ["agent/core=lstm", "agent.core.forget_bias=0"]


def make_rows() -> list[Row]:
    """Return rows of the preset, of the same with an LSTM and of sb3-contrib; each round is a run with its own seed.

    Raises:
        ConfigError: sb3-contrib is not installed.
    """
    peers.require("sb3_contrib")
    return [
        Row(f"{TASK}, GRU", partial(learn, [])),
        Row(f"{TASK}, LSTM", partial(learn, LSTM)),
        Row(f"{TASK}, sb3_contrib", learn_with_sb3),
    ]


def learn(overrides: list[str], round: int) -> Numbers:
    """Run the preset for ``STEPS`` steps, with what differs from it."""
    _, result = peers.train([*PRESET, *overrides], round)
    return summarise(result | {"eval_return": result["eval_return_mean"]})


def learn_with_sb3(round: int) -> Numbers:
    """Do the same with sb3-contrib at the same sizes."""
    _, result = peers.ask("sb3_steps", ["--steps", str(STEPS)], round)
    return summarise(result)


def summarise(result: dict[str, Any]) -> Numbers:
    """Return the numbers of a row."""
    steps = result["env_steps"]
    speed = steps / result["training_seconds"]
    return {"env_steps": steps, "eval_return": result["eval_return"], "steps_per_second": speed}

"""Play a trained agent: greedily and by sampling, with memory and with the memory cleared before every step.

python -m experiments.evaluate run=RUN_DIR episodes=100
python -m experiments.evaluate run=RUN_DIR env.length=100   # where it was trained, and beside that elsewhere
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from envs.workers import close
from experiments.launch.build import build, build_envs
from experiments.launch.check import ConfigError, convert
from experiments.launch.command import launch
from experiments.launch.elsewhere import check_spaces, list_overrides, override_env, read_spaces
from experiments.launch.evaluations import OWN_SEED, describe_cut, evaluate_agent
from experiments.launch.run_folder import choose_checkpoint, load_run_config
from rl.checkpoint import write_text
from rl.checks import positive, within
from rl.types import Agent

Row = dict[str, Any]
"""One line of the table, as ``evaluation.json`` has it."""


@dataclass(frozen=True)
class Request:
    """What to play, see ``conf/evaluate.yaml``."""

    episodes: int
    seed: int
    max_steps: int | None
    memory_zeroed: bool


def run(config: DictConfig) -> float:
    """Print a table and write ``evaluation.json`` into the run folder.

    Returns:
        The mean return of greedy play with memory, where keys of the environment are given in that environment.
    """
    if config.run is None:
        raise ConfigError("run is missing: give run=RUN_DIR, the folder of a training run")
    request = read_request(config)
    stored, given = load_run_config(config.run, config.get("trust")), config.get("env")
    OmegaConf.update(stored, "device", config.device)
    if config.evaluation_envs is not None:
        OmegaConf.update(stored, "evaluation_envs", config.evaluation_envs)
    overrides = list_overrides(given)
    checkpoint, here = choose_checkpoint(config), Path.cwd()  # an environment may change the working folder
    assert checkpoint is not None  # of a run that is given
    # one vector of environments at a time: there may be no second one (a port, a device)
    elsewhere = override_env(stored, given) if overrides else None
    spaces = None if elsewhere is None else read_spaces(elsewhere)
    with closing(build(stored, playing=True)) as parts:
        agent, envs = parts.agent, parts.evaluation_envs
        if spaces is not None:
            check_spaces(spaces, (envs.single_observation_space, envs.single_action_space), overrides)
        agent.load(here / checkpoint)
        print(f"{agent.model_name} after {agent.env_steps} steps, {checkpoint}\n")
        played = play(agent, envs, request)
        rows = (
            print_plain(played)
            if elsewhere is None
            else [row | describe_place(agent, envs, request, []) for row in played]
        )
    if elsewhere is not None:
        envs = build_envs(elsewhere)
        try:
            there = print_beside(rows, play(agent, envs, request, ", elsewhere"), overrides)
            rows += [row | describe_place(agent, envs, request, overrides) for row in there]
        finally:
            close(envs)
    within_run = (here / checkpoint).resolve().is_relative_to((here / config.run).resolve())
    rows = [row | {"checkpoint": checkpoint.name if within_run else str(checkpoint)} for row in rows]
    write_text(here / config.run / "evaluation.json", json.dumps(rows, indent=1))
    return float(rows[len(rows) // 2 if overrides else 0]["mean"])


def read_request(config: DictConfig) -> Request:
    """Read what is to be played.

    Raises:
        ConfigError, ValueError: a value is of another type or out of range.
    """
    episodes, seed = convert(config.episodes, int, "episodes"), convert(config.seed, int, "seed")
    zeroed = convert(config.memory_zeroed, bool, "memory_zeroed")
    max_steps = convert(config.max_steps, int | None, "max_steps")
    positive(episodes=episodes, **{} if max_steps is None else {"max_steps": max_steps})
    within(0, 2**31, seed=seed)
    return Request(episodes, seed, max_steps, zeroed)


def play(agent: Agent, envs: VectorEnv, request: Request, place: str = "") -> Iterator[Row]:
    """Play greedily and by sampling, each with and without memory, and yield a row for each; say what was cut.

    Args:
        agent: with its weights.
        envs: to play in.
        request: what to play.
        place: for the progress bar.
    """
    cut = None
    for greedy in (True, False):
        for memory in (True, False) if request.memory_zeroed else (True,):
            policy, state = "greedy" if greedy else "sampled", "kept" if memory else "zeroed"
            options: dict[str, Any] = {"progress": f"{policy}, memory {state}{place}", "max_steps": request.max_steps}
            options |= {"memory": memory, "greedy": greedy}
            found = evaluate_agent(agent, envs, request.episodes, OWN_SEED + request.seed, **options)
            cut = found if cut is None and found.cut else cut
            row: Row = {"policy": policy, "memory": state, "mean": found.mean, "stderr": found.stderr}
            row |= {"episodes": len(found.returns), "episodes_cut": found.cut}
            yield row | {"mean_length": float(found.lengths.mean())}
    if cut is not None:
        print(f"\n{describe_cut(cut, 'max_steps', request.max_steps)}")


def print_plain(played: Iterator[Row]) -> list[Row]:
    """Print each row when it is there; return all of them."""
    print(f"{'policy':<10}{'memory':<10}{'mean return':>12}{'std. error':>12}{'episodes':>10}{'mean length':>13}")
    rows = []
    for row in played:
        numbers = f"{row['mean']:>12.3f}{row['stderr']:>12.3f}{row['episodes']:>10}{row['mean_length']:>13.1f}"
        print(f"{row['policy']:<10}{row['memory']:<10}{numbers}")
        rows.append(row)
    return rows


def print_beside(rows: list[Row], played: Iterator[Row], overrides: list[str]) -> list[Row]:
    """Print the rows of play elsewhere, when they are there, beside those of play as trained; return the former."""
    print(f"elsewhere: {', '.join(overrides)}\n")
    print(f"{'':<20}{'as trained':>34}{'elsewhere':>34}")
    columns = f"{'mean return':>12}{'std. error':>11}{'length':>11}"
    print(f"{'policy':<10}{'memory':<10}{columns}{columns}{'episodes':>10}")
    there = []
    for row, other in zip(rows, played, strict=True):
        numbers = (f"{each['mean']:>12.3f}{each['stderr']:>11.3f}{each['mean_length']:>11.1f}" for each in (row, other))
        print(f"{row['policy']:<10}{row['memory']:<10}{''.join(numbers)}{row['episodes']:>10}")
        there.append(other)
    return there


def describe_place(agent: Agent, envs: VectorEnv, request: Request, overrides: list[str]) -> Row:
    """Return what ``evaluation.json`` says of where rows were played, if it is not only where the agent was trained."""
    known = {key: getattr(envs.unwrapped, key, None) for key in ("optimal_return", "memoryless_return")}
    return {"overrides": overrides, "env_steps": agent.env_steps, "seed": request.seed, **known}


def main() -> None:
    """Run the command."""
    launch(run, "evaluate")


if __name__ == "__main__":
    main()

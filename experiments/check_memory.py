"""Check that an environment tells what it should, and that an agent remembers, replays and learns what it should in it.

python -m experiments.check_memory agent=recurrent_ppo_lstm agent/core=gru env=t_maze env.length=30
python -m experiments.check_memory run=RUN_DIR output=checks.json

It takes seconds. Each line says PASS, FAIL or NOTE, and what to do; one FAIL makes the exit code 1.
"""

import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import Parts, build
from experiments.launch.check import ConfigError, convert, prepare_output
from experiments.launch.claim import read_job
from experiments.launch.command import launch
from experiments.launch.run_folder import choose_checkpoint, load_run_config, name_core, name_env
from rl.checkpoint import write_text
from rl.memory_check import Verdict, check_environment, check_memory
from rl.memory_check.verdicts import LABELS
from rl.training.stepping import VectorEnvAdapter
from rl.training.watchdog import Watchdog

OF_RUNS = ("run", "checkpoint", "trust", "output", "device")
"""The keys that count where a run is checked; all else it has itself."""

PLAYED = 20_000
"""Steps of all environments together in which the environments are looked at."""


class ChecksFailedError(RuntimeError):
    """Checks that found a fault, by name."""


def run(config: DictConfig) -> float:
    """Print a line for each check, and write what was measured if a file is named.

    Returns:
        How many checks passed.

    Raises:
        ChecksFailedError: at least one failed.
    """
    output = config.output
    if output is not None:
        output = prepare_output(convert(output, str, "output"), "output").absolute()
    whole = config if config.run is None else load_own_config(config)
    checkpoint, here = choose_checkpoint(config), Path.cwd()  # an environment may change the working folder
    OmegaConf.update(whole, "device", config.device)
    OmegaConf.update(whole, "evaluation_envs", 0)
    with closing(build(whole)) as parts:
        if checkpoint is not None:
            parts.agent.load(here / checkpoint)
        agent, env = f"{parts.agent.model_name} with {name_core(parts.config.agent)}", name_env(parts.config.env)
        print(f"{agent}, {parts.agent.num_parameters} parameters, in {env}")
        verdicts = []
        for group in make_checks(parts):
            print("", *describe(group), sep="\n", flush=True)
            verdicts += group
    failed = [verdict.check for verdict in verdicts if verdict.passed is False]
    passed = sum(verdict.passed is True for verdict in verdicts)
    print(f"\n{passed} passed, {len(failed)} failed, {len(verdicts) - passed - len(failed)} to note")
    if output is not None:
        found = [make_plain(verdict._asdict()) for verdict in verdicts]
        content = {"agent": agent, "env": env, "seed": parts.settings.seed, "passed": not failed, "checks": found}
        write_text(output, json.dumps(content, indent=1, allow_nan=False))
    if failed:
        raise ChecksFailedError(f"{len(failed)} of {len(verdicts)} checks failed: {', '.join(failed)}")
    return float(passed)


def load_own_config(config: DictConfig) -> DictConfig:
    """Return the configuration of the run that a command names.

    Raises:
        ConfigError, FileNotFoundError: there is no run, or the command sets what it has itself.
    """
    stored, job = load_run_config(config.run, config.get("trust")), read_job("check_memory")
    for override in OverridesParser.create().parse_overrides(job.overrides if job else []):
        if override.key_or_group not in OF_RUNS:
            asked = str(override.input_line).lstrip("+")
            raise ConfigError(f"{asked}: run={config.run} is checked as it was trained, leave it out")
    return stored


def make_checks(parts: Parts) -> Iterator[list[Verdict]]:
    """Yield the verdicts on the environments, then those on the agent in them."""
    with Watchdog(parts.settings.env_timeout, VectorEnvAdapter.reset, VectorEnvAdapter.step):
        steps = max(1, PLAYED // parts.envs.num_envs)
        yield check_environment(parts.envs, seed=parts.settings.seed, steps=steps)
        yield check_memory(parts.agent, parts.envs, parts.settings.seed)


def describe(verdicts: list[Verdict]) -> list[str]:
    """Return the lines that say what was found: advice, and tables of what was measured, stand below."""
    width, lines = max(len(verdict.check) for verdict in verdicts), []
    for verdict in verdicts:
        lines.append(f"{LABELS[verdict.passed]}  {verdict.check:<{width}}  {verdict.finding}")
        if "relative_gradient" in verdict.numbers:
            lines += describe_gradient(verdict.numbers["k"], verdict.numbers["relative_gradient"], width)
        if verdict.advice:
            lines.append(f"{'':<{width + 6}}  -> {verdict.advice}")
    return lines


def describe_gradient(distances: list[int], shares: list[float], indent: int) -> list[str]:
    """Return the table of the gradient k steps back, in proportion to that of the present step."""
    margin = f"{'':<{indent + 6}}  "
    first = f"{margin}steps back " + "".join(f"{k:>9}" for k in distances)
    return [first, f"{margin}gradient   " + "".join(f"{share:>9.1e}" for share in shares)]


def make_plain(value: Any) -> Any:
    """Return what JSON can hold: a number that is not finite becomes a word."""
    if isinstance(value, dict):
        return {str(key): make_plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [make_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    """Run the command."""
    launch(run, "check_memory")


if __name__ == "__main__":
    main()

"""Play a trained agent: greedily and by sampling, with memory and with the memory cleared before every step.

python -m experiments.evaluate run=RUN_DIR episodes=100
"""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import build
from experiments.launch.check import ConfigError, convert
from experiments.launch.command import launch
from experiments.launch.evaluations import describe_cut, evaluate_agent
from experiments.launch.run_folder import load_run_config
from rl.checkpoint import find_newest, write_text
from rl.checks import positive, within


def run(config: DictConfig) -> float:
    """Print a table and write ``evaluation.json`` into the run folder.

    Returns:
        The mean return of greedy play with memory.
    """
    if config.run is None:
        raise ConfigError("run is missing: give run=RUN_DIR, the folder of a training run")
    episodes, seed = convert(config.episodes, int, "episodes"), convert(config.seed, int, "seed")
    zeroed = convert(config.memory_zeroed, bool, "memory_zeroed")
    max_steps = convert(config.max_steps, int | None, "max_steps")
    positive(episodes=episodes, **{} if max_steps is None else {"max_steps": max_steps})
    within(0, 2**31, seed=seed)
    stored = load_run_config(config.run, config.get("trust"))
    OmegaConf.update(stored, "device", config.device)
    if config.evaluation_envs is not None:
        OmegaConf.update(stored, "evaluation_envs", config.evaluation_envs)
    checkpoint, here = find_newest(config.run), Path.cwd()  # an environment may change the working folder
    with closing(build(stored, playing=True)) as parts:
        agent, envs = parts.agent, parts.evaluation_envs
        agent.load(here / checkpoint)
        parts.settings.set_threads()
        print(f"{agent.model_name} after {agent.env_steps} steps, {checkpoint}\n")
        print(f"{'policy':<10}{'memory':<10}{'mean return':>12}{'std. error':>12}{'episodes':>10}{'mean length':>13}")
        results, means, cut = [], [], []
        for greedy in (True, False):
            for memory in (True, False) if zeroed else (True,):
                policy, state = "greedy" if greedy else "sampled", "kept" if memory else "zeroed"
                options: dict[str, Any] = {"max_steps": max_steps, "progress": f"{policy}, memory {state}"}
                found = evaluate_agent(agent, envs, episodes, seed, memory=memory, greedy=greedy, **options)
                count, length = len(found.returns), float(found.lengths.mean())
                result = {"policy": policy, "memory": state, "mean": found.mean, "stderr": found.stderr}
                results.append(result | {"episodes": count, "episodes_cut": found.cut, "mean_length": length})
                means.append(found.mean)
                cut += [found] if found.cut else []
                print(f"{policy:<10}{state:<10}{found.mean:>12.3f}{found.stderr:>12.3f}{count:>10}{length:>13.1f}")
    if cut:
        print(f"\n{describe_cut(cut[0], 'max_steps', max_steps)}")
    write_text(here / config.run / "evaluation.json", json.dumps(results, indent=1))
    return means[0]


def main() -> None:
    """Run the command."""
    launch(run, "evaluate")


if __name__ == "__main__":
    main()

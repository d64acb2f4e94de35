"""Plays a trained agent: greedy and sampled, with memory and with the memory cleared before every step.

python -m experiments.evaluate run=RUN_DIR episodes=100
"""

import json
from contextlib import closing
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import build, load_run_config, play
from experiments.launch.check import ConfigError, converted
from experiments.launch.command import launch
from rl.checks import positive
from rl.training.run import checkpoint_path
from rl.training.threads import AUTO


def run(config: DictConfig) -> float:
    """Prints a table, writes ``evaluation.json`` into the run folder.

    Returns:
        The mean return of greedy play.
    """
    if config.run is None:
        raise ConfigError("run is missing: give run=RUN_DIR, the folder of a training run")
    episodes, seed = converted(config.episodes, int, "episodes"), converted(config.seed, int, "seed")
    positive(episodes=episodes)
    stored = load_run_config(config.run)
    OmegaConf.update(stored, "device", config.device)
    with closing(build(stored)) as parts:
        agent, envs, threads = parts.agent, parts.evaluation_envs, parts.settings["threads"]
        agent.load(checkpoint_path(config.run))
        torch.set_num_threads(1 if threads == AUTO else threads)
        print(f"{agent.model_name} after {agent.env_steps} steps, {config.run}\n")
        print(f"{'policy':<10}{'memory':<10}{'mean return':>12}{'std. error':>12}{'episodes':>10}{'mean length':>13}")
        results = []
        for greedy in (True, False):
            for memory in (True, False):
                played = play(agent, envs, episodes, seed, memory, greedy)
                policy, state = "greedy" if greedy else "sampled", "kept" if memory else "zeroed"
                row = {"policy": policy, "memory": state, "mean": played.mean, "stderr": played.stderr}
                results.append(row | {"episodes": len(played.returns), "mean_length": float(played.lengths.mean())})
                print(
                    f"{policy:<10}{state:<10}{played.mean:>12.3f}{played.stderr:>12.3f}{len(played.returns):>10}"
                    f"{played.lengths.mean():>13.1f}"
                )
    Path(config.run, "evaluation.json").write_text(json.dumps(results, indent=1))
    return results[0]["mean"]


def main() -> None:
    """The command."""
    launch(run, "evaluate")


if __name__ == "__main__":
    main()

"""Play a trained agent: greedily and by sampling, with memory and with the memory cleared before every step.

python -m experiments.evaluate run=RUN_DIR episodes=100
"""

import json
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import build, evaluate_agent
from experiments.launch.check import ConfigError, convert
from experiments.launch.command import launch
from experiments.launch.run_folder import load_run_config
from rl.checks import positive
from rl.training.run import checkpoint_path


def run(config: DictConfig) -> float:
    """Print a table and write ``evaluation.json`` into the run folder.

    Returns:
        The mean return of greedy play with memory.
    """
    if config.run is None:
        raise ConfigError("run is missing: give run=RUN_DIR, the folder of a training run")
    episodes, seed = convert(config.episodes, int, "episodes"), convert(config.seed, int, "seed")
    positive(episodes=episodes)
    stored = load_run_config(config.run)
    OmegaConf.update(stored, "device", config.device)
    with closing(build(stored)) as parts:
        agent, envs = parts.agent, parts.evaluation_envs
        agent.load(checkpoint_path(config.run))
        parts.settings.set_threads()
        print(f"{agent.model_name} after {agent.env_steps} steps, {config.run}\n")
        print(f"{'policy':<10}{'memory':<10}{'mean return':>12}{'std. error':>12}{'episodes':>10}{'mean length':>13}")
        results, means = [], []
        for greedy in (True, False):
            for memory in (True, False):
                found = evaluate_agent(agent, envs, episodes, seed, memory=memory, greedy=greedy)
                policy, state = "greedy" if greedy else "sampled", "kept" if memory else "zeroed"
                count, length = len(found.returns), float(found.lengths.mean())
                result = {"policy": policy, "memory": state, "mean": found.mean, "stderr": found.stderr}
                results.append(result | {"episodes": count, "mean_length": length})
                means.append(found.mean)
                print(f"{policy:<10}{state:<10}{found.mean:>12.3f}{found.stderr:>12.3f}{count:>10}{length:>13.1f}")
    Path(config.run, "evaluation.json").write_text(json.dumps(results, indent=1))
    return means[0]


def main() -> None:
    """Run the command."""
    launch(run, "evaluate")


if __name__ == "__main__":
    main()

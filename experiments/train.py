"""Train one agent on one environment.

python -m experiments.train agent=recurrent_ppo_lstm agent/core=gru env=t_maze env.length=30 seed=1
python -m experiments.train resume=RUN_DIR total_steps=1_000_000
python -m experiments.train init_from=RUN_DIR agent=recurrent_ppo_lstm agent/core=gru env=t_maze env.length=30
"""

import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import FINAL_SEED, Parts, build, evaluate_memory, tag_returns
from experiments.launch.check import ConfigError
from experiments.launch.command import launch
from experiments.launch.run_folder import flatten, load_resumed_config, name_core, write_result
from rl.agents import Population
from rl.training import Evaluation, Metrics, Trainer
from rl.training.run import checkpoint_path
from rl.types import Agent

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float:
    """Train, evaluate, fill the run folder.

    Returns:
        The mean return of the final greedy evaluation.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    resuming = config.resume is not None
    config = load_resumed_config(config, HydraConfig.get().overrides.task) if resuming else config
    if "imitation" in config:
        raise ConfigError(f"{config.resume} learned from a recording: go on with experiments.imitate, or init_from it")
    with closing(build(config)) as parts:
        if not resuming and config.init_from is not None:
            load_initial_network(parts.agent, config.init_from)
        return train(parts, run_dir, resuming)


def load_initial_network(agent: Agent, run_dir: str) -> None:
    """Give an agent the network of another run, and nothing else of it.

    Raises:
        ConfigError: there is none, or it is of another shape.
    """
    load_network = getattr(agent, "load_network", None)
    if load_network is None:
        raise ConfigError(f"init_from={run_dir}: {agent.model_name} has no single network to begin with")
    try:
        load_network(checkpoint_path(run_dir))
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"init_from={run_dir}: {error}") from error


def train(parts: Parts, run_dir: Path, resuming: bool) -> float:
    """Do what ``run`` does, with everything at hand."""
    agent, settings, config = parts.agent, parts.settings, parts.config

    def evaluate() -> dict[str, float]:
        kept, zeroed = evaluate_memory(agent, parts.evaluation_envs, settings.evaluate_episodes, settings.seed)
        members = average_by_member(agent, kept)
        return tag_returns(kept, zeroed) | {f"eval/{name}/episodic_return": mean for name, mean in members.items()}

    trainer = Trainer(
        agent,
        parts.envs,
        run_dir,
        settings.total_steps,
        seed=settings.seed,
        evaluate=evaluate,
        evaluate_every=settings.evaluate_every,
        threshold=settings.threshold,
        stop_at_threshold=settings.stop_at_threshold,
        checkpoint_every=settings.checkpoint_every,
        threads=settings.threads,
    )
    if resuming:
        trainer.resume()
    OmegaConf.save(config, run_dir / "config.yaml")
    with Metrics(run_dir, trainer.total_steps, agent.env_steps) as metrics:
        metrics.text("config", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}```")
        metrics.say(f"{agent.model_name} with {agent.num_parameters} parameters, run folder {run_dir}")
        finished = trainer.train(metrics)
        if not finished:
            metrics.say(f"stopped at step {agent.env_steps}; go on with resume={run_dir}")
        result = summarise(parts, trainer)
        metrics.hparams(flatten(config), {"eval_return_mean": result["eval_return_mean"]})
    write_result(run_dir, result)
    log.info(
        "return %(eval_return_mean).3f +- %(eval_return_stderr).3f over %(eval_episodes)d episodes after %(env_steps)d "
        "steps in %(training_seconds).1f s of training (memory zeroed: %(memory_zeroed_return_mean).3f)",
        result,
    )
    return result["eval_return_mean"]


def summarise(parts: Parts, trainer: Trainer) -> dict[str, Any]:
    """Return what ``result.json`` holds: the run, its cost, greedy evaluations on seeds that were not seen before."""
    agent, settings, config = parts.agent, parts.settings, parts.config
    task, threshold = parts.evaluation_envs.unwrapped, settings.threshold
    final_seed = settings.seed + FINAL_SEED
    kept, zeroed = evaluate_memory(agent, parts.evaluation_envs, settings.final_episodes, final_seed)
    end = {"env_steps": agent.env_steps, "seconds": trainer.seconds}
    end["solved"] = threshold is not None and kept.mean >= threshold
    hit = next((point for point in [*trainer.evaluations, end] if point["solved"]), {})
    return {
        "agent": agent.model_name,
        "core": name_core(config.agent),
        "env": config.env._target_.rpartition(".")[2],
        "seed": settings.seed,
        "parameters": agent.num_parameters,
        "threads": trainer.threads.number,
        "env_steps": agent.env_steps,
        "wall_seconds": trainer.wall_seconds,
        "training_seconds": trainer.seconds,
        "steps_per_second": agent.env_steps / max(trainer.seconds, 1e-9),
        "train_return_mean": trainer.recent_return,
        "eval_return_mean": kept.mean,
        "eval_return_stderr": kept.stderr,
        "eval_episodes": len(kept.returns),
        "memory_zeroed_return_mean": zeroed.mean,
        "member_return_means": average_by_member(agent, kept),
        "optimal_return": getattr(task, "optimal_return", None),
        "memoryless_return": getattr(task, "memoryless_return", None),
        "threshold": threshold,
        "steps_to_threshold": hit.get("env_steps"),
        "seconds_to_threshold": hit.get("seconds"),
        "total_steps": settings.total_steps,
        "evaluations": trainer.evaluations,
    }


def average_by_member(agent: Agent, evaluation: Evaluation) -> dict[str, float]:
    """Return the mean return of each member of a population; nothing for a single agent."""
    if not isinstance(agent, Population):
        return {}
    seats = np.array(agent.seats)[evaluation.rows % len(agent.seats)]
    return {name: float(evaluation.returns[seats == name].mean()) for name in agent.members}


def main() -> None:
    """Run the command."""
    launch(run, "train")


if __name__ == "__main__":
    main()

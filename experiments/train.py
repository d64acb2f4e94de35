"""Trains one agent on one environment.

python -m experiments.train agent=recurrent_ppo_lstm agent/core=gru env=t_maze env.length=30 seed=1
python -m experiments.train resume=RUN_DIR total_steps=1_000_000
python -m experiments.train init_from=RUN_DIR agent=recurrent_ppo_lstm agent/core=gru env=t_maze env.length=30
"""

import json
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import Parts, build, core_of, play, resumed
from experiments.launch.check import ConfigError
from experiments.launch.command import launch
from rl.checkpoint import atomic_write
from rl.training.evaluation import Evaluation
from rl.training.metrics import Metrics
from rl.training.run import checkpoint_path
from rl.training.trainer import Trainer

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float:
    """Trains, evaluates, fills the run folder.

    Returns:
        The mean return of the final greedy evaluation.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    resuming = config.resume is not None
    config = resumed(config, HydraConfig.get().overrides.task) if resuming else config
    if "imitation" in config:
        raise ConfigError(f"{config.resume} learned from a recording: go on with experiments.imitate, or init_from it")
    with closing(build(config)) as parts:
        if not resuming and config.init_from is not None:
            init(parts.agent, config.init_from)
        return train(parts, run_dir, resuming)


def init(agent: Any, run_dir: str) -> None:
    """Gives ``agent`` the network of another run; nothing else is taken over.

    Raises:
        ConfigError: there is none, or it is of another shape.
    """
    if not hasattr(agent, "load_network"):
        raise ConfigError(f"init_from={run_dir}: {agent.model_name} has no single network to begin with")
    try:
        agent.load_network(checkpoint_path(run_dir))
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"init_from={run_dir}: {error}") from error


def train(parts: Parts, run_dir: Path, resuming: bool) -> float:
    """What :func:`run` does, with everything at hand."""
    agent, evaluation_envs, settings, config = parts.agent, parts.evaluation_envs, parts.settings, parts.config

    def evaluation() -> dict[str, float]:
        played = play(agent, evaluation_envs, settings["evaluate_episodes"], settings["seed"])
        zeroed = play(agent, evaluation_envs, settings["evaluate_episodes"], settings["seed"], memory=False)
        return {
            "eval/episodic_return": played.mean,
            "eval/episodic_return_memory_zeroed": zeroed.mean,
            "diagnostics/memory_gap": played.mean - zeroed.mean,
            **{f"eval/{name}/episodic_return": mean for name, mean in by_member(agent, played).items()},
        }

    trainer = Trainer(
        agent,
        parts.envs,
        run_dir,
        settings["total_steps"],
        seed=settings["seed"],
        evaluate=evaluation,
        evaluate_every=settings["evaluate_every"],
        threshold=settings["threshold"],
        stop_at_threshold=settings["stop_at_threshold"],
        checkpoint_every=settings["checkpoint_every"],
        threads=settings["threads"],
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
        result = summary(config, settings, trainer, evaluation_envs)
        metrics.hparams(flat(config), {"eval_return_mean": result["eval_return_mean"]})
    with atomic_write(run_dir / "result.json") as file:
        file.write(json.dumps(result, indent=1).encode())
    log.info(
        "return %(eval_return_mean).3f +- %(eval_return_stderr).3f over %(eval_episodes)d episodes after %(env_steps)d "
        "steps in %(training_seconds).1f s of training (memory zeroed: %(memory_zeroed_return_mean).3f)",
        result,
    )
    return result["eval_return_mean"]


def summary(config: DictConfig, settings: dict[str, Any], trainer: Trainer, evaluation_envs: Any) -> dict[str, Any]:
    """What ``result.json`` holds: the run, its cost, and greedy evaluations on seeds that were not seen before."""
    agent, task, episodes = trainer.agent, evaluation_envs.unwrapped, settings["final_episodes"]
    final_seed = settings["seed"] + 1000
    played = play(agent, evaluation_envs, episodes, final_seed)
    zeroed = play(agent, evaluation_envs, episodes, final_seed, memory=False)
    threshold = settings["threshold"]
    end = {"env_steps": agent.env_steps, "seconds": trainer.seconds}
    end["solved"] = threshold is not None and played.mean >= threshold
    hit = next((point for point in [*trainer.evaluations, end] if point["solved"]), {})
    return {
        "agent": agent.model_name,
        "core": core_of(config.agent),
        "env": config.env._target_.rpartition(".")[2],
        "seed": settings["seed"],
        "parameters": agent.num_parameters,
        "threads": trainer.threads.number,
        "env_steps": agent.env_steps,
        "wall_seconds": trainer.wall_seconds,
        "training_seconds": trainer.seconds,
        "steps_per_second": agent.env_steps / max(trainer.seconds, 1e-9),
        "train_return_mean": trainer.recent_return,
        "eval_return_mean": played.mean,
        "eval_return_stderr": played.stderr,
        "eval_episodes": len(played.returns),
        "memory_zeroed_return_mean": zeroed.mean,
        "member_return_means": by_member(agent, played),
        "optimal_return": getattr(task, "optimal_return", None),
        "memoryless_return": getattr(task, "memoryless_return", None),
        "threshold": threshold,
        "steps_to_threshold": hit.get("env_steps"),
        "seconds_to_threshold": hit.get("seconds"),
        "total_steps": settings["total_steps"],
        "evaluations": trainer.evaluations,
    }


def by_member(agent: Any, played: Evaluation) -> dict[str, float]:
    """Mean return of each member of a population; empty for a single agent."""
    names = list(getattr(agent, "members", ()))
    seats = np.array(agent.seats)[played.rows % len(agent.seats)] if names else None
    return {name: float(played.returns[seats == name].mean()) for name in names}


def flat(config: DictConfig) -> dict[str, Any]:
    """The configuration as one level, ``agent.core.hidden_size`` and so on."""

    def walk(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        parts = ({f"{prefix}{k}": v} if not isinstance(v, dict) else walk(v, f"{prefix}{k}.") for k, v in node.items())
        return {key: value for part in parts for key, value in part.items()}

    return walk(OmegaConf.to_container(config, resolve=True))


def main() -> None:
    """The command."""
    launch(run, "train")


if __name__ == "__main__":
    main()

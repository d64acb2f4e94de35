"""Train one agent on one environment.

python -m experiments.train agent=recurrent_ppo_lstm agent/core=gru env=t_maze env.length=30 seed=1
python -m experiments.train resume=RUN_DIR total_steps=1_000_000
python -m experiments.train init_from=RUN_DIR agent=recurrent_ppo_lstm agent/core=gru env=t_maze env.length=30
"""

import logging
import math
from contextlib import ExitStack, chdir, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import Parts, build, read_settings
from experiments.launch.card import PICTURE, list_versions, write_card
from experiments.launch.check import ConfigError, convert
from experiments.launch.claim import RunFolder, tell_how_to_go_on
from experiments.launch.command import launch
from experiments.launch.evaluations import Evaluations, average_by_member, describe_final, summarise_final
from experiments.launch.ranks import claim_run
from experiments.launch.run_folder import flatten, name_core, name_encoder, name_env, write_config, write_result
from rl.checkpoint import find_newest
from rl.shards import ALONE, Shards
from rl.training import Metrics, Trainer
from rl.training.distributed import Ranks
from rl.training.metrics import Mute
from rl.training.sharing import join
from rl.training.signals import Stopped
from rl.types import Agent

log = logging.getLogger(__name__)


def run(config: DictConfig, overrides: list[str] | None = None) -> float:
    """Train, evaluate, fill the run folder.

    Args:
        config: composed from ``conf/train.yaml``.
        overrides: what of it the user has set, which a resumed run takes over; None for what the command line says.

    Returns:
        The mean return of the final greedy evaluation; with ``final_episodes=0`` that of the last 100 training
        episodes, NaN if none has ended.

    Raises:
        ConfigError, ValueError, OSError: it cannot be run, or not in that folder.
        Stopped: a signal has ended it; what was learned is saved.
    """
    here = Path.cwd()
    with Ranks(convert(config.rank_timeout, float, "rank_timeout")) as ranks, ExitStack() as opened:
        config, run_dir, claimed = claim_run(config, overrides, ranks, opened)
        resuming = config.resume is not None
        shards = ranks.deal(read_settings(config).shards or 1)
        parts = [opened.enter_context(closing(build(config, shards=shard))) for shard in shards]
        for part in parts:
            part.settings = replace(part.settings, threads=ranks.share_cores(part.settings.threads))
            if not resuming and config.init_from is not None:
                with chdir(here):  # an environment may have changed it
                    load_initial_network(part.agent, config.init_from)
        if shards[0].index == 0:
            parts[0].add_observers()
        works = [
            partial(train, part, run_dir, resuming, claimed if shard.index == 0 else None, shard)
            for part, shard in zip(parts, shards, strict=True)
        ]
        return ranks.run(works, shards)


def load_initial_network(agent: Agent, run_dir: str) -> None:
    """Give an agent the network of another run, and nothing else of it.

    Raises:
        ConfigError: there is none, or it is of another shape.
    """
    load_network = getattr(agent, "load_network", None)
    if load_network is None:
        raise ConfigError(f"init_from={run_dir}: {agent.model_name} has no single network to begin with")
    try:
        load_network(find_newest(run_dir))
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"init_from={run_dir}: {error}") from error


def train(
    parts: Parts, run_dir: Path, resuming: bool, folder: RunFolder | None = None, shards: Shards = ALONE
) -> float:
    """Do what ``run`` does, with everything at hand.

    Args:
        parts: what to train.
        run_dir: the folder to fill.
        resuming: go on from its checkpoint.
        folder: the same folder, if it was claimed.
        shards: of the run, of which ``parts`` are those of one; the first one reports and writes.

    Returns:
        The mean return of the final greedy evaluation.

    Raises:
        Stopped: a signal has ended it; what was learned is saved.
    """
    agent, settings, config = parts.agent, parts.settings, parts.config
    if shards.size > 1:
        join(agent, shards)
    evaluations = Evaluations(agent, parts.evaluation_envs, settings, shards)
    trainer = make_trainer(parts, run_dir, evaluations, shards)
    if resuming:
        trainer.resume()
    begun = agent.env_steps
    if folder is not None:
        folder.begin("train.log")
    leads = shards.index == 0
    if leads:
        write_config(run_dir, config)
    with Metrics(run_dir, trainer.total_steps, agent.env_steps, parts.observers) if leads else Mute() as metrics:
        metrics.text("config", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}```")
        metrics.observers.begin(trainer, flatten(config))
        metrics.say(f"{agent.model_name} with {agent.num_parameters} parameters, run folder {run_dir}")
        for line in agent.describe():
            metrics.say(line)
        if parts.lends_envs and (settings.evaluate_every or settings.final_episodes):
            metrics.say("evaluations borrow the environments of training, whose open episodes are cut for it")
        if resuming and begun >= trainer.total_steps:
            steps = f"it has the {begun} steps asked for; total_steps=MORE goes on"
            metrics.say(f"nothing is left to train: {steps}. Its final evaluation is played again")
        evaluations.say = metrics.say
        trainer.train(metrics)
        if trainer.stopped_by is not None:
            raise Stopped(trainer.stopped_by, f"at step {agent.env_steps}; {tell_how_to_go_on('resume', run_dir)}")
        with trainer.watch(metrics):
            result = summarise(parts, trainer, evaluations)
        mean = result["eval_return_mean"]
        metrics.hparams(flatten(config), {} if mean is None else {"eval_return_mean": mean})
        metrics.observers.end(result)
    if leads:
        write_result(run_dir, result, config)
        drawn = agent.env_steps == begun and (run_dir / PICTURE).is_file()
        write_card(run_dir, config, result, None if drawn else "`python -m experiments.card run=THIS_FOLDER` draws it.")
    share = trainer.evaluation_seconds / max(trainer.wall_seconds, 1e-9)
    log.info(
        f"{describe_final(result)}, after {agent.env_steps} steps in {trainer.seconds:.1f} s of training; evaluations "
        f"before it took {trainer.evaluation_seconds:.1f} s, {share:.0%} of the time"
    )
    if mean is not None:
        return float(mean)
    return math.nan if trainer.recent_return is None else trainer.recent_return


def make_trainer(parts: Parts, run_dir: Path, evaluations: Evaluations, shards: Shards) -> Trainer:
    """Return the trainer that the settings of a run describe."""
    settings = parts.settings
    # where more than curves depends on evaluations, they do not depend on the clock
    ends_early = settings.threshold is not None or settings.stop_at_threshold or settings.patience is not None
    fixed = parts.lends_envs or ends_early
    return Trainer(
        parts.agent,
        parts.envs,
        run_dir,
        settings.total_steps,
        seed=settings.seed,
        evaluate=evaluations.play_between,
        evaluate_every=settings.evaluate_every,
        evaluation_share=None if fixed else settings.evaluation_share,
        lends_envs=parts.lends_envs,
        threshold=settings.threshold,
        stop_at_threshold=settings.stop_at_threshold,
        patience=settings.patience,
        min_delta=settings.min_delta,
        max_seconds=settings.max_seconds,
        checkpoint_every=settings.checkpoint_every,
        threads=settings.threads,
        env_timeout=settings.env_timeout,
        shards=shards,
    )


def summarise(parts: Parts, trainer: Trainer, evaluations: Evaluations) -> dict[str, Any]:
    """Return what ``result.json`` holds: the run, its cost, greedy evaluations on seeds that were not seen before."""
    agent, settings, config = parts.agent, parts.settings, parts.config
    task, threshold = parts.evaluation_envs.unwrapped, settings.threshold
    try:
        kept, zeroed = evaluations.play_final()
    except Stopped as stop:
        hint = tell_how_to_go_on("resume", trainer.run_dir)
        raise Stopped(stop.number, f"in the final evaluation; training is complete, {hint}") from stop
    end: dict[str, Any] = {"env_steps": agent.env_steps, "seconds": trainer.seconds}
    end["solved"] = threshold is not None and kept is not None and kept.mean >= threshold
    hit = next((point for point in [*trainer.evaluations, end] if point["solved"]), {})
    return {
        "agent": agent.model_name,
        "core": name_core(config.agent),
        "encoder": name_encoder(config.agent),
        "env": name_env(config.env),
        "seed": settings.seed,
        "parameters": agent.num_parameters,
        "threads": trainer.threads.number,
        "env_steps": agent.env_steps,
        "stop_reason": trainer.stop_reason,
        "wall_seconds": trainer.wall_seconds,
        "training_seconds": trainer.seconds,
        "evaluation_seconds": trainer.evaluation_seconds,
        "steps_per_second": agent.env_steps / max(trainer.seconds, 1e-9),
        "train_return_mean": trainer.recent_return,
        **summarise_final(kept, zeroed),
        "member_return_means": {} if kept is None else average_by_member(agent, kept),
        "optimal_return": getattr(task, "optimal_return", None),
        "memoryless_return": getattr(task, "memoryless_return", None),
        "threshold": threshold,
        "steps_to_threshold": hit.get("env_steps"),
        "seconds_to_threshold": hit.get("seconds"),
        "total_steps": settings.total_steps,
        "evaluations": trainer.evaluations,
        "versions": list_versions(),
    }


def main() -> None:
    """Run the command."""
    launch(run, "train")


if __name__ == "__main__":
    main()

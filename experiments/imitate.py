"""Teach an agent what a recording holds: supervised training of the network that PPO can go on with.

python -m experiments.imitate data=recordings/t_maze env=t_maze env.length=30 agent=recurrent_ppo_lstm agent/core=gru
python -m experiments.imitate data=game.slp agent/core=gru agent.previous_action_reward=true imitation.split=time
python -m experiments.imitate resume=RUN_DIR imitation.epochs=40
"""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from envs.wrapping import change_rewards
from experiments.launch.arguments import load_defaults
from experiments.launch.build import SETTINGS, Settings, build, read_settings
from experiments.launch.check import ConfigError, construct, read_list, to_dict
from experiments.launch.claim import RunFolder, claim_folder, read_overrides, tell_how_to_go_on
from experiments.launch.command import launch
from experiments.launch.escape import to_config
from experiments.launch.evaluations import Evaluations, describe_final, summarise_final
from experiments.launch.run_folder import (
    flatten,
    load_resumed_config,
    name_agent,
    name_core,
    name_encoder,
    name_env,
    write_config,
    write_result,
)
from rl.agents import RecurrentPPO
from rl.recordings import ImitationTrainer, Imitator
from rl.recordings.minari_data import read_minari
from rl.recordings.recording import Recording
from rl.recordings.slippi import list_slippi_files, read_slippi
from rl.training.metrics import Metrics
from rl.training.signals import Stopped

log = logging.getLogger(__name__)


def run(config: DictConfig, overrides: list[str] | None = None) -> float:
    """Learn, evaluate, fill the run folder.

    Args:
        config: composed from ``conf/imitate.yaml``.
        overrides: what of it the user has set, which a resumed run takes over; None for what the command line says.

    Returns:
        The loss on what was held out, in nats a step.

    Raises:
        ConfigError, ValueError, OSError: it cannot be run, or not in that folder.
        Stopped: a signal has ended it; what was learned is saved.
    """
    resuming = config.resume is not None
    with claim_folder("imitate", config, f"imitate-{name_agent(config.get('agent'))}-seed{config.seed}") as folder:
        if resuming:
            config = load_resumed_config(
                config, read_overrides("imitate", f"resume={config.resume}") if overrides is None else overrides
            )
        else:
            config = add_training_keys(config)
        return imitate(config, resuming, folder)


def imitate(config: DictConfig, resuming: bool, folder: RunFolder) -> float:
    """Do what ``run`` does, with the whole configuration and the folder at hand."""
    if config.get("data") is None:
        raise ConfigError("data is missing: give data=FOLDER, a Minari data set, or data=GAME.slp")
    settings = read_settings(config)
    hyperparameters, node = construct(config.imitation, "imitation")
    recording = read_recording(read_list(config.data, "data"))
    with ExitStack() as opened:
        settings.set_threads()
        agent, envs, config = build_agent(config, recording, settings, opened)
        config = to_config(to_dict(config) | {"imitation": node})
        told = None if envs is None else change_rewards(envs, recording.rewards).astype(np.float32)
        evaluations = None if envs is None else Evaluations(agent, envs, settings)
        trainer = ImitationTrainer(
            Imitator(agent, recording, hyperparameters, settings.seed, told),
            folder.path,
            None if evaluations is None else evaluations.play_between,
            settings.evaluate_every,
        )
        if resuming:
            trainer.resume()
        folder.begin("train.log")
        return teach(trainer, evaluations, settings, config, folder.path)


def add_training_keys(config: DictConfig) -> DictConfig:
    """Add the keys at the top of ``train.yaml`` that PPO will need, and ``env: null`` where there is none."""
    defaults = load_defaults("train")
    more = {key: defaults[key] for key in SETTINGS if key not in config}
    return to_config({"env": None, **more, **to_dict(config)})


def read_recording(names: list[Any]) -> Recording:
    """Read Slippi games, or one Minari data set.

    Raises:
        ConfigError: there are several data sets, or games and a data set.
    """
    games = {str(name): list_slippi_files(str(name)) for name in names}
    if not any(games.values()):
        if len(names) > 1:
            raise ConfigError(f"data names {len(names)} data sets: give one, or .slp files")
        return read_minari(str(names[0]))
    for name, files in games.items():
        if not files:
            raise ConfigError(f"data={name}: it must be a .slp file or a folder of them, as the other data are")
    return read_slippi([file for files in games.values() for file in files])


def build_agent(
    config: DictConfig, recording: Recording, settings: Settings, opened: ExitStack
) -> tuple[RecurrentPPO, VectorEnv | None, DictConfig]:
    """Construct the agent and, where ``env`` is given, environments to play in.

    Args:
        config: of the command.
        recording: has the spaces of the agent.
        settings: the keys at the top of ``config``.
        opened: closes the environments in the end.

    Returns:
        The agent, the environments or None, and the configuration with all defaults filled in.

    Raises:
        ConfigError: the environment has other spaces than the recording, or the agent is of another kind.
    """
    agent: object
    envs: VectorEnv | None = None
    if config.env is None:
        runtime = settings.get_agent_arguments()
        runtime |= {"observation_space": recording.observation_space, "action_space": recording.action_space}
        if "action_names" not in config.agent:
            runtime["action_names"] = recording.action_names
        agent, node = construct(config.agent, "agent", **runtime)
        config = to_config(to_dict(config) | {"agent": node})
    else:
        parts = build(config, playing=True)
        opened.callback(parts.close)
        agent, envs, config = parts.agent, parts.evaluation_envs, parts.config
        check_spaces(recording, envs)
    if not isinstance(agent, RecurrentPPO):
        name = getattr(agent, "model_name", type(agent).__name__)
        raise ConfigError(f"{name} cannot learn from recordings: choose agent=recurrent_ppo_lstm")
    return agent, envs, config


def check_spaces(recording: Recording, envs: VectorEnv) -> None:
    """Check that environments have the spaces of a recording.

    Raises:
        ConfigError: one of them is another.
    """
    pairs = {
        "observation": (recording.observation_space, envs.single_observation_space),
        "action": (recording.action_space, envs.single_action_space),
    }
    for name, (recorded, given) in pairs.items():
        if recorded != given:
            raise ConfigError(f"the recording has the {name} space {recorded}, but the environment has {given}")


def teach(
    trainer: ImitationTrainer, evaluations: Evaluations | None, settings: Settings, config: DictConfig, run_dir: Path
) -> float:
    """Do what ``run`` does, with everything at hand; ``evaluations`` are None where there is no environment."""
    imitator = trainer.imitator
    agent, total = imitator.agent, imitator.hyperparameters.epochs * trainer.steps_per_epoch
    write_config(run_dir, config)
    with Metrics(run_dir, total, trainer.epochs_done * trainer.steps_per_epoch) as metrics:
        metrics.text("config", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}```")
        metrics.say(
            f"{agent.model_name} with {agent.num_parameters} parameters, {len(imitator.train_steps)} steps to learn "
            f"from, {len(imitator.held_steps)} held out, run folder {run_dir}"
        )
        for line in agent.describe():
            metrics.say(line)
        if evaluations is not None:
            evaluations.say = metrics.say
        trainer.train(metrics)
        if trainer.stopped_by is not None:
            hint = tell_how_to_go_on("resume", run_dir)
            raise Stopped(trainer.stopped_by, f"after epoch {trainer.epochs_done}; {hint}")
        result = summarise(trainer, evaluations, settings, config)
        metrics.hparams(flatten(config), {"held_out_nll": result["held_out_nll"]})
    write_result(run_dir, result, config)
    line = f"loss {result['held_out_nll']:.4f} nats a step, repeating the last action {result['repeat_nll']:.4f}, "
    line += f"after {result['epochs']} epochs"
    if evaluations is not None:
        line += f"; {describe_final(result)}, of the recording {result['expert_return_mean']:.3f}"
    log.info(line)
    return result["held_out_nll"]


def summarise(
    trainer: ImitationTrainer, evaluations: Evaluations | None, settings: Settings, config: DictConfig
) -> dict[str, Any]:
    """Return what ``result.json`` holds; returns of the agent only where there is an environment to play in."""
    imitator, agent = trainer.imitator, trainer.imitator.agent
    result = {
        "agent": agent.model_name,
        "core": name_core(config.agent),
        "encoder": name_encoder(config.agent),
        "env": None if evaluations is None else name_env(config.env),
        "data": to_dict(config)["data"],
        "seed": settings.seed,
        "parameters": agent.num_parameters,
        "epochs": trainer.epochs_done,
        "best_epoch": trainer.best_epoch,
        "training_seconds": trainer.seconds,
        "expert_return_mean": float(imitator.recording.returns.mean()),
        **imitator.summarise(),
        "history": trainer.history,
    }
    if evaluations is not None:
        result |= summarise_final(*evaluations.play_final())
    return result


def main() -> None:
    """Run the command."""
    launch(run, "imitate")


if __name__ == "__main__":
    main()

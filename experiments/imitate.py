"""Teaches an agent what a recording holds: supervised training of the network that PPO can go on with.

python -m experiments.imitate data=recordings/t_maze env=t_maze env.length=30 agent=recurrent_ppo_lstm agent/core=gru
python -m experiments.imitate data=game.slp agent/core=gru agent.previous_action_reward=true imitation.split=time
python -m experiments.imitate resume=RUN_DIR imitation.epochs=40
"""

import json
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import conf
from experiments.launch.build import SETTINGS, build, core_of, play, read_settings, resumed
from experiments.launch.check import ConfigError, construct, listed
from experiments.launch.command import launch
from experiments.train import flat
from rl.agents import RecurrentPPO
from rl.checkpoint import atomic_write
from rl.recordings import ImitationTrainer, Imitator
from rl.recordings.recording import Recording, read_minari
from rl.recordings.slippi import list_slippi_files, read_slippi
from rl.training.metrics import Metrics
from rl.training.threads import AUTO

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float:
    """Learns, evaluates, fills the run folder.

    Returns:
        The loss on what was held out, in nats a step.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    resuming = config.resume is not None
    config = resumed(config, HydraConfig.get().overrides.task) if resuming else completed(config)
    if config.get("data") is None:
        raise ConfigError("data is missing: give data=FOLDER, a Minari data set, or data=GAME.slp")
    settings = read_settings(config)
    how, node = construct(config.imitation, "imitation")
    recording = read(listed(config.data, "data"))
    with ExitStack() as opened:
        agent, envs, config = parts(config, recording, settings, opened)
        torch.set_num_threads(1 if settings["threads"] == AUTO else settings["threads"])
        config = OmegaConf.merge(config, {"imitation": node})
        trainer = ImitationTrainer(
            Imitator(agent, recording, how, settings["seed"]),
            run_dir,
            None if envs is None else lambda: played(agent, envs, settings),
            settings["evaluate_every"],
        )
        if resuming:
            trainer.resume()
        return teach(trainer, envs, settings, config, run_dir)


def completed(config: DictConfig) -> DictConfig:
    """With the keys at the top of ``train.yaml`` that PPO will need, and ``env: null`` where there is none."""
    defaults = OmegaConf.load(Path(conf.__file__).parent / "train.yaml")
    more = {key: defaults[key] for key in SETTINGS if key not in config}
    return OmegaConf.create({"env": None, **more, **OmegaConf.to_container(config, resolve=True)})


def read(names: list[Any]) -> Recording:
    """Slippi games, or one Minari data set.

    Raises:
        ConfigError: several data sets.
    """
    games = [game for name in names for game in list_slippi_files(str(name))]
    if games:
        return read_slippi(games)
    if len(names) > 1:
        raise ConfigError(f"data names {len(names)} data sets: give one, or .slp files")
    return read_minari(str(names[0]))


def parts(
    config: DictConfig, recording: Recording, settings: dict[str, Any], opened: ExitStack
) -> tuple[Any, Any, DictConfig]:
    """The agent, environments to play in (None without ``env``), and the configuration with all defaults filled in.

    Raises:
        ConfigError: the environment has other spaces than the recording, or the agent is of another kind.
    """
    if config.env is None:
        runtime = {name: settings[name] for name in ("num_envs", "num_steps", "total_steps", "seed", "device")}
        runtime |= {"observation_space": recording.observation_space, "action_space": recording.action_space}
        if "action_names" not in config.agent:
            runtime["action_names"] = recording.action_names
        agent, node = construct(config.agent, "agent", **runtime)
        envs = None
        config = OmegaConf.create(OmegaConf.to_container(config, resolve=True) | {"agent": node})
    else:
        built = build(config)
        opened.callback(built.close)
        agent, envs, config = built.agent, built.evaluation_envs, built.config
        pairs = {
            "observation": (recording.observation_space, envs.single_observation_space),
            "action": (recording.action_space, envs.single_action_space),
        }
        for name, (recorded, given) in pairs.items():
            if recorded != given:
                raise ConfigError(f"the recording has the {name} space {recorded}, but the environment has {given}")
    if not isinstance(agent, RecurrentPPO):
        raise ConfigError(f"{agent.model_name} cannot learn from recordings: choose agent=recurrent_ppo_lstm")
    return agent, envs, config


def played(agent: Any, envs: Any, settings: dict[str, Any], final: bool = False) -> dict[str, float]:
    """Greedy returns by TensorBoard tag, with memory and without, and the standard error of the first."""
    episodes = settings["final_episodes" if final else "evaluate_episodes"]
    seed = settings["seed"] + (1000 if final else 0)
    kept, zeroed = (play(agent, envs, episodes, seed, memory=memory) for memory in (True, False))
    values = {"eval/episodic_return": kept.mean, "eval/episodic_return_memory_zeroed": zeroed.mean}
    values["diagnostics/memory_gap"] = kept.mean - zeroed.mean
    return values | ({"stderr": kept.stderr, "episodes": len(kept.returns)} if final else {})


def teach(trainer: ImitationTrainer, envs: Any, settings: dict[str, Any], config: DictConfig, run_dir: Path) -> float:
    """What :func:`run` does, with everything at hand."""
    imitator = trainer.imitator
    agent, total = imitator.agent, imitator.hyperparameters.epochs * trainer.steps_per_epoch
    OmegaConf.save(config, run_dir / "config.yaml")
    with Metrics(run_dir, total, trainer.epochs_done * trainer.steps_per_epoch) as metrics:
        metrics.text("config", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}```")
        metrics.say(
            f"{agent.model_name} with {agent.num_parameters} parameters, {len(imitator.train_steps)} steps to learn "
            f"from, {len(imitator.held_steps)} held out, run folder {run_dir}"
        )
        if not trainer.train(metrics):
            metrics.say(f"stopped after epoch {trainer.epochs_done}; go on with resume={run_dir}")
        result = summary(trainer, envs, settings, config)
        metrics.hparams(flat(config), {"held_out_nll": result["held_out_nll"]})
    with atomic_write(run_dir / "result.json") as file:
        file.write(json.dumps(result, indent=1).encode())
    line = "loss %(held_out_nll).4f nats a step, repeating the last action %(repeat_nll).4f, after %(epochs)d epochs"
    if envs is not None:
        line += "; return %(eval_return_mean).3f (memory zeroed %(memory_zeroed_return_mean).3f), "
        line += "of the recording %(expert_return_mean).3f"
    log.info(line, result)
    return result["held_out_nll"]


def summary(trainer: ImitationTrainer, envs: Any, settings: dict[str, Any], config: DictConfig) -> dict[str, Any]:
    """What ``result.json`` holds."""
    imitator, agent = trainer.imitator, trainer.imitator.agent
    result = {
        "agent": agent.model_name,
        "core": core_of(config.agent),
        "env": None if envs is None else config.env._target_.rpartition(".")[2],
        "data": OmegaConf.to_container(config)["data"],
        "seed": settings["seed"],
        "parameters": agent.num_parameters,
        "epochs": trainer.epochs_done,
        "best_epoch": trainer.best_epoch,
        "training_seconds": trainer.seconds,
        "expert_return_mean": float(imitator.recording.returns.mean()),
        **imitator.summarise(),
        "history": trainer.history,
    }
    if envs is not None:
        values = played(agent, envs, settings, final=True)
        result |= {
            "eval_return_mean": values["eval/episodic_return"],
            "eval_return_stderr": values["stderr"],
            "eval_episodes": values["episodes"],
            "memory_zeroed_return_mean": values["eval/episodic_return_memory_zeroed"],
        }
    return result


def main() -> None:
    """The command."""
    launch(run, "imitate")


if __name__ == "__main__":
    main()

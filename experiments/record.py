"""Plays a trained agent or a scripted player and writes the episodes as a Minari data set.

python -m experiments.record run=RUN_DIR episodes=1000 output=recordings/mine
python -m experiments.record player=envs.players.TMazeExpert env=t_maze env.length=30 output=recordings/t_maze
"""

import importlib
import logging
import re
import shutil
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from envs.workers import close
from experiments.launch.build import EVALUATION_ENVS, EVALUATION_SEED, build, load_run_config
from experiments.launch.check import ConfigError, construct, converted
from experiments.launch.command import launch
from rl.checks import positive, within
from rl.recordings.recording import import_minari
from rl.training.run import checkpoint_path
from rl.training.stepping import VectorEnvAdapter

log = logging.getLogger(__name__)
MINARI_ID = re.compile(r"[\w-]+(/[\w-]+)*-v\d+")


class Scripted:
    """A scripted player with the calls of an :class:`rl.agents.actor.Actor`."""

    def __init__(self, player: Any, num_envs: int):
        self.player, self.starts = player, np.ones(num_envs, dtype=bool)

    def play(self, obs: Any, greedy: bool = True) -> np.ndarray:
        """Actions ``[B, ...]``."""
        return self.player(obs, self.starts)

    def outcome(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """What came of them."""
        self.starts = ended.copy()


def run(config: DictConfig) -> float:
    """Writes the data set.

    Returns:
        The mean return of its episodes.
    """
    minari = import_minari()
    episodes, seed = converted(config.episodes, int, "episodes"), converted(config.seed, int, "seed")
    greedy, output = converted(config.greedy, bool, "greedy"), converted(config.output, str, "output")
    positive(episodes=episodes)
    within(0, 2**31, seed=seed)
    if (config.run is None) == (config.player is None):
        raise ConfigError("give either run=RUN_DIR, a trained agent, or player=DOTTED.PATH with env=NAME")
    folder = destination(minari, output)
    with ExitStack() as opened:
        if config.run is not None:
            stored = load_run_config(config.run)
            OmegaConf.update(stored, "device", config.device)
            parts = build(stored)
            opened.callback(parts.close)
            parts.agent.load(checkpoint_path(config.run))
            parts.agent.training = False
            envs, who = parts.evaluation_envs, f"{parts.agent.model_name}, {'greedy' if greedy else 'sampled'}"
            player = parts.agent.new_actor(envs.num_envs, seed)
        else:
            if config.get("env") is None:
                raise ConfigError("env is missing: player needs env=NAME")
            envs, _ = construct(config.env, "env", num_envs=EVALUATION_ENVS)
            opened.callback(close, envs)
            player, who = Scripted(made(config.player, envs), envs.num_envs), config.player
        played = play(player, envs, episodes, EVALUATION_SEED + seed, greedy)
    write(minari, folder, output, envs, played, who)
    returns = [float(np.sum(episode["rewards"])) for episode in played]
    steps = sum(len(episode["rewards"]) for episode in played)
    log.info("%d episodes, %d steps, mean return %.3f, in %s", episodes, steps, np.mean(returns), folder.parent)
    return float(np.mean(returns))


def destination(minari: Any, output: str) -> Path:
    """The folder of the arrays: an id such as ``t_maze/expert-v0`` lies where Minari looks for it.

    Raises:
        ConfigError: something is there already.
    """
    base = minari.storage.get_dataset_path(output) if MINARI_ID.fullmatch(output) else Path(output)
    if base.exists() and (not base.is_dir() or any(base.iterdir())):
        raise ConfigError(f"output={output}: {base} is there already")
    return base.resolve() / "data"  # Minari joins a relative path twice


def made(path: str, envs: VectorEnv) -> Any:
    """The player under a dotted path, built with the environment.

    Raises:
        ConfigError: there is none.
    """
    module, _, name = str(path).rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"player={path} cannot be imported: {error}") from error
    return target(envs)


def play(player: Any, envs: VectorEnv, episodes: int, seed: int, greedy: bool) -> list[dict[str, Any]]:
    """Whole episodes, as many in each environment so that short ones are not over-represented, then the first N.

    Each holds ``observations`` (one more than there are actions), ``actions``, ``rewards``, ``terminations`` and
    ``truncations``.
    """
    stepper = VectorEnvAdapter(envs, final_obs_of_terminated=True)
    quota = -(-episodes // envs.num_envs)
    done: list[list[dict[str, Any]]] = [[] for _ in range(envs.num_envs)]
    steps: list[list[tuple]] = [[] for _ in range(envs.num_envs)]
    obs = stepper.reset(seed)
    while min(map(len, done)) < quota:
        actions = player.act(obs, greedy)
        after = stepper.step(actions)
        player.observe(after.rewards, after.ended)
        for row in np.flatnonzero(~after.ignored):
            ends = after.terminated[row], after.truncated[row]
            steps[row].append((one(obs, row), np.asarray(actions)[row], after.rewards[row], *ends))
            if any(ends):
                done[row].append(episode_of(steps[row], one(after.final_obs, row)))
                steps[row] = []
        obs = after.obs
    return [row[number] for number in range(quota) for row in done][:episodes]


def one(obs: Any, row: int) -> Any:
    """The observation of one environment, copied."""
    if isinstance(obs, dict):
        return {key: one(part, row) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(one(part, row) for part in obs)
    return np.array(obs[row])


def stacked(observations: list[Any]) -> Any:
    """Observations as arrays ``[T + 1, ...]``, of the kind of the first."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: stacked([obs[key] for obs in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(stacked([obs[i] for obs in observations]) for i in range(len(first)))
    return np.stack(observations)


def episode_of(steps: list[tuple], final: Any) -> dict[str, Any]:
    """The fields of a Minari episode."""
    observations, actions, rewards, terminated, truncated = zip(*steps, strict=True)
    arrays = {"actions": actions, "rewards": rewards, "terminations": terminated, "truncations": truncated}
    return {"observations": stacked([*observations, final])} | {key: np.stack(part) for key, part in arrays.items()}


def write(minari: Any, folder: Path, name: str, envs: VectorEnv, episodes: list[dict[str, Any]], who: str) -> None:
    """A Minari data set; images are kept as they are, not as JPEG. A broken attempt leaves nothing behind."""
    space, actions = envs.single_observation_space, envs.single_action_space
    plain = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    if not isinstance(actions, plain):
        raise ConfigError(f"actions of {actions} cannot be recorded: use Box, Discrete, MultiDiscrete or MultiBinary")
    folder.mkdir(parents=True)
    try:
        storage = minari.dataset.minari_dataset.MinariStorage.new(
            folder, space, actions, data_format="hdf5", jpeg_encoding=False
        )
        buffers = [minari.data_collector.EpisodeBuffer(id=i, **episode) for i, episode in enumerate(episodes)]
        storage.update_episodes(buffers)
        label = re.sub(r"[^\w-]+", "_", name).strip("_") or "recording"
        identity = name if MINARI_ID.fullmatch(name) else f"{label}-v0"
        facts = {"dataset_id": identity, "minari_version": version("minari"), "algorithm_name": who}
        returns = [float(np.sum(episode["rewards"])) for episode in episodes]
        storage.update_metadata(facts | {"mean_return": float(np.mean(returns))})
    except BaseException:
        shutil.rmtree(folder)
        raise


def main() -> None:
    """The command."""
    launch(run, "record")


if __name__ == "__main__":
    main()

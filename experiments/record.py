"""Play a trained agent or a scripted player and write the episodes as a Minari data set.

python -m experiments.record run=RUN_DIR episodes=1000 output=recordings/mine
python -m experiments.record run=RUN_DIR env.length=30 output=recordings/longer   # in another environment
python -m experiments.record player=envs.players.TMazeExpert env=t_maze env.length=30 output=recordings/t_maze
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from envs.workers import close
from experiments.launch.build import EVALUATION_ENVS, build
from experiments.launch.check import ConfigError, construct, convert, import_path, prepare_output
from experiments.launch.command import launch
from experiments.launch.elsewhere import check_spaces, list_overrides, override_env, read_spaces
from experiments.launch.evaluations import EVALUATION_SEED
from experiments.launch.run_folder import choose_checkpoint, load_run_config
from rl.checks import positive, within
from rl.recordings.minari_data import import_minari
from rl.training.evaluation import EpisodeCounter, make_bar, share_episodes
from rl.training.signals import Stopped
from rl.training.stepping import VectorEnvAdapter
from rl.types import Actor

log = logging.getLogger(__name__)
MINARI_ID = re.compile(r"[\w-]+(/[\w-]+)*-v\d+")
RECORDABLE = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)

Episode = dict[str, Any]
"""``observations``, one more than there are actions; ``actions``, ``rewards``, ``terminations``, ``truncations``."""


class ScriptedPlayer:
    """A scripted player as a ``rl.types.Actor``.

    Args:
        script: ``script(observation [B, ...], starts [B]) -> actions [B, ...]``.
        num_envs: B.
    """

    def __init__(self, script: Callable[[Any, np.ndarray], np.ndarray], num_envs: int):
        self.script, self.starts = script, np.ones(num_envs, dtype=bool)

    def act(self, observation: Any, greedy: bool = True) -> np.ndarray:
        """Return actions ``[B, ...]``."""
        return self.script(observation, self.starts)

    def observe(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """Take in where the next observation opens an episode, ``ended [B]``."""
        self.starts = ended.copy()

    def reset(self) -> None:
        """Begin an episode in every environment."""
        self.starts = np.ones_like(self.starts)


def run(config: DictConfig) -> float:
    """Write the data set.

    Returns:
        The mean return of its episodes.
    """
    minari = import_minari()
    episodes, seed = convert(config.episodes, int, "episodes"), convert(config.seed, int, "seed")
    greedy, output = convert(config.greedy, bool, "greedy"), convert(config.output, str, "output")
    num_envs, max_steps = (convert(config[name], int | None, name) for name in ("num_envs", "max_steps"))
    given = {name: value for name, value in (("num_envs", num_envs), ("max_steps", max_steps)) if value is not None}
    positive(episodes=episodes, **given)
    within(0, 2**31, seed=seed)
    if (config.run is None) == (config.player is None):
        raise ConfigError("give either run=RUN_DIR, a trained agent, or player=DOTTED.PATH with env=NAME")
    folder = find_destination(minari, output)
    stored = None if config.run is None else load_run_config(config.run, config.get("trust"))
    checkpoint, here = choose_checkpoint(config), Path.cwd()  # an environment may change the working folder
    player: Actor
    with claim_destination(folder), ExitStack() as opened:
        if stored is not None and checkpoint is not None:
            parts = build(change_run(stored, config, num_envs), playing=True)
            opened.callback(parts.close)
            parts.agent.load(here / checkpoint)
            parts.agent.network.eval()
            envs, name = parts.evaluation_envs, f"{parts.agent.model_name}, {'greedy' if greedy else 'sampled'}"
            player = parts.agent.new_actor(envs.num_envs, seed)
        else:
            if config.get("env") is None:
                raise ConfigError("env is missing: player needs env=NAME")
            envs, _ = construct(config.env, "env", num_envs=num_envs or EVALUATION_ENVS)
            opened.callback(close, envs)
            player, name = ScriptedPlayer(import_script(config.player)(envs), envs.num_envs), config.player
        try:
            played = record_episodes(player, envs, episodes, EVALUATION_SEED + seed, greedy, max_steps)
            if not played:
                bound = f"no episode has ended within max_steps={max_steps} steps"
                raise ConfigError(f"{bound}: raise it, or give max_steps=null for no bound")
            write_minari(minari, folder, output, envs, played, name)
        except Stopped as stop:
            raise Stopped(stop.number, "before it was complete; nothing was written") from stop
    returns = [float(np.sum(episode["rewards"])) for episode in played]
    steps = sum(len(episode["rewards"]) for episode in played)
    if len(played) < episodes:
        log.info("%d episodes did not end within max_steps=%d and are left out", episodes - len(played), max_steps)
    log.info("%d episodes, %d steps, mean return %.3f, in %s", len(played), steps, np.mean(returns), folder.parent)
    return float(np.mean(returns))


def find_destination(minari: Any, output: str) -> Path:
    """Return the folder of the arrays: an id such as ``t_maze/expert-v0`` lies where Minari looks for it.

    Raises:
        ConfigError: there is something already.
    """
    base = minari.storage.get_dataset_path(output) if MINARI_ID.fullmatch(output) else Path(output)
    if base.exists() and (not base.is_dir() or any(base.iterdir())):
        raise ConfigError(f"output={output}: {base} is there already")
    return base.resolve() / "data"  # Minari joins a relative path twice


@contextmanager
def claim_destination(folder: Path) -> Iterator[None]:
    """Make the folder of the arrays, before anything is played; where nothing comes of it nothing is left behind.

    Raises:
        ConfigError: it cannot be made, or another command has just made it.
    """
    prepare_output(str(folder), "output")
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise ConfigError(f"output: {folder} is there already") from error
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        raise


def change_run(stored: DictConfig, config: DictConfig, num_envs: int | None) -> DictConfig:
    """Return the configuration of a run as this command plays it: device, environments side by side, keys of ``env``.

    Raises:
        ConfigError: the agent cannot play in the environment that was asked for.
    """
    OmegaConf.update(stored, "device", config.device)
    if num_envs is not None:
        OmegaConf.update(stored, "evaluation_envs", num_envs)
    overrides = list_overrides(config.get("env"))
    if not overrides:
        return stored
    changed = override_env(stored, config.env)
    check_spaces(read_spaces(changed), read_spaces(stored), overrides)
    return changed


def import_script(path: str) -> Any:
    """Return the class of scripted players under a dotted path; ``script(envs)`` makes one.

    Raises:
        ConfigError: there is none.
    """
    try:
        return import_path(str(path))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"player={path} cannot be imported: {error}") from error


def record_episodes(
    player: Actor, envs: VectorEnv, episodes: int, seed: int, greedy: bool, max_steps: int | None = None
) -> list[Episode]:
    """Play whole episodes; each environment plays a fixed number, so that short ones are not over-represented.

    Args:
        player: plays; its memories begin anew.
        envs: to play in.
        episodes: how many to play.
        seed: of the environments.
        greedy: take the likeliest actions instead of sampling.
        max_steps: an environment in which so many steps have not ended an episode plays no further; None for no bound.
    """
    stepper = VectorEnvAdapter(envs, final_obs_of_terminated=True)
    counter = EpisodeCounter(share_episodes(episodes, envs.num_envs), max_steps)
    done: list[list[Episode]] = [[] for _ in range(envs.num_envs)]
    steps: list[list[tuple[Any, ...]]] = [[] for _ in range(envs.num_envs)]
    with make_bar("recording", episodes) as bar:
        obs = stepper.reset(seed)
        while counter.left.any():
            actions = player.act(obs, greedy)
            after = stepper.step(actions)
            player.observe(after.rewards, after.ended)
            for row in np.flatnonzero(~after.ignored & (counter.left > 0)).tolist():
                ends = after.terminated[row], after.truncated[row]
                steps[row].append((copy_observation(obs, row), np.asarray(actions)[row], after.paid[row], *ends))
                if any(ends):
                    done[row].append(make_episode(steps[row], copy_observation(after.final_obs, row)))
                    steps[row] = []
            counter.add(after)
            bar.update(len(counter.finished) - bar.n)
            obs = after.obs
    return [row[number] for number in range(max(map(len, done))) for row in done if number < len(row)]


def copy_observation(obs: Any, row: int) -> Any:
    """Return a copy of what one environment shows in an observation ``[B, ...]``."""
    if isinstance(obs, dict):
        return {key: copy_observation(part, row) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(copy_observation(part, row) for part in obs)
    return np.array(obs[row])


def stack_observations(observations: list[Any]) -> Any:
    """Return observations as arrays ``[T + 1, ...]``, in the structure of the first."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: stack_observations([obs[key] for obs in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(stack_observations([obs[i] for obs in observations]) for i in range(len(first)))
    return np.stack(observations)


def make_episode(steps: list[tuple[Any, ...]], final: Any) -> Episode:
    """Return the fields of a Minari episode.

    Args:
        steps: observation, action, reward, terminated, truncated of each step.
        final: the observation after the last action.
    """
    observations, actions, rewards, terminated, truncated = zip(*steps, strict=True)
    arrays = {"actions": actions, "rewards": rewards, "terminations": terminated, "truncations": truncated}
    stacked = {key: np.stack(part) for key, part in arrays.items()}
    return {"observations": stack_observations([*observations, final])} | stacked


def write_minari(
    minari: Any, folder: Path, name: str, envs: VectorEnv, episodes: list[Episode], player_name: str
) -> None:
    """Write a Minari data set; images are kept as they are, not as JPEG.

    Args:
        minari: the package.
        folder: of the arrays, empty.
        name: of the data set, a Minari id or any text.
        envs: have the spaces of the episodes.
        episodes: what to write.
        player_name: of the one that played them.

    Raises:
        ConfigError: Minari has no place for actions of this space.
    """
    space, actions = envs.single_observation_space, envs.single_action_space
    if not isinstance(actions, RECORDABLE):
        raise ConfigError(f"actions of {actions} cannot be recorded: use Box, Discrete, MultiDiscrete or MultiBinary")
    storage = minari.dataset.minari_dataset.MinariStorage.new(
        folder, space, actions, data_format="hdf5", jpeg_encoding=False
    )
    buffers = [minari.data_collector.EpisodeBuffer(id=i, **episode) for i, episode in enumerate(episodes)]
    storage.update_episodes(buffers)
    label = re.sub(r"[^\w-]+", "_", name).strip("_") or "recording"
    identity = name if MINARI_ID.fullmatch(name) else f"{label}-v0"
    metadata = {"dataset_id": identity, "minari_version": version("minari"), "algorithm_name": player_name}
    returns = [float(np.sum(episode["rewards"])) for episode in episodes]
    storage.update_metadata(metadata | {"mean_return": float(np.mean(returns))})


def main() -> None:
    """Run the command."""
    launch(run, "record")


if __name__ == "__main__":
    main()

"""Reads Minari data sets as recordings; nothing is downloaded, and nothing that they name is run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from rl.recordings.recording import Recording
from rl.spaces import fed_dtype, leaf_arrays, leaf_spaces, list_leaves, unsupported_leaves


def import_minari() -> Any:
    """Import the package that reads and writes data sets.

    Raises:
        ImportError: it, or a package that it needs, is not installed.
    """
    try:
        import h5py  # noqa: F401 (what Minari keeps arrays in; without it the first write would fail)
        import minari
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError(f"recordings need the package {error.name}: pip install 'recurrent-ppo[data]'") from error
    return minari


def read_minari(name: str) -> Recording:
    """Read a Minari data set: a folder, or an id in Minari's own folder. Nothing is downloaded.

    Raises:
        FileNotFoundError: there is no such data set.
        ImportError: Minari is not installed.
        ValueError: the data set is empty or damaged, or a value is not finite or not in its space.
    """
    minari = import_minari()
    folder = find_minari(minari, name)
    metadata = read_metadata(folder, name)
    try:
        dataset = minari.MinariDataset(folder)
        observation_space, action_space = dataset.observation_space, dataset.action_space
        leaves = leaf_spaces(observation_space, unsupported_leaves(observation_space))
        episodes = [_read_episode(episode, observation_space) for episode in dataset.iterate_episodes()]
    except Exception as error:  # what damaged metadata and arrays make Minari, h5py and Gymnasium raise has no base
        cause = " ".join(str(error).split())[:200] or "no more is known"
        raise ValueError(f"data={name} is damaged or no Minari data set ({type(error).__name__}: {cause})") from error
    steps = sum(len(rewards) for *_, rewards in episodes)
    if steps != metadata["total_steps"]:
        raise ValueError(
            f"data={name} is damaged: {metadata['total_steps']} steps are announced, but {steps} are there"
        )
    if not episodes:
        raise ValueError(f"data={name} has no episode")
    obs, actions, rewards = zip(*episodes, strict=True)
    bounds = np.cumsum([0, *map(len, rewards)])
    try:
        fitted = {
            leaf: np.concatenate([parts[leaf] for parts in obs]).astype(fed_dtype(space), copy=False)
            for leaf, space in leaves.items()
        }
        stacked = np.concatenate(actions), np.concatenate(rewards)
    except ValueError as error:
        raise ValueError(f"data={name} is damaged: its episodes hold arrays of other shapes ({error})") from error
    return Recording(observation_space, action_space, fitted, *stacked, bounds, np.arange(len(bounds) - 1))


def find_minari(minari: Any, name: str) -> Path:
    """Return the folder that holds ``metadata.json`` of a data set.

    Raises:
        FileNotFoundError: there is none.
    """
    given = Path(name).expanduser()
    folders = [given / "data", given]
    if not given.is_absolute() and ".." not in given.parts:
        folders.append(Path(minari.storage.get_dataset_path(name)) / "data")
    for folder in folders:
        if (folder / "metadata.json").is_file():
            return folder
    raise FileNotFoundError(
        f"data={name}: there is no Minari data set in that folder or under that id, and no .slp file there"
    )


def read_metadata(folder: Path, name: str) -> dict[str, Any]:
    """Read ``metadata.json`` of a Minari data set.

    Without spaces in it Minari would construct the environment that it names: data would decide what code runs.

    Raises:
        ValueError: it is damaged, or lacks an entry.
    """
    try:
        metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"data={name} is damaged: metadata.json cannot be read ({error})") from error
    kinds = dict.fromkeys(("data_format", "dataset_id", "minari_version", "observation_space", "action_space"), str)
    for key, kind in ({"total_episodes": int, "total_steps": int} | kinds).items():
        if not isinstance(metadata, dict) or not isinstance(metadata.get(key), kind):
            wanted = "a whole number" if kind is int else "a text"
            raise ValueError(f"data={name} is damaged: {key} in metadata.json must be {wanted}")
    return metadata


def _read_episode(episode: Any, space: spaces.Space) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return observations by leaf, actions and rewards of an episode of Minari's.

    Raises:
        ValueError: they have different lengths.
    """
    rewards = np.asarray(episode.rewards, dtype=np.float32)
    actions = np.asarray(episode.actions)
    # Minari also holds what was seen after the last action
    seen = [leaf for leaf in list_leaves(space) if leaf not in unsupported_leaves(space)]
    obs = {leaf: array[: len(rewards)] for leaf, array in leaf_arrays(space, episode.observations, seen).items()}
    if any(len(array) != len(rewards) for array in (actions, *obs.values())):
        raise ValueError(f"episode {episode.id} has {len(rewards)} rewards, but other numbers of steps")
    return obs, actions, rewards

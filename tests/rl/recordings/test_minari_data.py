"""Minari data sets: what is read of them, and what is said of damaged ones."""

import builtins
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from envs.players import TMazeExpert
from envs.t_maze import TMaze
from experiments.record import ScriptedPlayer, record_episodes, write_minari
from rl.recordings import minari_data
from rl.recordings.minari_data import import_minari, read_minari


@pytest.mark.parametrize("package", ["minari", "h5py", "PIL"])
def test_a_missing_extra_is_named(monkeypatch, package):
    original = builtins.__import__

    def without(name, *rest):
        if name == package:
            raise ImportError(f"no {name}", name=name)
        return None if name in ("minari", "h5py", "PIL") else original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ImportError, match=rf"recordings need the package {package}: pip install 'recurrent-ppo\[data\]'"
    ):
        read_minari("nowhere")


def test_no_data_set(tmp_path, monkeypatch):
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="data=nothing-v0: there is no Minari data set in that folder or under"):
        read_minari("nothing-v0")
    with pytest.raises(FileNotFoundError, match=r"^data=\.\./x: there is no Minari data set"):
        read_minari("../x")


# ------------------------------------------------------------------------------------------------------------- damaged


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    envs, folder = TMaze(2, length=2), tmp_path_factory.mktemp("minari") / "set"
    played = record_episodes(ScriptedPlayer(TMazeExpert(envs), 2), envs, 4, 0, True)
    write_minari(import_minari(), folder / "data", "set", envs, played, "expert")
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(written, tmp_path / "set")


def test_a_good_data_set(folder):
    """Four episodes of three steps each."""
    assert (
        read_minari(str(folder)).bounds.tolist()
        == read_minari(str(folder / "data")).bounds.tolist()
        == [0, 3, 6, 9, 12]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "metadata.json cannot be read"),
        (lambda text: "", "metadata.json cannot be read"),
        (lambda text: "[1]", "total_episodes in metadata.json must be a whole number"),
        (lambda text: changed(text, observation_space=None, env_spec="{}"), "observation_space in metadata.json must"),
        (lambda text: changed(text, total_episodes="4"), "total_episodes in metadata.json must be a whole number"),
        (lambda text: changed(text, total_episodes=3), "12 steps are announced, but 9 are there"),
        (lambda text: changed(text, total_episodes=0, total_steps=0), "has no episode"),
        (lambda text: changed(text, observation_space='{"type": "Box"}'), "is damaged or no Minari data set"),
        (lambda text: changed(text, data_format="paper"), "is damaged or no Minari data set (KeyError: 'paper')"),
        (lambda text: changed(text, minari_version="77.0"), "no Minari data set (ValueError: The installed"),
    ],
)  # fmt: skip
def test_damaged_metadata_is_one_sentence(folder, change, message):
    """An environment that it names is not constructed, though Minari would take the spaces from there."""
    path = folder / "data/metadata.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError) as raised:
        read_minari(str(folder))
    said = str(raised.value)
    assert said.startswith(f"data={folder} ") and message in said and "\n" not in said


def changed(text, **entries):
    return json.dumps({key: value for key, value in (json.loads(text) | entries).items() if value is not None})


@pytest.mark.parametrize("damage", ["half", "empty", "gone", "foreign"])
def test_damaged_arrays_are_one_sentence(folder, damage):
    path = folder / "data/main_data.hdf5"
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "foreign": b"hello " * 999}[damage])
    with pytest.raises(ValueError, match=r"is damaged or no Minari data set \([A-Z]\w+: .+\)$"):
        read_minari(str(folder))


def test_arrays_of_other_lengths_and_shapes_are_told(folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "data/main_data.hdf5", "a") as file:
        del file["episode_2/actions"]
        file["episode_2/actions"] = [0, 1]
    with pytest.raises(ValueError, match="episode 2 has 3 rewards, but other numbers of steps"):
        read_minari(str(folder))


def test_observations_are_those_before_each_action(tmp_path, monkeypatch):
    """Minari holds one more of an episode, what was seen after the last action. The package is not needed."""
    space = spaces.Box(0.0, 9.0, (1,), np.float32)
    parts = {"rewards": np.arange(3.0), "actions": np.array([0, 1, 0]), "observations": np.arange(4.0)[:, None]}
    episode = SimpleNamespace(id=0, **parts)
    dataset = SimpleNamespace(
        observation_space=space, action_space=spaces.Discrete(2), iterate_episodes=lambda: [episode, episode]
    )
    monkeypatch.setattr(minari_data, "import_minari", lambda: SimpleNamespace(MinariDataset=lambda folder: dataset))
    texts = dict.fromkeys(("data_format", "dataset_id", "minari_version", "observation_space", "action_space"), "x")
    (tmp_path / "metadata.json").write_text(json.dumps(texts | {"total_episodes": 2, "total_steps": 6}))
    recording = minari_data.read_minari(str(tmp_path))
    assert recording.obs["obs"][:, 0].tolist() == [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]
    assert recording.rewards.tolist() == [0.0, 1.0, 2.0] * 2

"""Every core with as many parameters as the reference, on agents and on models of characters."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from torch import nn

from envs.memory_grid import MemoryGrid
from experiments.tables.compare_cores import check_comparable
from experiments.tables.equal_cores import (
    count_parameters,
    find_nearest_size,
    list_remaining_characters,
    make_entries,
    read_characters_outcome,
    watch_random_play,
)
from rl import cores


def every(task, contestants=cores.__all__):
    """The entries of a task of the YAML file, by core."""
    with initialize_config_module("conf", version_base="1.3"):
        config = compose("compare_cores")
        row = OmegaConf.to_container(config.table[task], resolve=True)
        return {each.core: each for each in make_entries(config, task, row, contestants)}


def test_equal_parameters_of_agents():
    """Worked by hand for T-maze: four numbers in, two layers of 64 behind, three actions and a value out."""
    found = every("t_maze_10")
    assert list(found) == cores.__all__
    outputs = (3 + 1) * 65
    gru = 3 * 64 * (4 + 64 + 2) + 2 * 64 * 65 + outputs
    assert (found["gru"].hidden_size, found["gru"].settings["parameters"]) == (64, gru)
    size = found["mlp"].hidden_size
    mlp = size * 5 + 2 * 64 * (size + 1) + outputs
    assert found["mlp"].settings["parameters"] == mlp and abs(mlp - gru) <= (5 + 2 * 64) / 2
    for core, each in found.items():
        assert abs(each.settings["parameters"] - gru) <= 0.1 * gru, core
        assert count_parameters(each.player) == each.settings["parameters"]
        assert each.arguments[-2:] == [f"agent/core={core}", f"agent.core.hidden_size={each.hidden_size}"]
        assert each.player.network.actor.encoder.output_size == 4
    size = found["attention"].hidden_size  # keys and values of 31 steps in two layers, and two ages
    assert size % 2 == 0 and found["attention"].count_state_bytes() == 2 * (2 * 31 * size * 4 + 8)
    assert found["attention"].settings["agent.state_stride"] == found["attention"].settings["agent.bptt"] == 32
    assert found["mlp"].count_state_bytes() == 0
    check_comparable(list(found.values()), Path("nowhere"), [1])


def test_cores_are_timed_on_observations_that_are_shown():
    """A sample of the space of the memory grid would hold numbers that stand for nothing."""
    frames = watch_random_play(MemoryGrid(64, size=7))
    assert len(frames) == 512 and all(frame.shape == (7, 7, 3) for frame in frames)
    assert {int(kind) for frame in frames for kind in frame[..., 0].flat} == {0, 1, 2, 5, 6}
    assert any((frame != frames[0]).any() for frame in frames[64::64])  # the first copy moves, too


def test_equal_parameters_of_models_of_characters():
    found = every("char_lm")
    (characters,) = {each.player.network.embedding.num_embeddings for each in found.values()}
    gru = characters * 64 + 3 * 128 * (64 + 128 + 2) + characters * 129
    assert (found["gru"].hidden_size, found["gru"].settings["parameters"]) == (128, gru)
    for core, each in found.items():
        assert abs(each.settings["parameters"] - gru) <= 0.1 * gru, core
        assert each.settings["learning_rate"] == (3e-3 if core in ("attention", "mamba", "jamba") else 1e-2)
    assert found["lstm"].count_state_bytes() == 2 * 4 * found["lstm"].hidden_size


@pytest.mark.parametrize(
    ("target", "unit", "size"), [(50, 1, 7), (49, 1, 7), (52, 2, 8), (48, 2, 6), (1, 3, 3), (1, 1, 1)]
)
def test_nearest_size(target, unit, size):
    """Squares: 36, 49, 64."""
    assert find_nearest_size(lambda n: SimpleNamespace(network=nn.Linear(n, n, bias=False)), target, unit) == size


def test_runs_of_models_of_characters(tmp_path):
    """The speed is 10 updates of 4 streams of 8 characters in 2 seconds; a stopped run begins again."""
    assert list_remaining_characters(tmp_path, ["a"]) == ["a"]
    settings = {"steps": 10, "batch": 4, "block": 8}
    OmegaConf.save(OmegaConf.create(settings), tmp_path / "config.yaml")
    for steps, left in ((9, ["a", "overwrite=true"]), (10, [])):
        result = {"steps": steps, "bits_per_char": 2.5, "training_seconds": 2.0}
        (tmp_path / "result.json").write_text(json.dumps(result))
        assert list_remaining_characters(tmp_path, ["a"]) == left
    assert read_characters_outcome(result, settings) == (2.5, 160.0)

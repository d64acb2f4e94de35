"""Cores and other programs on tasks: which there are, and what is left to train."""

import pytest
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError
from experiments.tables import entries
from experiments.tables.entries import choose_peers, list_remaining, list_remaining_of_peer, read_core_overrides


def test_other_programs(monkeypatch):
    rows: dict[str, dict[str, list[str]]] = {"repeat_first_easy": {"peers": ["sb3-contrib"]}, "rock_sample": {}}
    assert choose_peers([], rows) == []
    monkeypatch.setattr(entries, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        choose_peers(["sb3-contrib"], rows)
    assert str(raised.value) == (
        "peers=[sb3-contrib] needs the package sb3_contrib, which is not installed: "
        'pip install "recurrent-ppo[bench]", or peers=[] leaves it out'
    )
    monkeypatch.setattr(entries, "find_spec", lambda name: "found" if name == "sb3_contrib" else None)
    assert choose_peers(["sb3-contrib"], rows) == ["sb3-contrib"]
    with pytest.raises(ConfigError, match=r"peers=\[sb3-contrib\]: none of the rows rock_sample names it"):
        choose_peers(["sb3-contrib"], {"rock_sample": rows["rock_sample"]})
    with pytest.raises(ConfigError, match="peers: there is no program 'sb3'"):
        choose_peers(["sb3"], rows)
    with pytest.raises(ConfigError, match=r"table\.a\.peers: there is no program 'sb3'"):
        choose_peers([], {"a": {"peers": ["sb3"]}})


def test_what_is_finished_is_kept(tmp_path):
    """A run of this project that ended on its way goes on, one of another program begins again."""
    fresh = ["experiments.train", "env=t_maze", "seed=3", f"run_dir={tmp_path}"]
    settings = {"env": {}, "total_steps": 100}
    other = ["module", f"--folder={tmp_path}", "--seed=3", "--env={}", "--total-steps=100"]

    def remaining():
        return list_remaining(["env=t_maze"], tmp_path, 3), list_remaining_of_peer("module", settings, tmp_path, 3)

    assert remaining() == (fresh, other)
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.pt").touch()
    assert remaining() == (["experiments.train", f"resume={tmp_path}"], other)
    (tmp_path / "result.json").write_text('{"env_steps": 99, "total_steps": 100}')
    assert remaining() == (["experiments.train", f"resume={tmp_path}"], [])  # the other program writes it at the end
    (tmp_path / "result.json").write_text('{"env_steps": 100, "total_steps": 100}')
    assert remaining() == ([], [])


def test_what_the_runs_of_a_core_set():
    """Keys of the agent: the rest of a run is the same for all cores."""
    given = {"mlp": ["agent.clip=0.1"], "gru": "agent.layer_size=3"}
    assert read_core_overrides(OmegaConf.create(given)) == {"mlp": ["agent.clip=0.1"], "gru": ["agent.layer_size=3"]}
    assert read_core_overrides(OmegaConf.create({})) == {}
    for wrong, sentence in (
        ({"gro": ["agent.clip=1"]}, "core_overrides: there is no core 'gro'; did you mean gru?"),
        ({"gru": ["num_envs=2"]}, r"core_overrides\.gru=\['num_envs=2'\]: it must be a list of keys of the agent"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            read_core_overrides(OmegaConf.create(wrong))

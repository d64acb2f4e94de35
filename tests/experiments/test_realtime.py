"""``python -m experiments.realtime``: the path that is measured, and what is made of the times. No test of speed."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from experiments import realtime
from rl import cores

SMALL = "steps=4", "late_step=7", "window=5", "input_size=6", "layer_size=8", "hidden_size=8"


def test_all_cores(command, cwd, monkeypatch):
    monkeypatch.setattr(realtime, "EARLY_STEP", 2)
    threads = torch.get_num_threads()
    ended = command("realtime", *SMALL)
    assert (ended.code, ended.err) == (0, "")
    assert torch.get_num_threads() == threads
    content = json.loads((cwd / "realtime.json").read_text())
    assert content["settings"]["steps"] == 4 and content["settings"]["window"] == 5
    rows = {row["core"]: row for row in content["rows"]}
    assert list(rows) == cores.__all__
    sizes = {name: row["state_numbers"] for name, row in rows.items()}
    window = 2 * 4 * 8 + 1  # keys and values of four steps before, and how many they are
    assert (sizes["mlp"], sizes["gru"], sizes["lstm"]) == (0, 16, 32)
    assert (sizes["attention"], sizes["jamba"]) == (2 * window, 2 * window + 4 * sizes["mamba"] // 2)
    hidden, heads = 2 * (8 * 8 + 8), 8 * (16 + 68 + 5 + 1) + (16 + 68 + 5 + 1)
    assert rows["mlp"]["parameters"] == (6 * 8 + 8) + 2 * (8 * 8 + 8) + hidden + heads
    assert all(row["p99_ms"] >= row["p50_ms"] > 0 for row in rows.values())

    lines = [line.split() for line in ended.out.splitlines() if line]
    assert [line[0] for line in lines[2:]] == cores.__all__
    assert [line[3] for line in lines[2:]] == [f"{row['p50_ms']:.2f}" for row in rows.values()]


def test_an_episode_goes_on_and_everybody_takes_turns(monkeypatch):
    """The late agent has seen ``late_step`` frames of one episode when it is measured."""
    monkeypatch.setattr(realtime, "EARLY_STEP", 3)
    monkeypatch.setattr(realtime, "BLOCK", 2)
    sizes = {"steps": 5, "late_step": 11, "window": 4, "input_size": 6, "layer_size": 8, "hidden_size": 8}
    sizes["num_layers"] = 1
    config = OmegaConf.create({"options": None})
    contenders = [realtime.make_contender(name, config, sizes, seed=0) for name in ("gru", "mingru")]
    turns, time_steps = [], realtime.time_steps

    def noted(agent, frames, steps):
        turns.append((agent, steps))
        return time_steps(agent, frames, steps)

    monkeypatch.setattr(realtime, "time_steps", noted)
    frames = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    realtime.measure(contenders, frames, sizes)
    a, b = contenders
    before = [(a.early, 3), (a.late, 11), (b.early, 3), (b.late, 11)]
    blocks = [(agent, steps) for steps in (2, 2, 1) for agent in (a.early, a.late, b.early, b.late)]
    assert turns == before + blocks
    assert [len(a.early_seconds), len(b.late_seconds), len(b.window_seconds)] == [5, 5, 3]

    network = a.late.network  # the same frames, unrolled as one episode
    order = [*range(11), 0, 1, 0, 1, 0]
    starts = torch.zeros(len(order), 1, dtype=torch.bool)
    starts[0] = True
    with torch.no_grad():
        obs = {"obs": torch.from_numpy(frames[order]).unsqueeze(1)}
        _, _, state = network.unroll(obs, network.initial_state(1), starts)
    for name, leaf in state.items():
        torch.testing.assert_close(a.late.actor.state[name], leaf)


def test_a_row():
    sizes = {"input_size": 6, "layer_size": 8, "hidden_size": 8, "num_layers": 2}
    each = realtime.make_contender("lstm", OmegaConf.create({"options": {"lstm": {"num_layers": 3}}}), sizes, seed=0)
    each.early_seconds, each.late_seconds, each.window_seconds = [0.002] * 98 + [0.02] * 2, [0.003], [0.01]
    row = each.summarise(frame_ms=16.6)
    assert row["state_numbers"] == 2 * 3 * 8
    assert row["p50_ms"] == pytest.approx(2.0) and row["p99_ms"] == pytest.approx(20.0)
    assert row["missed_share"] == pytest.approx(0.02)
    assert (row["late_over_early"], row["window_over_step"]) == pytest.approx((1.5, 5.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cores=[gro]",), "there is no core 'gro'; did you mean gru?"),
        (("cores=[]",), "cores is empty"),
        (("cores=gru", "steps=0"), "steps=0"),
        (("cores=gru", "options.gru.hiden_size=3"), "there is no key 'options.gru.hiden_size'"),
        (("cores=gru", "options.gro.hidden_size=3"), "there is no core 'gro'"),
        (("cores=gru", "stesp=3"), "there is no key 'stesp'; did you mean steps?"),
    ],
)
def test_bad_input(command, cwd, arguments, message):
    ended = command("realtime", *arguments)
    assert ended.code == 1 and ended.err.count("\n") == 1 and message in ended.err
    assert list(cwd.iterdir()) == []

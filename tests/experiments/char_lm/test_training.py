"""Training a model of characters: what the updates see, schedules, signals, stored weights."""

import os
import signal
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from experiments.char_lm import training
from experiments.char_lm.text import Alphabet
from rl.checkpoint import load_checkpoint


def test_what_the_updates_see(lm, monkeypatch, line):
    """Streams whose state arrives as it was left, detached, and random windows with starts."""
    seen = []

    def watched(model, optimizer, block, state, max_grad_norm):
        after = original(model, optimizer, block, state, max_grad_norm)
        seen.append((block, state, after[0]))
        return after

    original = training.train_step
    monkeypatch.setattr(training, "train_step", watched)
    assert lm("steps=40", "run_dir=run").code == 0  # 1052 characters: streams of 263, 33 blocks a pass
    assert [index for index, (block, _, _) in enumerate(seen) if block.starts.any()] == [0, 33]
    assert all(left is state for (_, _, left), (_, state, _) in pairwise(seen))
    text = "".join(Alphabet("".join(sorted(set(line)))).decode(block.symbols[:, 0]) for block, _, _ in seen[:33])
    assert text == (line * 30)[: len(text)] and len(text) == 263 - 1 + 1

    seen.clear()
    assert lm("steps=5", "carry=false", "run_dir=windows").code == 0
    assert all(block.starts[0].all() for block, _, _ in seen)


def test_learning_rate_by_hand(lm, run_of):
    """Ten updates, three of them falling: 3/3, 2/3, 1/3."""
    assert lm("steps=10", "learning_rate=0.3", "decay=0.3", "run_dir=run").code == 0
    rates = run_of("run").values("charts/learning_rate")
    assert rates == pytest.approx([0.3] * 8 + [0.2, 0.1])
    assert lm("steps=3", "learning_rate=0.3", "decay=0", "run_dir=constant").code == 0
    assert run_of("constant").values("charts/learning_rate") == pytest.approx([0.3] * 3)


def test_an_interrupt_saves_what_was_learned(lm, monkeypatch, run_of):
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    original = training.train_step
    monkeypatch.setattr(training, "train_step", interrupted)
    ended = lm("steps=1000", "run_dir=run")
    assert ended.code == 130
    assert ended.err == "char_lm: stopped by SIGINT after 5 steps; weights=run begins with what was learned\n"
    assert load_checkpoint("run/checkpoints/last.pt")["agent"]["step"] == 5
    assert lm("steps=5", "decay=0.005", "run_dir=whole").code == 0  # as far from the end, whose updates are smaller
    for folder in ("run", "whole"):
        assert lm("steps=0", f"weights={folder}", f"run_dir=again_{folder}").code == 0
    assert run_of("again_run").result["sample"] == run_of("again_whole").result["sample"]


def test_weights_of_another_run(lm, line, run_of):
    """Measured on another text with the alphabet it was trained with; other sizes are refused."""
    assert lm("steps=5", "run_dir=run").code == 0
    Path("other.txt").write_text("sea shore " * 40)
    assert lm("steps=0", "weights=run", "text=other.txt", "run_dir=other").code == 0
    assert run_of("other").result["alphabet"] == len(set(line)) > len(set("sea shore "))
    Path("other.txt").write_text("sea shöre " * 40)
    for arguments, words in (
        (["text=other.txt"], "text has 'ö', which is not among the 14 characters"),
        (["core=lstm"], "core._target_=rl.cores.lstm: weights=run was trained with rl.cores.gru; leave it out"),
        (["prompt=XYZ"], "prompt has 'X'"),
    ):
        ended = lm("steps=0", "weights=run", *arguments)
        assert ended.code == 1 and words in ended.err and ended.err.count("\n") == 1


def test_bits_are_those_of_a_memory_that_starts_as_it_was_trained(lm, run_of):
    assert lm("steps=6", "evaluate_every=3", "carry=false", "run_dir=run").code == 0
    found = run_of("run").result
    assert [point["step"] for point in found["evaluations"]] == [3, 6]  # the last one serves for the end too
    assert found["bits_per_char"] == found["bits_per_char_zero_state"] != found["bits_per_char_carried"]


def test_seeds_repeat_exactly(lm, run_of):
    """Weights, curves and sample, with random windows too."""
    for carry in ("true", "false"):
        for name, seed in (("one", 1), ("same", 1), ("other", 2)):
            assert lm("steps=4", f"carry={carry}", f"seed={seed}", f"run_dir={carry}/{name}").code == 0
        one, same, other = (Path(carry, name) for name in ("one", "same", "other"))
        weights = [load_checkpoint(run / "checkpoints/last.pt")["agent"]["model"] for run in (one, same)]
        assert all(leaf.equal(weights[1][name]) for name, leaf in weights[0].items())
        one, same, other = map(run_of, (one, same, other))
        assert one.result["sample"] == same.result["sample"]
        assert one.result["bits_per_char"] == same.result["bits_per_char"] != other.result["bits_per_char"]
    one, same = run_of("true/one"), run_of("true/same")
    assert one.values("losses/bits_per_char") == same.values("losses/bits_per_char")


def test_threads_are_left_at_one():
    """Or tests that come later would not repeat exactly."""
    assert torch.get_num_threads() == 1

"""``python -m experiments.char_lm``."""

import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import conf
from experiments.char_lm import text as texts
from experiments.char_lm import training
from experiments.launch.check import ConfigError
from rl.checkpoint import load_checkpoint

CORES = sorted(path.stem for path in Path(conf.__file__).parent.glob("agent/core/*.yaml"))
TINY = ("batch=4", "block=8", "core.hidden_size=8", "embedding_size=4", "sample_length=10", "text=text.txt")
LINE = "She sells sea shells by the sea shore.\n"


@pytest.fixture
def lm(command, cwd):
    """``lm("steps=3", ...)``: the command on a small text."""
    Path("text.txt").write_text(LINE * 30)

    def run(*arguments):
        return command("char_lm", *TINY, *arguments)

    return run


def result(folder):
    return json.loads(Path(folder, "result.json").read_text())


def curves(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_what_a_run_leaves_behind(lm):
    ended = lm("steps=20", "evaluate_every=8", "run_dir=run", "seed=3")
    assert ended.code == 0
    found = result("run")
    assert (found["core"], found["text"], found["seed"], found["steps"]) == ("gru", "text.txt", 3, 20)
    assert (found["characters"], found["alphabet"]) == (30 * len(LINE), len(set(LINE)))
    assert found["parameters"] == 4 * 14 + 3 * 8 * (4 + 8 + 2) + 14 * (8 + 1)
    assert found["prompt"] == "S" and len(found["sample"]) == 10 and set(found["sample"]) <= set(LINE)
    assert [point["step"] for point in found["evaluations"]] == [8, 16, 20]
    assert found["evaluations"][-1]["carried"] == found["bits_per_char"] == found["bits_per_char_carried"]
    assert found["bits_per_char_zero_state"] != found["bits_per_char"]

    said = ended.out + ended.err
    for words in (f"{found['bits_per_char']:.3f} bits per character", f"{found['parameters']} parameters", " s\n"):
        assert words in said
    assert found["sample"] in said
    names = {path.name for path in Path("run").iterdir() if not path.name.startswith("events")}
    assert names == {"char_lm.log", "checkpoints", "config.yaml", "result.json"}

    drawn = curves("run")
    assert drawn.keys() | {"hparam/*"} == training.GLOSSARY.keys() | {"hparam/bits_per_char"}
    assert [step for step, _ in drawn["losses/bits_per_char"]] == list(range(1, 21))
    for name in ("carried", "zero_state"):
        points = [(point["step"], pytest.approx(point[name])) for point in found["evaluations"]]
        assert drawn[f"eval/bits_per_char_{name}"] == points


def test_it_learns(lm):
    """A line that is repeated is certain after its first characters; its own frequencies cost more than 3 bits."""
    assert lm("steps=150", "core.hidden_size=32", "run_dir=run", "temperature=0", "prompt='She s'").code == 0
    found = result("run")
    assert found["bits_per_char"] < 0.5
    assert found["prompt"] + found["sample"] == LINE[:15]


@pytest.mark.parametrize("core", CORES)
def test_every_core_by_name(core, lm):
    ended = lm(f"core={core}", "steps=2", "run_dir=run")
    assert ended.code == 0, ended.err
    assert result("run")["core"] == core


def test_seeds_repeat_exactly(lm):
    """Weights, curves and sample, with random windows too."""
    for carry in ("true", "false"):
        for name, seed in (("one", 1), ("same", 1), ("other", 2)):
            assert lm("steps=4", f"carry={carry}", f"seed={seed}", f"run_dir={carry}/{name}").code == 0
        one, same, other = (Path(carry, name) for name in ("one", "same", "other"))
        weights = [load_checkpoint(run / "checkpoints/last.pt")["agent"]["model"] for run in (one, same)]
        assert all(leaf.equal(weights[1][name]) for name, leaf in weights[0].items())
        assert result(one)["sample"] == result(same)["sample"]
        assert result(one)["bits_per_char"] == result(same)["bits_per_char"] != result(other)["bits_per_char"]
    assert curves("true/one")["losses/bits_per_char"] == curves("true/same")["losses/bits_per_char"]


def test_bits_are_those_of_a_memory_that_starts_as_it_was_trained(lm):
    assert lm("steps=6", "evaluate_every=3", "carry=false", "run_dir=run").code == 0
    found = result("run")
    assert [point["step"] for point in found["evaluations"]] == [3, 6]  # the last one serves for the end too
    assert found["bits_per_char"] == found["bits_per_char_zero_state"] != found["bits_per_char_carried"]


def test_what_the_updates_see(lm, monkeypatch):
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
    text = "".join(texts.Alphabet("".join(sorted(set(LINE)))).decode(block.symbols[:, 0]) for block, _, _ in seen[:33])
    assert text == (LINE * 30)[: len(text)] and len(text) == 263 - 1 + 1

    seen.clear()
    assert lm("steps=5", "carry=false", "run_dir=windows").code == 0
    assert all(block.starts[0].all() for block, _, _ in seen)


def test_learning_rate_by_hand(lm):
    """Ten updates, three of them falling: 3/3, 2/3, 1/3."""
    assert lm("steps=10", "learning_rate=0.3", "decay=0.3", "run_dir=run").code == 0
    rates = [value for _, value in curves("run")["charts/learning_rate"]]
    assert rates == pytest.approx([0.3] * 8 + [0.2, 0.1])
    assert lm("steps=3", "learning_rate=0.3", "decay=0", "run_dir=constant").code == 0
    assert [value for _, value in curves("constant")["charts/learning_rate"]] == pytest.approx([0.3] * 3)


def test_an_interrupt_saves_what_was_learned(lm, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    original = training.train_step
    monkeypatch.setattr(training, "train_step", interrupted)
    ended = lm("steps=1000", "run_dir=run")
    assert ended.code == 0 and "stopped after 5 steps" in ended.out + ended.err
    stopped = result("run")
    assert stopped["steps"] == 5 and load_checkpoint("run/checkpoints/last.pt")["agent"]["step"] == 5
    assert lm("steps=0", "weights=run", "run_dir=again").code == 0
    assert result("again")["bits_per_char"] == stopped["bits_per_char"]
    assert result("again")["sample"] == stopped["sample"]


def test_weights_of_another_run(lm):
    """Measured on another text with the alphabet it was trained with; other sizes are refused."""
    assert lm("steps=5", "run_dir=run").code == 0
    Path("other.txt").write_text("sea shore " * 40)
    assert lm("steps=0", "weights=run", "text=other.txt", "run_dir=other").code == 0
    assert result("other")["alphabet"] == len(set(LINE)) > len(set("sea shore "))
    Path("other.txt").write_text("sea shöre " * 40)
    for arguments, words in (
        (["text=other.txt"], "text has 'ö', which is not among the 14 characters"),
        (["core=lstm"], "weights=run has another core or other sizes"),
        (["prompt=XYZ"], "prompt has 'X'"),
    ):
        ended = lm("steps=0", "weights=run", *arguments)
        assert ended.code == 1 and words in ended.err and ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("text=missing.txt", "text=missing.txt cannot be read: No such file or directory"),
        ("text=.", "text=. cannot be read: Is a directory"),
        ("text=binary", "text=binary is not a text in UTF-8"),
        ("batch=132", "the text has 1170 characters, and nine tenths of them are not more than batch=132 x block=8"),
        ("steps=-1", "steps=-1: it must be a number of at least 0"),
        ("steps=1.5", "steps=1.5 is not a whole number"),
        ("batch=0", "batch=0: it must be a whole number of at least 1"),
        ("block=true", "block=true is not a whole number"),
        ("carry=1", "carry=1 is not true or false"),
        ("learning_rate=0", "learning_rate=0.0: it must be a number of at least 1e-12"),
        ("decay=1.5", "decay=1.5: it must be a number from 0 to 1"),
        ("temperature=-1", "temperature=-1.0: it must be a number of at least 0"),
        ("evaluate_every=0", "evaluate_every=0: it must be a whole number of at least 1"),
        ("prompt=''", "prompt is empty"),
        ("prompt=XYZ", "prompt has 'X', which is not among the 14 characters of the model"),
        ("device=nowhere", "device=nowhere cannot be used here"),
        ("weights=missing", "there is no checkpoint at missing/checkpoints/last.pt"),
        ("core=lsmt", "there is no core=lsmt; did you mean lstm?"),
        ("core.hidden_sise=3", "there is no key 'core.hidden_sise'; did you mean hidden_size?"),
        ("core.input_size=3", "core.input_size is set by the command itself"),
        ("stepss=3", "there is no key 'stepss'; did you mean steps?"),
    ],
)
def test_bad_values_are_one_sentence(argument, words, lm, monkeypatch):
    def never(*_):
        raise AssertionError("training has begun")

    monkeypatch.setattr(training, "train_step", never)
    Path("binary").write_bytes(b"\xff\xfe\x00" * 1000)
    ended = lm(argument)
    assert ended.code == 1 and ended.err.startswith(f"char_lm: {words}"), ended
    assert ended.err.count("\n") == 1


def test_the_text_that_ships_with_python():
    text = texts.read_text(None)
    first, second = sorted(topics)[:2]
    assert text.startswith(f"{topics[first]}\n{topics[second]}")
    assert len(text) == sum(map(len, topics.values())) + len(topics) - 1


def test_nine_tenths_are_learned_from():
    assert texts.split_text("abcdefghijklmnopqrst", 1, 2) == ("abcdefghijklmnopqr", "st")
    assert texts.split_text("abcdefghijklmnopqrst", 1, 17) == ("abcdefghijklmnopqr", "st")
    with pytest.raises(ConfigError, match="the text has 20 characters"):
        texts.split_text("abcdefghijklmnopqrst", 1, 18)
    with pytest.raises(ConfigError, match="the text has 10 characters"):
        texts.split_text("abcdefghij", 1, 2)  # one character held out: nothing to predict


@pytest.mark.slow
@pytest.mark.parametrize(("core", "bits"), [("gru", 2.20), ("lstm", 2.30), ("rnn", 2.42)])
def test_bits_of_the_topics(core, bits, command):
    """As measured with the topics of Python 3.11; their bigrams alone cost 3.34."""
    assert command("char_lm", f"core={core}", "run_dir=run").code == 0
    assert result("run")["bits_per_char"] <= bits


def test_threads_are_left_at_one():
    """Or tests that come later would not repeat exactly."""
    assert torch.get_num_threads() == 1

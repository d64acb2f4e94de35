"""``python -m experiments.char_lm``: what a run leaves behind, and what is refused."""

from pathlib import Path

import pytest

import conf
from experiments.char_lm import training

CORES = sorted(path.stem for path in Path(conf.__file__).parent.glob("agent/core/*.yaml"))


def test_what_a_run_leaves_behind(lm, line, run_of):
    ended = lm("steps=20", "evaluate_every=8", "run_dir=run", "seed=3")
    assert ended.code == 0
    found = run_of("run").result
    assert (found["core"], found["text"], found["seed"], found["steps"]) == ("gru", "text.txt", 3, 20)
    assert (found["characters"], found["alphabet"]) == (30 * len(line), len(set(line)))
    assert found["parameters"] == 4 * 14 + 3 * 8 * (4 + 8 + 2) + 14 * (8 + 1)
    assert found["prompt"] == "S" and len(found["sample"]) == 10 and set(found["sample"]) <= set(line)
    assert [point["step"] for point in found["evaluations"]] == [8, 16, 20]
    assert found["evaluations"][-1]["carried"] == found["bits_per_char"] == found["bits_per_char_carried"]
    assert found["bits_per_char_zero_state"] != found["bits_per_char"]

    said = ended.out + ended.err
    for words in (f"{found['bits_per_char']:.3f} bits per character", f"{found['parameters']} parameters", " s\n"):
        assert words in said
    assert found["sample"] in said
    names = {path.name for path in Path("run").iterdir() if not path.name.startswith("events")}
    assert names == {"char_lm.log", "checkpoints", "config.yaml", "result.json"}

    drawn = run_of("run")
    assert drawn.tags | {"hparam/*"} == training.GLOSSARY.keys() | {"hparam/bits_per_char"}
    assert drawn.steps("losses/bits_per_char") == list(range(1, 21))
    for name in ("carried", "zero_state"):
        assert drawn.steps(f"eval/bits_per_char_{name}") == [8, 16, 20]
        assert drawn.values(f"eval/bits_per_char_{name}") == pytest.approx([p[name] for p in found["evaluations"]])


def test_it_learns(lm, line, run_of):
    """A line that is repeated is certain after its first characters; its own frequencies cost more than 3 bits."""
    assert lm("steps=150", "core.hidden_size=32", "run_dir=run", "temperature=0", "prompt='She s'").code == 0
    found = run_of("run").result
    assert found["bits_per_char"] < 0.5
    assert found["prompt"] + found["sample"] == line[:15]


@pytest.mark.parametrize("core", CORES)
def test_every_core_by_name(core, lm, run_of):
    ended = lm(f"core={core}", "steps=2", "run_dir=run")
    assert ended.code == 0, ended.err
    assert run_of("run").result["core"] == core


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("text=missing.txt", "text=missing.txt cannot be read: No such file or directory"),
        ("text=.", "text=. cannot be read: Is a directory"),
        ("text=binary", "text=binary is not a text in UTF-8"),
        ("text=wide", "text=wide is not a text in UTF-8"),
        ("text=empty", "the text has 0 characters, and nine tenths of them are not more than batch=4 x block=8"),
        ("text=single", "the text has 1 characters"),
        ("text=short", "the text has 30 characters"),
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
    Path("wide").write_text("text " * 100, encoding="utf-16")
    for name, count in {"empty": 0, "single": 1, "short": 30}.items():
        Path(name).write_text("a" * count)
    ended = lm(argument)
    assert ended.code == 1 and ended.err.startswith(f"char_lm: {words}"), ended
    assert ended.err.count("\n") == 1


def test_a_folder_belongs_to_one_run(lm, cwd):
    """It is named after the run, used once, and not made by what is refused."""
    assert lm("steps=1", "seed=3").code == 0
    (run,) = (cwd / "runs").glob("*/*")
    assert run.name[9:] == "char_lm-gru-seed3" and (run / "char_lm.log").is_file()
    ended = lm("steps=1", f"run_dir={run}")
    assert ended.err == (f"char_lm: run_dir={run} holds a run already: overwrite=true replaces it, or choose another\n")
    assert lm("steps=2", f"run_dir={run}", "overwrite=true").code == 0
    assert lm("learning_rate=-1", "run_dir=other").code == 1
    assert not (cwd / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("core", "bits"), [("gru", 2.20), ("lstm", 2.30), ("rnn", 2.42)])
def test_bits_of_the_topics(core, bits, command, run_of):
    """As measured with the topics of Python 3.11; their bigrams alone cost 3.34."""
    assert command("char_lm", f"core={core}", "run_dir=run").code == 0
    assert run_of("run").result["bits_per_char"] <= bits


def test_texts_as_they_come(lm, run_of):
    """With a byte order mark, lines of Windows, bytes of zero, one symbol alone."""
    text = "She sells\nsea shells. " * 20
    Path("windows").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    Path("zeros").write_bytes(text.replace(" ", "\0").encode())
    Path("same").write_text("a" * 400)
    for name, alphabet in {"windows": len(set(text)), "zeros": len(set(text)), "same": 1}.items():
        ended = lm(f"text={name}", "steps=2", f"run_dir=run_{name}")
        assert (ended.code, ended.err) == (0, ""), ended.err
        found = run_of(f"run_{name}").result
        assert found["alphabet"] == alphabet and found["prompt"] == ("a" if name == "same" else "S")

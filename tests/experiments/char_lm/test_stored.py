"""``weights=RUN``: the run's own alphabet, core and text, whatever the command line leaves out."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from rl.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def run(lm):
    assert lm("core=lstm", "steps=5", "run_dir=run").code == 0
    return Path("run")


def test_nothing_need_be_repeated_to_sample(run, command, run_of, monkeypatch, line):
    """Neither core nor sizes, nor the text, from another folder; the defaults would be another core and text."""
    before = run_of(run).result
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    ended = command("char_lm", "weights=../run", "steps=0", "sample_length=10", "run_dir=again")
    assert (ended.code, ended.err) == (0, ""), ended.err
    found = run_of("again").result
    same = "core", "alphabet", "parameters", "characters", "sample", "bits_per_char"
    assert [found[name] for name in same] == [before[name] for name in same]
    assert (found["core"], found["steps"]) == ("lstm", 0) and set(found["sample"]) <= set(line)


def test_what_agrees_with_the_run_may_be_repeated(run, command):
    shared = "weights=run", "steps=0", "sample_length=5"
    assert command("char_lm", *shared, "core=lstm", "core.hidden_size=8", "embedding_size=4", "run_dir=a").code == 0
    assert command("char_lm", *shared, "text=text.txt", "batch=2", "block=4", "carry=false", "run_dir=b").code == 0
    adopted = OmegaConf.load("b/config.yaml")
    assert (adopted.batch, adopted.block, adopted.carry, adopted.core.hidden_size) == (2, 4, False, 8)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("core=gru", "core._target_=rl.cores.gru: weights=run was trained with rl.cores.lstm; leave it out"),
        ("core.hidden_size=16", "core.hidden_size=16: weights=run was trained with 8; leave it out"),
        ("embedding_size=5", "embedding_size=5: weights=run was trained with 4; leave it out"),
        ("text=missing.txt", "text=missing.txt cannot be read: No such file or directory"),
    ],
)
def test_another_model_is_refused(run, command, argument, message):
    ended = command("char_lm", "weights=run", "steps=0", argument)
    assert (ended.code, ended.err) == (1, f"char_lm: {message}\n")


def spoil(run, key, value):
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, key, value)
    OmegaConf.save(config, run / "config.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "config.yaml").unlink(), r"weights=run has no config\.yaml"),
        (lambda run: (run / "config.yaml").write_text("a: 1"), "is not of char_lm: it has no core"),
        (lambda run: spoil(run, "core._target_", "thief.Core"), r"the core thief\.Core is not one of .* give core"),
        (lambda run: spoil(run, "core.options", {"_target_": "os.system"}), r"the core os\.system is not one of"),
        (lambda run: spoil(run, "core._target_", "rl.cores.nothing"), r"rl\.cores\.nothing is not one of"),
        (lambda run: spoil(run, "core.hidden_size", 9), "weights=run has another core or other sizes"),
        (lambda run: (run / "checkpoints/last.pt").write_bytes(b"no"), "is damaged or no checkpoint"),
        (lambda run: save_checkpoint({"agent": {}}, run / "checkpoints/last.pt"), "is no run folder of char_lm"),
    ],
)  # fmt: skip
def test_a_run_that_is_damaged_or_foreign_is_one_sentence(run, command, change, message):
    change(run)
    ended = command("char_lm", "weights=run", "steps=0")
    assert ended.code == 1 and ended.err.count("\n") == 1 and re.search(message, ended.err), ended.err


def test_a_core_from_elsewhere_runs_if_the_command_line_names_it(run, command, monkeypatch):
    """As it does where it was trained."""
    monkeypatch.syspath_prepend(".")
    Path("my_cores.py").write_text("from rl.cores import lstm as mine\n")
    spoil(run, "core._target_", "my_cores.mine")
    assert command("char_lm", "weights=run", "steps=0").err.endswith(
        "if you trust it, give core._target_=my_cores.mine\n"
    )
    named = "core._target_=my_cores.mine", "sample_length=5", "run_dir=again"
    ended = command("char_lm", "weights=run", "steps=0", *named)
    assert (ended.code, ended.err) == (0, ""), ended.err
    assert load_checkpoint("again/checkpoints/last.pt")["agent"]["step"] == 0

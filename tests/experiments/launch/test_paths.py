"""Paths as the shell can write them reach a command as they were written."""

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments.launch.arguments import rewrite_overrides
from experiments.launch.check import to_dict
from experiments.launch.paths import find_resumed, quote, quote_path

NAMES = [
    *("a=1,b=2", "Läufe", "with space", "-dash", "123", "1e5", "true", "nan", "quo'te", 'dou"ble', "a$b", "a${b}"),
    *("[br]", "{c}", "(p)", "a:b", "a;b", "a&b", "a@b", "back\\slash", "end\\", "#hash", "!bang", " lead", "trail "),
    *("new\nline", "x,y", "*", "+plus", "日本", "=", "~x", "deep/er/", r"\${b}", "'"),
]


def read(*arguments, name="train", sweeping=False):
    """What the command gets: ``arguments`` rewritten, parsed by Hydra, resolved."""
    with initialize_config_module("conf", version_base="1.3"):
        config = compose(name, list(rewrite_overrides(list(arguments), sweeping)))
    return to_dict(OmegaConf.masked_copy(config, [argument.partition("=")[0] for argument in arguments]))


@pytest.fixture(autouse=True)
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name(name, cwd):
    """The name alone, and an absolute path."""
    (cwd / name).mkdir(parents=True)
    assert read(f"init_from={name}") == {"init_from": name}
    assert read(f"run={cwd}/{name}", name="evaluate") == {"run": f"{cwd}/{name}"}


@pytest.mark.parametrize("name", ["a=1,b=2", "ü x", "7", "quo'te"])
def test_several_folders(name, cwd):
    """In a list commas part them, unless they stand in quotes."""
    (cwd / name).mkdir()
    assert read(f"runs={name}", name="plot") == {"runs": name}
    assert read("runs=[runs/a b,7,'x,y',\"u,v\", ü ]", name="plot") == {"runs": ["runs/a b", "7", "x,y", "u,v", "ü"]}
    assert read("runs=[]", name="plot") == {"runs": []}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("run_dir=new folder", "new folder"),
        ("run_dir=new=folder", "new=folder"),
        ("run_dir='new folder'", "new folder"),  # quoted for Hydra by the user
        ('run_dir="new folder"', "new folder"),
        ("run_dir=x/${seed}", "x/1"),  # nothing of that name: an interpolation
        ("run_dir='x ${seed}'", "x 1"),
        ("run_dir=null", None),
        ("run_dir=", ""),
        ("run_dir=~/x y", "HOME/x y"),
        ("run_dir=~nobody-of-that-name/x", "~nobody-of-that-name/x"),
        ("run_dir=" + "x" * 300, "x" * 300),  # longer than a name can be
    ],
)
def test_a_folder_that_is_not_there_yet(argument, value, cwd):
    expected = value and value.replace("HOME", str(cwd / "home"))
    config = read(argument, "seed=1")
    assert config == {"run_dir": expected, "seed": 1}


def test_what_stays_as_it_is():
    for argument in ("seed=a b", "run_dir", "resume=null", "env.path=a b", "+x=1", "run_dir=runs/a-b.c_1"):
        assert quote_path(argument) == argument
    assert quote_path("init_from=a b,c=d,'e,f'", sweeping=True) == "init_from='a b','c=d','e,f'"
    assert quote_path("init_from=glob(*)", sweeping=True) == "init_from=glob(*)"
    assert quote_path("init_from=a b", sweeping=True) == "init_from='a b'"


def test_the_folder_to_resume(cwd):
    (cwd / "home").mkdir()
    (cwd / "'q'").mkdir()
    assert find_resumed(["seed=1"]) is find_resumed(["resume=x", "resume=null"]) is find_resumed(["resume="]) is None
    found = {"a b": "a b", "'a b'": "a b", r"'a\'b'": "a'b", "'q'": "'q'", "~/x": f"{cwd}/home/x", "~nobody-there": ""}
    for value, folder in found.items():
        assert find_resumed([f"resume={value}"]) == (folder or value)
    assert find_resumed(["+resume=y"]) == "y"


@pytest.mark.parametrize("text", ["it's", "a\\", "a\\'b", "${x}", "plain"])
def test_quotes_are_read_back(text):
    with initialize_config_module("conf", version_base="1.3"):
        assert compose("train", [f"run_dir={quote(text)}"]).run_dir == text


def test_runs_in_folders_of_any_name(train_maze, command, cwd):
    """Made, resumed, evaluated, drawn and begun from."""
    name = "Läufe/it's, a=1 [b]"
    train_maze(f"run_dir={name}")
    for name_again in (name, f"{cwd}/{name}/"):
        ended = command("evaluate", f"run={name_again}", "episodes=2")
        assert (ended.code, ended.err) == (0, "")
    ended = command("train", f"resume={name}", "total_steps=16")
    assert (ended.code, ended.err) == (0, "") and (cwd / name / "train.log").is_file()
    assert command("train", f"resume={name}", "total_steps=24").code == 0  # what was written can be read
    assert OmegaConf.load(cwd / name / "config.yaml").run_dir == name
    train_maze(f"init_from={name}", "run_dir=pupil")
    refused = command("train", "resume=a${b}")
    assert (refused.code, refused.err) == (1, "train: resume=a${b}: there is no run in that folder (no config.yaml)\n")
    (cwd / name).rename("a${b}")
    assert command("evaluate", "run=a${b}", "episodes=2").code == 0
    assert command("train", "resume=a${b}", "total_steps=32").code == 0

"""The pages keep their word: every block of code runs, every command is one, every path, key, link and number exists.

Blocks of Python are executed, those of one page one after the other in one namespace. Commands go through a shell in
which each program only says what it was called with. A command of ``experiments`` is then composed and checked; what it
would train is built; what it would do with a finished run is done.
"""

import importlib
import inspect
import pydoc
import re
import runpy
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import get_method
from matplotlib import image
from omegaconf import OmegaConf
from torch.distributed.run import get_args_parser as torchrun_parser

import experiments.launch.build
from experiments.launch.arguments import check_keys, load_defaults
from experiments.launch.build import build
from experiments.launch.environments import WRAPPERS
from experiments.sweeps.space import list_corners, read_space
from tests.tutorials import TUTORIALS, write_files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SHORTER = {"100_000": "4_096"}
"""Numbers of steps in blocks of Python, and what stands for them here."""
COMMANDS, PYTHON, DATA = ("", "bash"), ("python",), ("yaml", "text")
PROGRAMS = ("python", "python3", "pip", "pytest", "ruff", "mypy", "mkdocs", "pre-commit", "tensorboard", "torchrun")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def blocks(page, languages):
    return [text for language, text in BLOCK.findall(TEXT[page]) if language in languages]


def inline(page):
    return INLINE.findall(BLOCK.sub("", TEXT[page]))


def calls(script):
    """What the shell calls: a list of words for each program; an unknown program or variable is an error."""
    stubs = "".join(f'{name}() {{ printf "%s\\037" {name} "$@"; echo; }}\n' for name in PROGRAMS)
    lines = stubs + script.replace(".venv/bin/", "")
    shell = [shutil.which("bash"), "-euc", lines]
    done = subprocess.run(shell, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return [line.split("\037")[:-1] for line in done.stdout.splitlines()]


def commands():
    """Every command of every page once."""
    found = {}
    for page in TEXT:
        spoken = [text for text in inline(page) if text.split()[0] in PROGRAMS and " " in text]
        for script in [*blocks(page, COMMANDS), *spoken]:
            for words in calls(script):
                found[" ".join(words)] = words
    return [pytest.param(words, id=line) for line, words in found.items()]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for page in TUTORIALS:
        write_files(TEXT[page], tmp_path)
    monkeypatch.setattr(experiments.launch.build, "EVALUATION_ENVS", 2)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run of a few steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    small = "env=delayed_recall", "++env.delay=1", "num_envs=2", "num_steps=4", "total_steps=8"
    rest = "evaluate_every=8", "evaluate_episodes=1", "final_episodes=1", f"run_dir={folder}"
    agent = "++agent.bptt=4", "++agent.num_minibatches=1", "++agent.epochs=1", "++agent.core.hidden_size=4"
    run("train", compose_checked("train", [*small, *agent, *rest]))
    return folder


def run(name, config):
    return importlib.import_module(f"experiments.{name}").run(config)


def compose_checked(name, overrides):
    """The configuration of a command, its keys checked."""
    keyed = [f"++{word}" if re.match(r"(?!hydra\.)[a-z_]+\.[\w.]+=", word) else word for word in overrides]
    with initialize_config_module("conf", version_base="1.3"):
        config = compose(name, keyed, return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    del config.hydra
    check_keys(config, name)
    OmegaConf.to_container(config, resolve=True)
    return config


def variants(overrides):
    """A sweep as single commands, each value in one of them at least."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    values = [
        [f"{each.get_key_element()}={value}" for value in each.sweep_string_iterator()]
        if each.is_sweep_override()
        else [each.input_line]
        for each in parsed
    ]
    return [[choice[turn % len(choice)] for choice in values] for turn in range(max(map(len, values), default=1))]


def check_experiment(name, arguments, run_dir):
    overrides = [word.replace("RUN_DIR", str(run_dir)).replace("SWEEP_DIR", str(run_dir.parent)) for word in arguments]
    overrides = [word for word in overrides if word not in ("-m", "--multirun", "--cfg", "job", "--help")]
    if importlib.util.find_spec("optuna") is None:  # nor are the launchers of its extra there
        overrides = [word for word in overrides if not word.startswith(("hydra/launcher=", "hydra.launcher."))]
    for chosen in variants(overrides):
        config = compose_checked(name, chosen)
        if name == "sweep":
            check_space(config, chosen)
        if name == "train" and config.resume is None:
            check_build(config)
        elif name in ("evaluate", "plot", "watch") and "RUN_DIR" in " ".join(arguments):
            run(name, config)
        elif config.get("player") is not None:
            assert pydoc.locate(config.player) is not None


def check_space(config, overrides):
    """What a search varies can be read, and its runs can be made with all of it."""
    pytest.importorskip("optuna")
    space = read_space(config.search)
    own = {*map(str, load_defaults("sweep")), "search"}
    base = [word for word in overrides if word.partition("=")[0].partition(".")[0] not in own]
    for corner in list_corners(space):
        check_build(compose_checked("train", [*base, *corner]))


def check_build(config):
    """Agent and environments can be made; without a package the error has to name the extra, or how to install it."""
    try:
        build(config).close()
    except HydraException as error:
        extra = re.search(r"pip install .recurrent-ppo\[(\w+)\]", str(error))
        assert extra[1] in EXTRAS if extra else "pip install --no-deps memory-gym" in str(error), error


@pytest.mark.slow
@pytest.mark.parametrize("words", commands())
def test_every_command_is_one(words, run_dir):
    program, *arguments = words
    if program == "torchrun":
        arguments = torchrun_parser().parse_args(arguments)
        program, arguments = "python", ["-m", arguments.training_script, *arguments.training_script_args]
    if program.startswith("python") and arguments[0] == "-m":
        module = arguments[1]
        if module.startswith("experiments."):
            check_experiment(module.removeprefix("experiments."), arguments[2:], run_dir)
        assert importlib.util.find_spec(module) is not None
    elif program.startswith("python"):
        assert any((folder / arguments[0]).is_file() for folder in (ROOT, ROOT / "experiments"))
    for word in arguments:
        for extra in re.findall(r"\.\[([\w,]+)\]", word):
            assert set(extra.split(",")) <= EXTRAS.keys()
        if (program == "pytest" and "/" in word) or word == "constraints.txt":
            assert (ROOT / word).exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in TEXT if blocks(page, PYTHON) and page not in TUTORIALS])
def test_python_runs(page):
    namespace = {"__name__": "page"}
    for block in blocks(page, PYTHON):
        for number, less in SHORTER.items():
            block = block.replace(number, less)
        exec(compile(block, page, "exec"), namespace)


def test_the_shortened_numbers_occur():
    everything = "".join(block for page in TEXT for block in blocks(page, PYTHON))
    assert [number for number in SHORTER if number not in everything] == []


def test_no_block_is_left_out():
    known = {*COMMANDS, *PYTHON, *DATA}
    assert {language for text in TEXT.values() for language, _ in BLOCK.findall(text)} <= known
    for page in TEXT:
        for block in blocks(page, ("yaml",)):
            OmegaConf.create(block)


@pytest.mark.parametrize("page", TEXT)
def test_paths_names_and_keys_exist(page):
    """Those in running text: ``rl/ppo/losses.py``, ``rl.ppo.PPO``, ``experiment=quick``, ``agent.core.hidden_size``."""
    tops = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"runs", "recordings", "site"}
    for text in inline(page):
        if re.fullmatch(r"\.?\w+/[\w./-]*", text) and text.partition("/")[0] in tops:
            assert (ROOT / text).exists(), text
        if re.fullmatch(r"(rl|envs|experiments)(\.\w+)+", text):
            assert pydoc.locate(text) is not None, text
        for group, name in re.findall(r"^(agent|agent/core|env|experiment)=([a-z]\w*)(?= |$)", text):
            assert (ROOT / "conf" / group / f"{name}.yaml").is_file(), text
        for group, key in re.findall(r"(?<![\w./])(agent\.core|agent|env)\.([a-z]\w*)(?==|$)", text):
            assert key in keys()[group], text
    for name in re.findall(r"\]\[([\w.]+)\]", TEXT[page]):
        assert pydoc.locate(name) is not None, name


@cache
def keys():
    """The arguments of all agents, cores and environments that ``conf`` knows."""
    found = {"agent": {"seats", "members", "core"}, "agent.core": set(), "env": {"id", *WRAPPERS}}
    for group, folder in (("agent", "agent"), ("agent.core", "agent/core"), ("env", "env")):
        for path in (ROOT / "conf" / folder).glob("*.yaml"):
            target = get_method(OmegaConf.load(path)._target_)
            found[group] |= set(inspect.signature(target).parameters)
    return found


@pytest.mark.parametrize("page", [*TEXT, "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if not re.match(r"https?://|#", link):
            assert (ROOT / page).parent.joinpath(link.partition("#")[0]).exists(), link


@pytest.mark.parametrize(
    ("page", "folder"),
    [("guide", "agent"), ("guide", "agent/core"), ("guide", "experiment"), ("environments", "env")],
)
def test_everything_that_can_be_chosen_is_named(page, folder):
    named = {word for text in INLINE.findall(TEXT[f"docs/{page}.md"]) for word in re.findall(r"\w+", text)}
    assert {path.stem for path in (ROOT / "conf" / folder).glob("*.yaml")} <= named


def table_rows(text, first):
    """The cells of each row of the tables whose first column is called ``first``."""
    table = re.findall(rf"^\| {re.escape(first)} \|.*?(?=^(?!\|))", text + "\n\n", re.MULTILINE | re.DOTALL)
    lines = [line for part in table for line in part.splitlines()[2:]]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def named_rows(text, first):
    """The rows of ``table_rows`` by the heads of their columns."""
    head = re.search(rf"^\| {re.escape(first)} \|.*$", text, re.MULTILINE)[0]
    names = [name.strip() for name in head.strip("|").split(" | ")]
    return [dict(zip(names, row, strict=True)) for row in table_rows(text, first)]


def test_returns_of_the_environments_are_those_that_they_say():
    for name, _, best, memoryless, _ in table_rows(TEXT["docs/environments.md"], "`env=`"):
        target = pydoc.locate(OmegaConf.load(ROOT / f"conf/env/{name.strip('`')}.yaml")._target_)
        task = target(6)
        known = [task.optimal_return, task.memoryless_return]
        assert [best, memoryless] == ["?" if value is None else f"{value:.4g}" for value in known], name


def test_results_in_the_readme_stand_in_the_learning_table():
    shown, every = (named_rows(TEXT[page], "task") for page in ("README.md", "docs/results.md"))
    assert len(shown) == 6 and [row for row in shown if not any(row.items() <= kept.items() for kept in every)] == []


@pytest.mark.parametrize(
    ("command", "page", "plot"),
    [
        ("learning_table", "docs/results.md", "docs/learning_curves.png"),
        ("compare_cores", "docs/cores.md", None),
        ("memory_suite", "docs/memory_suite.md", "docs/memory_suite.png"),
        ("memory_ladder", "docs/memory_ladder.md", "docs/memory_ladder.png"),
    ],
)
def test_tables_go_to_their_page_where_that_is_asked_for(command, page, plot):
    """By the command that stands there; a run of anybody's own leaves pages and pictures alone."""
    config = OmegaConf.load(ROOT / f"conf/{command}.yaml")
    assert config.page is None and Path(config.get("plot") or config.output).is_relative_to(config.output)
    words = next(
        line for line in TEXT[page].splitlines() if line.startswith(f"python -m experiments.{command}")
    ).split()
    assert f"page={page}" in words and (plot is None or f"plot={plot}" in words)
    begin, end = importlib.import_module(f"experiments.tables.{command}").MARKERS
    before, _, rest = TEXT[page].partition(begin)
    assert before and end in rest


def test_the_readme_is_short():
    assert len(TEXT["README.md"].splitlines()) <= 110


def test_every_package_stands_in_the_reference():
    """With all of its modules, which ``docs/hooks.py`` puts there; those of ``rl`` itself are named one by one."""
    pages = "\n".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    listed = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE)) | set(re.findall(r"<!-- modules of (\S+) -->", pages))
    packages = [path.parent for top in ("rl", "envs") for path in (ROOT / top).rglob("__init__.py")]
    for path in [*packages, *(ROOT / "rl").glob("[!_]*.py")]:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        assert name in listed, f"{name} is missing in docs/api"


def test_modules_of_a_package_are_found():
    directives = runpy.run_path(str(DOCS / "hooks.py"))["directives"]("rl.ppo")
    assert "::: rl.ppo.losses\n    options: { heading_level: 3 }" in directives
    (update,) = [text for text in directives if text.startswith("::: rl.ppo.update\n")]
    assert '"!^PPO$"' in update  # it stands above, with its package


@pytest.mark.parametrize("name", ["imports", "rollout"])
def test_drawings_are_as_their_script_draws_them(name):
    """Else run ``python docs/drawings.py``."""
    assert (DOCS / f"{name}.svg").read_text() == runpy.run_path(str(DOCS / "drawings.py"))[name]()


def test_the_drawing_of_imports_has_every_folder():
    drawn = (DOCS / "imports.svg").read_text()
    folders = [path.parent for path in (ROOT / "rl").glob("*/__init__.py")]
    modules = [path for path in (ROOT / "rl").glob("*.py") if path.stem != "__init__"]
    for path in [*folders, *modules]:
        assert re.search(rf"\b{path.stem}\b", drawn), path.name


def test_the_page_on_metrics_is_the_glossary():
    """Else run ``python docs/metrics_page.py``."""
    from rl.training.metrics import GLOSSARY

    assert TEXT["docs/metrics.md"] == runpy.run_path(str(DOCS / "metrics_page.py"))["page"](GLOSSARY)


def test_without_a_browser_screenshots_say_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    main = runpy.run_path(str(DOCS / "screenshots.py"))["main"]
    with pytest.raises(SystemExit, match="screenshots: no browser was found"):
        main("tensorboard", tmp_path, tmp_path / "page.png")


def test_screenshots_photograph_what_a_command_serves(tmp_path):
    """A page of two colours, which stands in the place of one that a command of ours serves."""
    if not shutil.which("chromium"):
        pytest.skip("needs chromium")
    names = runpy.run_path(str(DOCS / "screenshots.py"))
    (tmp_path / "index.html").write_text("<body style='margin:0;background:#ff0000'>")
    page = names["Page"](
        ("http.server", "--bind", "127.0.0.1", "--directory", "{run}", "{port}"), size=(60, 40), settle=0.1
    )
    names["PAGES"]["plain"] = page
    names["main"]("plain", tmp_path, tmp_path / "page.png")
    picture = image.imread(tmp_path / "page.png")
    assert picture.shape[:2] == (40, 60) and (picture[..., :3] == [1, 0, 0]).all()


def test_pictures_are_small():
    assert [path.name for path in (DOCS / "tutorials").glob("*.png") if path.stat().st_size > 150_000] == []
    assert sum(path.stat().st_size for path in (DOCS / "gallery").glob("*.png")) < 400_000

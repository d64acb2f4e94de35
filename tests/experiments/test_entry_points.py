"""Every command: its module, its YAML file, its console script; and commands do not lean on each other."""

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

import conf
import experiments
from experiments.launch import command

FOLDER = Path(experiments.__file__).parent
SCRIPTS = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]["scripts"]
COMMANDS = sorted(path.stem for path in Path(conf.__file__).parent.glob("*.yaml"))
MODULES = {
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts): path
    for path in FOLDER.rglob("*.py")
    if path.name != "__init__.py"
}


def module_of(name):
    """The module that ``python -m experiments.NAME`` runs."""
    return f"experiments.{name}" if f"experiments.{name}" in MODULES else f"experiments.{name}.__main__"


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return found


def test_every_command_has_a_console_script_and_every_script_a_command():
    scripts = {f"recurrent-ppo-{name.replace('_', '-')}": f"{module_of(name)}:main" for name in COMMANDS}
    assert scripts == SCRIPTS


@pytest.mark.parametrize("name", COMMANDS)
def test_main_launches_run_with_the_yaml_file_of_its_name(name, monkeypatch):
    module = importlib.import_module(module_of(name))
    launched = []
    monkeypatch.setattr(module, "launch", lambda *arguments: launched.append(arguments))
    module.main()
    assert launched == [(module.run, name)]
    assert '__name__ == "__main__":\n    main()' in MODULES[module_of(name)].read_text()


def test_every_module_that_launches_is_a_command():
    launching = {name for name, path in MODULES.items() if f"{command.__name__}.launch" in imports(path)}
    assert launching == {module_of(name) for name in COMMANDS}


def test_no_module_imports_a_command():
    """What several need lies in ``launch`` or ``tables``; a command only opens a door."""
    for name, path in MODULES.items():
        wrong = imports(path) & {module_of(command) for command in COMMANDS}
        assert not wrong - {name}, name


def test_a_command_that_is_imported_is_seen(tmp_path):
    """Or the test above could not fail."""
    planted = tmp_path / "planted.py"
    planted.write_text("def late():\n    from experiments.train import run\n    return run\n")
    assert module_of("train") in imports(planted)

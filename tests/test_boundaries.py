"""What may import what, what may be named where, and how long a file may become."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from rl import types

ROOT = Path(types.__file__).parents[1]
PACKAGES = ("rl", "envs", "experiments")
LEAVES = {"h", "c", "keys", "conv", "ssm", "age"}

# The folders of rl, lowest first; one may import those of lower layers and, without a circle, itself.
LAYERS = (
    (
        "rl.types",
        "rl.checks",
        "rl.trust",
        "rl.schema",
        "rl.spaces",
        "rl.checkpoint",
        "rl.normalisation",
        "rl.flat_adam",
        "rl.sizes",
        "rl.graphs",
        "rl.shards",
        "rl.schedules",
    ),
    ("rl.cores", "rl.encoders"),
    ("rl.networks",),
    ("rl.ppo", "rl.iqn"),
    ("rl.agents",),
    ("rl.training",),
    ("rl.recordings", "rl.export", "rl.foreign", "rl.memory_check"),
)
TENSORS = ("envs.array_module", "envs.brax_env", "envs.tensor_vector_env")
"""Modules of envs that hand out tensors: they import torch where it is used, so that all others can be had without."""

APART = (("rl.cores", "rl.encoders"), ("rl.cores", "rl.networks"), ("rl.ppo", "rl.iqn"))
"""Folders that never meet: cores are handed to networks; the two algorithms know nothing of each other."""


def files(*packages):
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def nodes(path):
    """All nodes of a module, which is read once for all tests."""
    return tuple(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path):
    """Dotted names that a module imports anywhere: inside functions and for a type checker alone, too."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def modules(*packages):
    return {name_of(path): path for path in files(*packages)}


def arrows(known):
    """``module -> modules that it imports``, the ``__init__`` of a folder counted as the modules it hands out."""
    found = {}
    for name, path in known.items():
        targets = set()
        for imported in imports(path):
            target = imported if imported in known else imported.rpartition(".")[0]
            if target in known and target != name:
                targets.add(target)
        found[name] = targets
    return found


def circles(graph):
    """The modules that can be reached from themselves."""

    def reach(start):
        seen, waiting = set(), list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        return seen

    return sorted(name for name in graph if name in reach(name))


def within(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


@cache
def quoted(path):
    """String constants of a module that are no docstrings."""
    prose = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in nodes(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    }


@pytest.fixture(scope="module")
def run_python():
    """Runs a program in a process of its own, in the folder above the packages; what it printed."""

    def run(program):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


BLOCKED = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is not to be imported here")

sys.meta_path.insert(0, Blocker())
package = importlib.import_module({package!r})
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(len([name for name in sys.modules if name.startswith({package!r})]))
"""


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        ("rl", ("hydra", "omegaconf", "envs", "experiments", "conf")),
        ("envs", ("hydra", "omegaconf", "rl", "torch", "experiments", "conf")),
    ],
)
def test_every_module_imports_without_what_it_must_not_need(run_python, package, blocked):
    loaded = int(run_python(BLOCKED.format(package=package, blocked=blocked)))
    assert loaded >= len([path for path in files(package) if path.name != "__init__.py"])


def test_the_blocker_blocks(run_python):
    """Or the test above could not fail."""
    program = BLOCKED.format(package="rl", blocked=("torch",))
    with pytest.raises(AssertionError, match="torch is not to be imported here"):
        run_python(program)


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("rl", ("envs", "experiments", "conf", "hydra", "omegaconf", "tests")),
        ("envs", ("rl", "experiments", "conf", "hydra", "omegaconf", "tests")),
    ],
)
def test_packages_stand_on_their_own(package, forbidden):
    for path in files(package):
        allowed = ("torch",) if within(name_of(path), TENSORS) else ()
        wrong = sorted(name for name in imports(path) if within(name, forbidden) and not within(name, allowed))
        assert not wrong, f"{name_of(path)} imports {wrong}"


def test_few_modules_of_envs_know_torch():
    """And import it only where a device is named, as the test of every module shows."""
    users = [name_of(path) for path in files("envs") if any(within(name, ("torch",)) for name in imports(path))]
    assert users == sorted(TENSORS)


def layer_of(name):
    return next((index for index, layer in enumerate(LAYERS) if within(name, layer)), None)


def folder_of(name):
    return next(folder for layer in LAYERS for folder in layer if within(name, (folder,)))


def wrong_arrows(graph):
    """Arrows of rl that run upwards, or between folders that never meet."""
    found = []
    for name, targets in graph.items():
        for target in targets:
            if "rl" in (name, target) or not within(target, ("rl",)):
                continue
            own, other = folder_of(name), folder_of(target)
            level, ground = layer_of(name), layer_of(name) == 0
            upwards = layer_of(target) > level
            if upwards or (not ground and any({own, other} == set(pair) for pair in APART)):
                found.append(f"{name} -> {target}")
    return found


def test_every_module_of_rl_has_a_layer():
    for name in modules("rl"):
        assert name == "rl" or layer_of(name) is not None, f"{name} has no layer: give it one in this test"


def test_imports_run_downwards():
    """From a run over agents, algorithms and networks to the ground; PPO and IQN never meet, nor cores and networks."""
    assert wrong_arrows(arrows(modules("rl"))) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_by_a_circle(package):
    assert circles(arrows({name: path for name, path in modules(package).items() if name != "rl"})) == []


@pytest.mark.parametrize(
    ("below", "above", "line"),
    [
        ("rl/ppo/losses.py", "rl.ppo.update", "def late():\n    from rl.ppo.update import PPO\n    return PPO\n"),
        ("rl/agents/actor.py", "rl.agents.recurrent_ppo", "if TYPE_CHECKING:\n    import rl.agents.recurrent_ppo\n"),
        ("rl/checks.py", "rl.agents.actor", "def late():\n    import rl.agents.actor\n"),
    ],
)
def test_a_backward_import_is_seen(tmp_path, below, above, line):
    """Inside a function, between siblings and for a type checker alone: or the tests above could not fail."""
    known = {name: path for name, path in modules("rl").items() if name != "rl"}
    planted = tmp_path / "planted.py"
    planted.write_text((ROOT / below).read_text() + line)
    name = below.removesuffix(".py").replace("/", ".")
    graph = arrows(known | {name: planted})
    assert above in graph[name]
    assert name in circles(graph)


def test_the_equations_lean_on_nothing():
    """Types, checks and the equations can be read and used alone."""
    graph = arrows(modules("rl"))
    for name in ("rl.types", "rl.checks", "rl.ppo.losses", "rl.ppo.advantages", "rl.iqn.losses"):
        assert graph[name] <= {"rl.types", "rl.checks"}, name


def test_only_cores_know_the_names_of_their_state():
    """Buffer, networks and agents carry leaves by whatever name; nobody else may ask for one."""
    assert LEAVES & {word for path in files("rl/cores") for word in quoted(path)}  # the search does find them
    for path in files("rl"):
        if not within(name_of(path), ("rl.cores", "rl.encoders")):  # there is an mlp of both
            wrong = sorted(LEAVES & quoted(path))
            assert not wrong, f"{name_of(path)} names the state leaves {wrong}"


def test_only_cores_are_asked_for_by_name_of_their_own():
    """No core is treated as a special case elsewhere: its name occurs as a default only."""
    names = {path.stem for path in files("rl/cores")} - {"__init__"}
    for path in files("rl"):
        if not within(name_of(path), ("rl.cores", "rl.encoders", "rl.foreign")):  # others have an mlp and dropout, too
            assert not names & quoted(path), f"{name_of(path)} names a core"


def test_only_experiments_know_of_hydra():
    users = {name_of(path).partition(".")[0] for path in files(*PACKAGES) if "hydra" in path.read_text()}
    assert users == {"experiments"}


@pytest.mark.parametrize("package", ["rl", "envs", "experiments"])
def test_files_stay_short(package):
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in files(package)}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > 320} == {}


def test_public_functions_and_classes_have_docstrings():
    for path in files("rl"):
        module = nodes(path)[0]
        for node in module.body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            assert not public or ast.get_docstring(node), f"{name_of(path)}.{node.name} says nothing of itself"
        assert ast.get_docstring(module) or path.stat().st_size == 0, name_of(path)

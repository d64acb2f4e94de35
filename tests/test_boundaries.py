"""What may import what, what may be named where, and how long a file may become."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from rl import types

ROOT = Path(types.__file__).parents[1]
PACKAGES = ("rl", "envs", "experiments")
LEAVES = {"h", "c", "keys", "conv", "ssm", "age"}

# Each module of rl and the modules of rl that it may import, lowest first.
LAYERS = (
    {"rl.types", "rl.checks", "rl.checkpoint", "rl.metrics", "rl.spaces", "rl.stepping", "rl.advantages", "rl.losses"}
    | {"rl.flat_adam", "rl.diagnostics", "rl.threads", "rl.transfer"},
    {"rl.cores", "rl.normalisation"},
    {"rl.networks", "rl.sequence_model"},
    {"rl.teacher", "rl.rollout_buffer", "rl.sequence_replay", "rl.recordings", "rl.repeat_baseline"},
    {"rl.ppo", "rl.iqn"},
    {"rl.agents"},
    {"rl.evaluation", "rl.trainer", "rl.export"},
    {"rl.imitation"},
)


def files(*packages):
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, types_too=True):
    """Dotted names that a module imports anywhere; without those for a type checker alone if asked."""
    tree = ast.parse(path.read_text())
    found = set()

    def walk(node):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING" and not types_too:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(tree)
    return found


def within(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def quoted(path):
    """String constants of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
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
        ("envs", ("rl", "experiments", "conf", "hydra", "omegaconf", "torch", "tests")),
    ],
)
def test_packages_stand_on_their_own(package, forbidden):
    for path in files(package):
        wrong = sorted(name for name in imports(path) if within(name, forbidden))
        assert not wrong, f"{name_of(path)} imports {wrong}"


def layer_of(name):
    return next((index for index, layer in enumerate(LAYERS) if within(name, layer)), None)


def test_imports_run_downwards():
    """From the loops over agents, update, buffer, networks and cores to pure functions and types."""
    for path in files("rl"):
        own = name_of(path)
        if own == "rl":
            continue
        layer = layer_of(own)
        assert layer is not None, f"{own} has no place among the layers: give it one in this test"
        for imported in imports(path, types_too=False):
            if not within(imported, ("rl",)):
                continue
            siblings = own.split(".")[:2] == imported.split(".")[:2]
            below = layer_of(imported)
            assert below is not None, f"{own} imports {imported}, which has no layer"
            assert siblings or below < layer or pure(own, imported), f"{own} imports {imported} from above"


def pure(own, imported):
    """Within the lowest layer only types and checks may be shared."""
    return layer_of(own) == 0 and imported.startswith(("rl.types", "rl.checks"))


@pytest.mark.parametrize("module", ["types", "checks", "losses", "advantages", "checkpoint"])
def test_the_ground_leans_on_nothing(module):
    """Types, checks and the equations can be read and used alone."""
    path = ROOT / "rl" / f"{module}.py"
    assert not [name for name in imports(path) if within(name, ("rl",)) and not within(name, ("rl.types", "rl.checks"))]


def test_only_cores_know_the_names_of_their_state():
    """Buffer, networks and agents carry leaves by whatever name; nobody else may ask for one."""
    assert LEAVES & {word for path in files("rl/cores") for word in quoted(path)}  # the search does find them
    for path in files("rl"):
        if not within(name_of(path), ("rl.cores",)):
            wrong = sorted(LEAVES & quoted(path))
            assert not wrong, f"{name_of(path)} names the state leaves {wrong}"


def test_only_cores_are_asked_for_by_name_of_their_own():
    """No core is treated as a special case elsewhere: its name occurs as a default only."""
    names = {path.stem for path in files("rl/cores")} - {"__init__"}
    for path in files("rl"):
        if not within(name_of(path), ("rl.cores",)):
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
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            assert not public or ast.get_docstring(node), f"{name_of(path)}.{node.name} says nothing of itself"
        assert ast.get_docstring(ast.parse(path.read_text())) or path.stat().st_size == 0, name_of(path)

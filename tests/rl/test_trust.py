"""What stored data may name: parts of agents, environments, harmless wrappers; all else only if it is trusted."""

import sys

import pytest

import rl.agents
import rl.cores
from envs.t_maze import TMaze
from rl.trust import FACTORIES, WRAPPERS, UntrustedError, check_place, import_trusted, is_trusted


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("rl.agents.RecurrentPPOLSTM", rl.agents.RecurrentPPOLSTM),
        ("rl.RecurrentIQN", rl.agents.RecurrentIQN),
        ("rl.cores.gru", rl.cores.gru),
        ("rl.cores.gru.gru", rl.cores.gru),
        ("envs.t_maze.TMaze", TMaze),
    ],
)
def test_what_this_project_is_made_of(path, named):
    assert import_trusted(path) is named


@pytest.mark.parametrize(
    "path",
    [
        "rl.recordings.Imitation",
        "rl.networks.Encoder",
        *FACTORIES,
        *(f"rl.training.observers.{name}" for name in ("CSV", "MLflow", "WandB")),
        "rl.training.observers.csv_file.CSV",
        "envs.gymnasium_env.DropObservation",
        "gymnasium.wrappers.FlattenObservation",
        "gymnasium.spaces.Box",
    ],
)
def test_other_parts_that_data_may_name(path):
    assert callable(import_trusted(path))


@pytest.mark.parametrize("path", ["os.system", "subprocess.run", "builtins.eval", "my_package.sub.Env", "hydra.main"])
def test_foreign_code_is_refused_with_the_way_to_trust_it(path):
    with pytest.raises(UntrustedError) as raised:
        import_trusted(path)
    package = path.partition(".")[0]
    sentence = f"{path} is code from outside this project: it runs only if you trust it, trust=[{package}]"
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "path",
    [
        "rl.import_module",  # what our modules import is not ours
        "rl.agents.recurrent_ppo.Path",
        "rl.agents.client.save_checkpoint",
        "rl.checkpoint.save_checkpoint",  # ours, but it writes files
        "rl.trust.import_trusted",
        "rl.export.write",
        "rl.training.Trainer",
        "rl.training.observers.csv_file.write_text",  # it writes files where it is told to
        "rl.training.observers.observer.Path",
        "rl.training.observers.wandb_run.secrets",
        "envs.single_env.make_batched",  # imports what an argument names
        "envs.single_env.SingleEnv",
        "envs.gymnasium_env.resolve_wrapper",
        "envs.gymnasium_env.partial",
        "gymnasium.make",
        "gymnasium.register",
        "gymnasium.wrappers.RecordVideo",  # writes files
        "gymnasium.wrappers.TransformReward",  # calls an argument
        "gymnasium.wrappers.HumanRendering",
        "gymnasium.utils.play.play",
        "gymnasium.envs.registration.load_env_creator",
    ],
)
@pytest.mark.filterwarnings("ignore:.*matplotlib is not installed")  # Gymnasium's play says so of a screen that lacks
def test_what_else_our_packages_hand_out_is_refused(path):
    with pytest.raises(
        UntrustedError, match=r"is no agent, core, encoder, environment or harmless wrapper: .* trust=\["
    ):
        import_trusted(path)


def test_trust_is_of_packages_and_modules():
    assert is_trusted("a.b.C", ["a"]) and is_trusted("a.b.C", ["a.b"]) and is_trusted("a.b", ["a.b"])
    assert not is_trusted("ab.C", ["a"]) and not is_trusted("a.C", ["a.b"]) and not is_trusted("a.C", [])
    assert import_trusted("rl.checkpoint.save_checkpoint", ["rl.checkpoint"]).__name__ == "save_checkpoint"
    assert import_trusted("collections.OrderedDict", ["collections"]) is not None


def test_there_is_no_such_thing():
    with pytest.raises(AttributeError, match="Nobody"):
        import_trusted("rl.agents.Nobody")
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        import_trusted("envs.nothing.Env")


@pytest.mark.parametrize(
    "name", ["RecordVideo", "HumanRendering", "ArrayConversion", "TransformObservation", "TransformAction"]
)
def test_no_wrapper_is_harmless_that_writes_calls_or_imports(name):
    assert name not in WRAPPERS


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run folder below the first folder on the path, with a module in it that must not run."""
    folder = tmp_path / "runs/mine"
    folder.mkdir(parents=True)
    (folder / "trap.py").write_text("raise AssertionError('it has run')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize("inside", ["", "package", "deep/er"])
def test_nothing_in_a_run_folder_is_imported_trusted_or_not(run_dir, inside, monkeypatch):
    """By the folders in front of it, which need no ``__init__.py``, or from the folder itself."""
    (run_dir / inside).mkdir(parents=True, exist_ok=True)
    (run_dir / inside / "code.py").write_text("raise AssertionError('it has run')\n")
    module = ".".join(["runs.mine", *inside.split("/"), "code"]).replace("..", ".")
    for trust in ((), ("runs",), (module,)):
        with pytest.raises(UntrustedError, match=f"^{module} lies in the run folder {run_dir}: a run folder is data"):
            import_trusted(f"{module}.Env", trust, run_dir)
    monkeypatch.syspath_prepend(run_dir)
    with pytest.raises(UntrustedError, match=r"^trap lies in the run folder"):
        import_trusted("trap.Env", ("trap",), run_dir)
    assert "trap" not in sys.modules and module not in sys.modules


def test_a_link_out_of_the_path_into_a_run_folder(run_dir):
    (run_dir.parents[1] / "innocent.py").symlink_to(run_dir / "trap.py")
    with pytest.raises(UntrustedError, match=r"^innocent lies in the run folder"):
        check_place("innocent", run_dir)


def test_a_package_of_the_name_of_a_run_folder_is_another(run_dir, tmp_path, monkeypatch):
    """The import takes the regular package, wherever it stands on the path."""
    installed = tmp_path / "installed/runs"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed.parent)])
    check_place("runs.mine", run_dir.parent / "other")
    check_place("runs", run_dir)
    check_place("json", run_dir)
    check_place("nowhere.at.all", run_dir)
    check_place("runs.mine.trap", None)

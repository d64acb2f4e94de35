"""MLflow, with a store on this machine."""

import sys

import pytest

from rl.training.observers import MLflow


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match=r"^the observer mlflow needs the package mlflow: pip install .recurrent-ppo"):
        MLflow()


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.slow), "file"])
def mlflow(request, tmp_path, monkeypatch):
    """A store of SQLite takes seconds to be made, one of files less."""
    package = pytest.importorskip("mlflow")
    if request.param == "sqlite":
        pytest.importorskip("sqlalchemy")
    store = f"sqlite:///{tmp_path}/runs.db" if request.param == "sqlite" else f"file://{tmp_path}/store"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = package.get_tracking_uri()
    package.set_tracking_uri(store)
    yield package
    package.set_tracking_uri(before)


@pytest.mark.filterwarnings("ignore")
def test_a_run_is_logged_and_goes_on_without_doubles(mlflow, make_run):
    """Killed after step 24 in front of the evaluation there; its last checkpoint is of step 16."""
    config = {f"agent.option{number}": number for number in range(150)} | {"total_steps": 24}
    first = MLflow(experiment="mine")
    first.begin(make_run(), config)
    for step in (8, 16, 24):
        first.report({"losses/entropy": step / 8}, step)
    first.report({"eval/episodic_return": 0.5}, 16)

    second = MLflow(experiment="mine")
    second.begin(make_run(16), config | {"total_steps": 32})
    for step in (24, 32):
        second.report({"losses/entropy": step / 8}, step)
        second.report({"eval/episodic_return": 0.75}, step)
    client = mlflow.MlflowClient()
    assert client.get_run(second.name).info.status == "RUNNING"
    second.end({"env_steps": 32})

    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert (run.info.run_id, run.info.run_name, run.info.status) == (first.name, "run", "FINISHED")
    assert run.data.params == {key: str(value) for key, value in config.items()}
    assert run.data.tags["resumed.total_steps"] == "32"
    history = {tag: [(m.step, m.value) for m in client.get_metric_history(first.name, tag)] for tag in run.data.metrics}
    assert {tag: sorted(points) for tag, points in history.items()} == {
        "losses/entropy": [(8, 1.0), (16, 2.0), (24, 3.0), (32, 4.0)],
        "eval/episodic_return": [(16, 0.5), (24, 0.75), (32, 0.75)],
    }


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_was_stopped_says_so(mlflow, make_run):
    observer = MLflow()
    observer.begin(make_run(), {})
    observer.end(None)
    assert mlflow.MlflowClient().get_run(observer.name).info.status == "KILLED"

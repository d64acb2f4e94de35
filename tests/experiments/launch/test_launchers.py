"""Where the jobs of a sweep run, and how they share the cores."""

import pytest

from experiments.launch import launchers
from experiments.launch.check import ConfigError
from experiments.launch.jobs import Jobs, JobsApart, JobsInQueue
from experiments.launch.launchers import choose_jobs, count_jobs, share_cores


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Eight cores, and the packages of the extra."""
    monkeypatch.setattr(launchers, "available_cores", lambda: 8)
    monkeypatch.setattr(launchers, "find_spec", lambda name: object())


@pytest.mark.parametrize(
    ("overrides", "multirun", "kind", "more"),
    [
        (["seed=1,2"], True, Jobs, []),
        (["seed=1", "hydra/launcher=joblib"], False, Jobs, []),  # Hydra does not look at it either
        (["seed=1,2", "hydra/launcher=basic"], True, Jobs, []),
        (["seed=1,2", "hydra/launcher=joblib"], True, JobsApart, ["hydra.launcher.n_jobs=8"]),
        (["seed=1,2", "hydra/launcher=joblib", "threads=3"], True, JobsApart, ["hydra.launcher.n_jobs=2"]),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=3"], True, JobsApart, []),
        (["hydra/launcher=submitit_local"], True, JobsApart, []),
        (["hydra/launcher=submitit_slurm"], True, JobsInQueue, []),
        (["hydra/launcher=joblib", "hydra/launcher=basic"], True, Jobs, []),
    ],
)
def test_the_last_launcher_counts(overrides, multirun, kind, more):
    jobs, arguments = choose_jobs(overrides, multirun)
    assert type(jobs) is kind and arguments == more


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_without_the_extra_one_sentence_names_it(launcher, monkeypatch):
    def find_nothing(name):
        if launcher == "joblib":
            return None
        raise ModuleNotFoundError("hydra_plugins")

    monkeypatch.setattr(launchers, "find_spec", find_nothing)
    with pytest.raises(ConfigError) as raised:
        choose_jobs([f"hydra/launcher={launcher}"], True)
    extra = "needs packages of an extra: pip install 'recurrent-ppo[sweep]'"
    assert str(raised.value) == f"hydra/launcher={launcher} {extra}"


def test_the_command_ends_with_that_sentence(command, monkeypatch):
    monkeypatch.setattr(launchers, "find_spec", lambda name: None)
    ended = command("train", "--multirun", "hydra/launcher=joblib", "seed=1,2")
    assert ended.code == 1 and ended.err.startswith("train: hydra/launcher=joblib needs packages of an extra: ")


@pytest.mark.parametrize(
    ("overrides", "number"),
    [
        (["seed=1"], 1),
        (["seed=1,2,3", "env=a,b", "x=[1,2]"], 6),
        (["seed=range(4)"], 4),
        (["hydra/sweeper=optuna"], None),
    ],
)
def test_jobs_are_counted(overrides, number):
    assert count_jobs(overrides) == number


@pytest.mark.parametrize(
    ("overrides", "more", "said"),
    [
        ([], ["hydra.launcher.n_jobs=8"], ""),
        (["threads=16"], ["hydra.launcher.n_jobs=1"], ""),
        (["threads=1,2,4"], ["hydra.launcher.n_jobs=2"], ""),
        (["threads=auto"], ["hydra.launcher.n_jobs=8"], "threads=auto measures beside other jobs, which disturb it"),
        (["hydra.launcher.n_jobs=8"], [], ""),
        (["hydra.launcher.n_jobs=-1"], [], ""),
        (["hydra.launcher.n_jobs=9"], [], "n_jobs=9 with threads=1 each are more than the 8 cores here"),
        (["hydra.launcher.n_jobs=3", "threads=3"], [], "n_jobs=3 with threads=3 each are more than the 8 cores here"),
        (["hydra.launcher.n_jobs=-1", "threads=2"], [], "n_jobs=-1 with threads=2 each are more than the 8 cores here"),
    ],
)
def test_cores_are_shared_out(overrides, more, said, capsys):
    assert share_cores(overrides) == more
    err = capsys.readouterr().err
    assert err.startswith(said) and bool(err) == bool(said)

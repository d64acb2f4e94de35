"""Jobs in other processes: they hear of signals, end with the command, and go on when a cluster runs them again."""

import logging
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from experiments.launch import jobs as module
from experiments.launch.check import ConfigError
from experiments.launch.claim import Job
from experiments.launch.jobs import JOBLIB, LOCAL, SLURM, JobsApart, JobsInQueue, find_run
from rl.training.signals import Stopped, StopSignals


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """A job of number 3, and handlers that stay as they were."""
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(StopSignals, "_last", (0, -1.0))  # the signal of a test is no echo of that of the one before
    hydra = SimpleNamespace(job=SimpleNamespace(num=3))
    monkeypatch.setattr(module, "HydraConfig", SimpleNamespace(get=lambda: hydra))
    numbers = signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2
    usual = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, usual, strict=True):
        signal.signal(number, handler)


def test_jobs_that_end_well_return_what_they_return():
    jobs = JobsApart(JOBLIB, 2)
    with StopSignals() as signals, jobs.going_on(signals):
        assert [jobs.wrap(lambda config: 5)(OmegaConf.create()) for _ in range(2)] == [5, 5]


def test_a_signal_to_the_command_ends_the_running_job_and_starts_no_further_one(capsys):
    jobs, began = JobsApart(JOBLIB, 2), []

    def task(config):
        began.append(1)
        signals.number = signal.SIGTERM  # the command got it, in what is another process else
        time.sleep(30)

    with pytest.raises(Stopped) as raised, StopSignals() as signals, jobs.going_on(signals):
        assert [jobs.wrap(task)(OmegaConf.create()) for _ in range(2)] == [None, None]
    assert len(began) == 1 and raised.value.number == signal.SIGTERM
    assert str(raised.value).startswith("stopped by SIGTERM in a sweep; jobs done: none; stopped and told above: 3")
    assert "job 3: stopped by SIGTERM" in capsys.readouterr().err


def test_a_job_ends_with_the_command_that_was_killed():
    jobs = JobsApart(LOCAL, 2)
    jobs.parent = jobs.parent[0], "another process of that number"
    with pytest.raises(Stopped), StopSignals() as signals, signals.raising(), jobs._ending():
        time.sleep(30)
    ran = []
    assert jobs.wrap(ran.append)(OmegaConf.create()) is None and ran == []  # nor does the next one begin
    assert not JobsInQueue(SLURM, None)._is_over()


def test_a_fault_is_told_with_the_numbers_of_all_that_failed(capsys):
    def task(config):
        raise ConfigError("job 3 failed: it broke")

    jobs = JobsApart(JOBLIB, 2)
    with pytest.raises(ConfigError) as raised, StopSignals() as signals, jobs.going_on(signals):
        (jobs.notes / "1.failed").touch()
        (jobs.notes / "0.done").touch()
        jobs.wrap(task)(OmegaConf.create())
    assert raised.value.__notes__ == ["jobs that failed: 1, 3", "jobs done: 0"]
    assert capsys.readouterr().err == "job 3 failed: it broke; the other jobs go on\n"


@pytest.fixture
def queued():
    """What submitit is asked: its handler of the signal of a cluster."""
    asked = []
    signal.signal(signal.SIGUSR2, lambda number, frame: asked.append(number))
    return asked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("jobs", [JobsApart(LOCAL, 1), JobsInQueue(SLURM, 1)])
def test_a_signal_of_the_cluster_lets_the_run_save_before_the_job_is_queued_again(jobs, number, queued, capsys):
    order = []
    with pytest.raises(Stopped), jobs.requeueing(), StopSignals() as signals:
        os.kill(os.getpid(), number)
        order.append(queued[:])  # the update ends, and saves
        with signals.raising():
            time.sleep(30)
    assert order == [[]] and queued == [signal.SIGTERM]
    assert "the job is queued again" in capsys.readouterr().err


def test_ctrl_c_does_not_queue_again(queued):
    with pytest.raises(Stopped), JobsApart(LOCAL, 1).requeueing(), StopSignals() as signals, signals.raising():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30)
    assert queued == []


def test_the_end_of_the_command_does_not_queue_again(queued):
    jobs = JobsApart(LOCAL, 1)
    with pytest.raises(Stopped), jobs.requeueing(), StopSignals() as signals, signals.raising():
        jobs.parent = jobs.parent[0], "gone"
        with jobs._ending():
            time.sleep(30)
    assert queued == []


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """A job of submitit, and a sweep in a folder of which it is job 3."""
    paths = SimpleNamespace(folder=tmp_path)
    fake = SimpleNamespace(JobEnvironment=lambda: SimpleNamespace(paths=paths, job_id="77_3"))
    monkeypatch.setitem(sys.modules, "submitit", fake)
    monkeypatch.setattr(module, "read_job", lambda command: Job([], None, tmp_path / "sweep", 3))
    return tmp_path / "sweep"


def config_of(**values):
    return OmegaConf.create({"resume": None, "run_dir": None, "overwrite": False} | values)


def make_run(folder, saved=True):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    if saved:
        (folder / "checkpoints/last.pt").touch()
    return folder


def test_a_job_that_runs_again_goes_on_in_its_own_folder(submitted):
    jobs, first, again = JobsApart(LOCAL, 1), config_of(), config_of()
    make_run(submitted / "33-other"), make_run(submitted / "3-older")
    assert jobs.prepare(first) == [] and first == config_of()
    run = make_run(submitted / "3-own")
    os.utime(submitted / "3-older/config.yaml", (1, 1))
    assert jobs.prepare(again) == [[]]
    assert again == config_of(resume=str(run))


def test_a_job_that_had_saved_nothing_begins_anew_in_its_own_folder(submitted):
    jobs, again = JobsApart(LOCAL, 1), config_of()
    jobs.prepare(config_of())
    assert jobs.prepare(again) == [] and again == config_of()  # not even a folder
    run = make_run(submitted / "3-own", saved=False)
    assert jobs.prepare(again) == [] and again == config_of(run_dir=str(run), overwrite=True)


def test_a_job_with_a_folder_of_its_own_or_a_run_to_resume(submitted, tmp_path):
    run = make_run(tmp_path / "mine")
    assert find_run(config_of(run_dir=str(run))) == run
    jobs, again = JobsApart(LOCAL, 1), config_of(run_dir=str(run))
    jobs.prepare(config_of())
    assert jobs.prepare(again) == [[]] and again == config_of(resume=str(run))
    make_run(submitted / "3-begun")
    resumed = config_of(resume="other")  # the folder that it goes on with is its own
    assert jobs.prepare(resumed) == [] and resumed == config_of(resume="other")


def test_jobs_of_joblib_and_other_commands_are_left_alone():
    assert JobsApart(JOBLIB, 1).prepare(config_of()) == []
    assert JobsApart(LOCAL, 1).prepare(OmegaConf.create({"run": "x"})) == []


def test_lines_carry_the_number_of_their_job(capsys):
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    module.label_lines(3)
    logging.getLogger("x").warning("hello")
    assert capsys.readouterr().out == "job 3: hello\n"

"""A study that several processes share: who takes which trial, and what becomes of those whose process has ended."""

import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError
from experiments.launch.lock import FolderLock
from experiments.sweeps.report import find_best, name_state
from experiments.sweeps.space import read_space
from experiments.sweeps.study import (
    JOURNAL,
    MOST_TRIES,
    Trials,
    holds_study,
    import_optuna,
    load_study,
    make_pruner,
)

optuna = pytest.importorskip("optuna")
SEARCH = {"agent": {"clip": {"low": 0.1, "high": 0.4}}}


@pytest.fixture(autouse=True)
def quiet():
    import_optuna()


@pytest.fixture
def open_trials(tmp_path):
    """``open_trials(number=2)``: what another process would see of the same study."""

    def make(number=2, search=SEARCH):
        sampler = optuna.samplers.RandomSampler(seed=1)
        study = load_study(tmp_path, sampler=sampler, pruner=optuna.pruners.NopPruner())
        return Trials(tmp_path, study, read_space(OmegaConf.create(search)), number)

    return make


def states(trials):
    return [name_state(trial) for trial in trials.study.get_trials()]


def test_processes_together_make_so_many_trials(open_trials, tmp_path):
    one, other = open_trials(3), open_trials(3)
    assert holds_study(tmp_path)
    taken = [one.take(), other.take(), one.take()]
    assert [trial.number for trial, _ in taken] == [0, 1, 2]
    assert one.take() is None and other.take() is None
    for trial, lock in taken:
        one.study.tell(trial.number, 0.5 + trial.number)
        lock.release()
    assert other.take() is None
    assert find_best(other.study).number == 2 and states(other) == ["done"] * 3
    assert open_trials(4).take()[0].number == 3  # more are wanted now


def test_a_trial_whose_process_has_ended_is_the_next_to_be_tried_in_its_folder(open_trials, tmp_path):
    trials = open_trials(2)
    dead, lock = trials.take()
    alive, kept = trials.take()
    assert trials.take() is None
    lock.release()
    other = open_trials(2)
    again, its = other.take()
    assert states(other) == ["repeated", "running", "running"]
    assert again.params == dead.params != alive.params
    assert other.locate(again) == other.locate(dead) == tmp_path / "trials/0000"
    assert other.study.get_trials()[0].user_attrs["fault"] == "its process had ended"
    assert other.take() is None
    its.release()
    kept.release()


KILLED = """
import os, signal, sys
from pathlib import Path
from experiments.launch.lock import FolderLock
FolderLock(Path(sys.argv[1]), "study")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_lock_of_a_killed_process_counts_for_nothing(open_trials, child_environment):
    trials = open_trials(1)
    dead, lock = trials.take()
    lock.release()
    subprocess.run([sys.executable, "-c", KILLED, str(trials.locate(dead))], env=child_environment, check=False)
    assert (trials.locate(dead) / ".lock").is_file()
    again, lock = trials.take()
    assert again.params == dead.params and states(trials) == ["repeated", "running"]
    lock.release()


def test_a_lock_of_another_host_is_left_alone(open_trials):
    """Whether its process still runs cannot be known."""
    trials = open_trials(1)
    dead, lock = trials.take()
    lock.release()
    content = {"pid": 1, "start": "1", "since": 1.0, "host": "elsewhere"}
    (trials.locate(dead) / ".lock").write_text(json.dumps(content))
    assert trials.take() is None and states(trials) == ["running"]


def test_settings_that_keep_ending_their_process_are_given_up(open_trials):
    trials = open_trials(2)
    for _ in range(MOST_TRIES):
        _, lock = trials.take()
        lock.release()
    trial, lock = trials.take()
    assert states(trials) == [*["repeated"] * (MOST_TRIES - 1), "failed", "running"]
    assert trials.locate(trial).name == f"{MOST_TRIES:04d}"
    lock.release()


def test_trials_that_all_fail_end_the_search(open_trials):
    trials = open_trials(10)
    for turn in range(3):
        trial, lock = trials.take()
        trial.set_user_attr("fault", f"fault {turn}")
        trials.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        lock.release()
    with pytest.raises(ConfigError, match=r"^all of 3 trials have failed, the last one so: fault 2$"):
        trials.take()


def test_a_study_goes_on_as_it_began(open_trials):
    judged = {"seeds": [1, 2], "last_evaluations": 3}
    open_trials().check_same(["env=t_maze"], judged)
    open_trials().check_same(["env=t_maze"], judged)
    with pytest.raises(ConfigError, match=r"holds runs of other arguments: env=t_maze there, none here; give the same"):
        open_trials().check_same([], judged)
    with pytest.raises(ConfigError, match=r"holds other settings: .*0.4.* there, .*0.5.* here"):
        open_trials(search={"agent": {"clip": {"low": 0.1, "high": 0.5}}}).check_same(["env=t_maze"], judged)
    for other in ({"seeds": [1]}, {"last_evaluations": 1}):
        with pytest.raises(ConfigError, match=r"holds runs of other arguments: .*seeds.* there, .*seeds.* here"):
            open_trials().check_same(["env=t_maze"], judged | other)


def test_settings_of_a_changed_journal_are_refused(open_trials):
    trials = open_trials()
    trials.study.enqueue_trial({"agent.clip": 7.0})
    trial, lock = trials.take()
    with pytest.raises(ConfigError, match=r"^agent\.clip=7\.0 of trial 0 is out of its range$"):
        trials.read(trial)
    lock.release()


@pytest.mark.parametrize("content", ["no journal\nat all\n", '{"op_code": 0}\n{"op_code": 1}\n'])
def test_a_damaged_journal_is_told(content, tmp_path):
    (tmp_path / JOURNAL).write_text(content)
    with pytest.raises(ConfigError, match=rf"^{tmp_path / JOURNAL} is damaged: "):
        load_study(tmp_path)


def test_a_locked_folder_cannot_be_taken_twice(open_trials):
    trial, lock = open_trials().take()
    with pytest.raises(ConfigError, match="is in use by process"):
        FolderLock(open_trials().locate(trial), "study=x")
    lock.release()


def test_pruners():
    pruners = optuna.pruners
    kinds = {"median": pruners.MedianPruner, "hyperband": pruners.HyperbandPruner, None: pruners.NopPruner}
    assert {name: type(make_pruner(name, 10, 20)) for name in kinds} == kinds

"""One trial: the runs that it is made of, watched by their evaluations."""

import json
import subprocess
import sys

import pytest
from torch.utils.tensorboard import SummaryWriter

from experiments.launch.lock import FolderLock
from experiments.sweeps import trial as module
from experiments.sweeps.trial import (
    EVALUATION,
    Evaluations,
    Plan,
    TrialFailed,
    TrialPruned,
    TrialStopped,
    measure_value,
    play_trial,
    wait_for_end,
    watch_run,
)


class Told:
    """What a trial of Optuna is told; it is pruned at a step."""

    def __init__(self, pruned_at=None):
        self.reports, self.user_attrs, self.pruned_at = {}, {}, pruned_at

    def report(self, value, step):
        self.reports[step] = value

    def should_prune(self):
        return self.pruned_at is not None and max(self.reports) >= self.pruned_at

    def set_user_attr(self, name, value):
        self.user_attrs[name] = value


class Programs:
    """Children that run a program each instead of a training run, one after the other."""

    def __init__(self, *programs):
        self.programs, self.started, self.lines = list(programs), [], []

    def start(self, *arguments, output):
        self.lines.append(arguments)
        line = [sys.executable, "-c", self.programs.pop(0)]
        self.started.append(subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT))
        return self.started[-1]


def ends_with(folder, seed, *returns, code=0):
    """A program that leaves the result of a run, and ends."""
    content = {
        "env_steps": 10 * len(returns),
        "total_steps": 10 * len(returns),
        "evaluations": [{"return": value} for value in returns],
    }
    target = folder / f"seed{seed}"
    return (
        f"import sys, pathlib; target = pathlib.Path({str(target)!r}); target.mkdir();"
        f"(target / 'result.json').write_text({json.dumps(content)!r}); (target / 'config.yaml').write_text('seed: 1');"
        f"print('train: it broke', file=sys.stderr) if {code} else 0; sys.exit({code})"
    )


def plan(*seeds, base=()):
    return Plan(["--config-dir=mine"], list(base), list(seeds), every=10, per_run=4, last=2)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module, "LONGEST_END", 0.2)


@pytest.fixture
def curves(monkeypatch):
    """``curves[3] = points``: the evaluations that runs of seed 3 show."""
    shown = {}

    class Shown:
        def __init__(self, folder):
            self.seed = int(folder.name.removeprefix("seed"))

        def read(self):
            return shown.get(self.seed, [])

    monkeypatch.setattr(module, "Evaluations", Shown)
    return shown


def test_the_value_is_the_mean_over_seeds_of_the_last_evaluations(tmp_path, curves):
    children = Programs(ends_with(tmp_path, 3, -9.0, 0.5, 1.0), ends_with(tmp_path, 4, 0.0, 0.0))
    told = Told()
    value = play_trial(plan(3, 4, base=["env=t_maze"]), children, told, {"agent.clip": 0.1}, tmp_path, lambda: False)
    assert value == pytest.approx((0.75 + 0.0) / 2)
    assert told.user_attrs == {"steps": 50}
    _, module_name, *arguments = children.lines[1]
    assert module_name == "experiments.train" and arguments[0] == "--config-dir=mine"
    assert arguments[4:] == ["env=t_maze", "agent.clip=0.1", "seed=4", f"run_dir={tmp_path / 'seed4'}"]


def test_finished_runs_are_not_run_again(tmp_path, curves):
    """Of a trial that is tried again."""
    subprocess.run([sys.executable, "-c", ends_with(tmp_path, 3, 0.5, 1.0)], check=True)
    children = Programs()
    assert play_trial(plan(3), children, Told(), {}, tmp_path, lambda: False) == 0.75 and children.lines == []


def test_evaluations_are_reported_where_those_of_other_trials_are(tmp_path, curves):
    """By their number, not by steps, which differ with the size of rollouts; those of later seeds come after."""
    curves.update({1: [(12, 0.5), (20, 1.0), (45, 1.0)], 2: [(16, 0.0)]})
    slow = "import time; time.sleep(.4);"
    children = Programs(slow + ends_with(tmp_path, 1, 1.0), slow + ends_with(tmp_path, 2, 0.5))
    told = Told()
    play_trial(plan(1, 2), children, told, {}, tmp_path, lambda: False)
    assert told.reports == {1: 0.5, 2: 1.0, 4: 1.0, 5: (1.0 + 0.0) / 2}


def test_a_trial_that_falls_behind_is_ended(tmp_path, curves):
    curves[1] = [(10, 0.5), (20, 0.1)]
    children = Programs("import time; time.sleep(60)")
    with pytest.raises(TrialPruned, match="after 20 steps"):
        play_trial(plan(1), children, Told(pruned_at=2), {}, tmp_path, lambda: False)
    assert children.started[0].poll() == -15


def test_a_run_that_does_not_end_when_asked_is_killed(tmp_path, monkeypatch):
    class OnceDeaf:
        def __init__(self, folder):
            self.said = folder.with_suffix(".txt")

        def read(self):
            return [(10, 0.5)] if "deaf" in self.said.read_text() else []

    monkeypatch.setattr(module, "Evaluations", OnceDeaf)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    children = Programs(deaf)
    with pytest.raises(TrialPruned):
        play_trial(plan(1), children, Told(pruned_at=1), {}, tmp_path, lambda: False)
    assert children.started[0].poll() == -9


@pytest.mark.parametrize(
    ("program", "kind", "words"),
    [
        ("import sys; print('train: it broke', file=sys.stderr); sys.exit(1)", TrialFailed, "^train: it broke$"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", TrialFailed, "^killed by SIGKILL$"),
        ("import sys; sys.exit(143)", TrialStopped, "^by SIGTERM$"),
        ("import sys; sys.exit(130)", TrialStopped, "^by SIGINT$"),
    ],
)
def test_how_a_run_can_end(program, kind, words, tmp_path, curves):
    with pytest.raises(kind, match=words):
        play_trial(plan(1), Programs(program), Told(), {}, tmp_path, lambda: False)


def test_no_run_begins_once_the_search_ends(tmp_path, curves):
    with pytest.raises(TrialStopped):
        play_trial(plan(1), Programs(), Told(), {}, tmp_path, lambda: True)


def test_a_run_without_evaluations_has_no_value():
    assert measure_value({"evaluations": [{"return": 1.0}]}, 3) == 1.0
    for evaluations in ([], [{"return": float("nan")}]):
        with pytest.raises(TrialFailed, match="the run has played no evaluation"):
            measure_value({"evaluations": evaluations}, 3)


def test_a_run_that_still_saves_itself_is_waited_for(tmp_path):
    wait_for_end(tmp_path / "none")
    lock = FolderLock(tmp_path, "run_dir=x")
    with pytest.raises(TrialFailed, match="is in use by another process"):
        wait_for_end(tmp_path)
    lock.release()
    wait_for_end(tmp_path)


def test_evaluations_are_read_while_they_are_written(tmp_path):
    curve = Evaluations(tmp_path / "run")
    assert curve.read() == []
    with SummaryWriter(str(tmp_path / "run"), flush_secs=1000) as writer:
        for step in (10, 20):
            writer.add_scalar("charts/SPS", 7.0, step)
            writer.add_scalar(EVALUATION, step / 10, step)
            writer.flush()
            assert curve.read() == [(each, each / 10) for each in (10, 20) if each <= step]


def test_an_evaluation_beyond_the_last_step_stands_before_those_of_the_next_seed(tmp_path, monkeypatch):
    """A rollout of 60 steps, of 40 that are asked for: the fourth evaluation, of four in a run, and not the sixth."""
    reports = {}

    class Told:
        report = staticmethod(lambda value, step: reports.__setitem__(step, value))
        should_prune = staticmethod(lambda: False)

    class Children:
        def start(self, *_, output):
            return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(.3)"], stdout=output)

    monkeypatch.setattr(module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(module.Evaluations, "read", lambda self: [(60, 0.5)])
    plan = Plan([], [], [1, 2], every=10, per_run=4, last=1)
    watch_run(plan, Children(), [], Told(), tmp_path / "seed1", [])
    watch_run(plan, Children(), [], Told(), tmp_path / "seed2", [0.5])
    assert reports == {4: 0.5, 8: 0.5}

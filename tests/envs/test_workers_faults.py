"""Worker processes that fail, in any way: it is told, soon, and nothing hangs."""

import multiprocessing
import os
import signal
import threading
import time
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest

from envs import workers
from envs.faults import UserCodeError
from envs.gymnasium_env import make_gymnasium
from envs.workers import close


class Probe(gymnasium.Env):
    """Shows nothing and ends never; it may fail in a step."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, fails_at=None):
        self.fails_at, self.life = fails_at, 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.life += 1
        if self.life == self.fails_at:
            raise ArithmeticError("the simulator has failed")
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("Probe-v0", Probe)
    gymnasium.register("Cruel-v0", Cruel)
    yield
    del gymnasium.registry["Probe-v0"], gymnasium.registry["Cruel-v0"]
    left = multiprocessing.active_children()
    for process in left:  # or each later test would fail for the same reason
        process.kill()
        process.join()
    assert left == []


class Cruel(Probe):
    """Does in its third step what ``kind`` says."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        if kind == "no second one" and multiprocessing.current_process().name.endswith("-1"):
            raise SystemExit("there can be one only")

    def reset(self, *, seed=None, options=None):
        if self.kind == "exits at once":
            os._exit(3)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.life == 2:
            KINDS[self.kind]()
        return super().step(action)


class StubbornError(Exception):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__("it is locked")
        self.lock = threading.Lock()


def fail(error):
    raise error()


KINDS = {
    "cannot be pickled": lambda: fail(StubbornError),
    "no Exception": lambda: fail(SystemExit),
    "exits": lambda: os._exit(3),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("cannot be pickled", r"^Cruel-v0 failed in step 3 of copy 0: StubbornError: it is locked \(.*, in fail\)$"),
        (
            "no Exception",
            r"^Cruel-v0 failed in step 3 of copy 0: SystemExit \(.*test_workers_faults.py, line \d+, in fail\)$",
        ),
        ("exits", r"^Cruel-v0, a step: the worker process of copy .* \(exit code 3\).* died$"),
        ("is killed", r"^Cruel-v0, a step: the worker process of copy .* \(signal SIGKILL\).* died$"),
        ("exits at once", r"^Cruel-v0, its first reset: the worker process of copy 0 \(exit code 3\) died$"),
        ("no second one", r"^Cruel-v0 could not be made \(copy 1\): SystemExit: there can be one only \("),
    ],
)
def test_a_worker_that_fails_in_any_way_is_told_soon_and_in_silence(kind, sentence, capfd):
    began, envs = time.perf_counter(), None
    try:
        with pytest.raises(UserCodeError, match=sentence):
            envs = make_gymnasium("Cruel-v0", 2, vectorization_mode="async", kind=kind)
            envs.reset(seed=0)
            for _ in range(3):
                envs.step(np.array([0, 1]))
    finally:
        if envs is not None:
            close(envs)
    assert time.perf_counter() - began < 10
    assert capfd.readouterr().err == ""


def test_the_traceback_of_a_worker_is_the_cause_of_its_fault():
    envs = make_gymnasium("Probe-v0", 1, vectorization_mode="async", fails_at=1)
    envs.reset(seed=0)
    with pytest.raises(UserCodeError) as info:
        envs.step(np.array([0]))
    assert 'raise ArithmeticError("the simulator has failed")' in str(info.value.__cause__)
    close(envs)


def test_an_interrupted_wait_is_told():
    """By an exception that is no ordinary one: an ordinary one is told as it is."""
    started = make_gymnasium("Probe-v0", 2, vectorization_mode="async")
    started.reset(seed=0)
    os.kill(started.processes[1].pid, signal.SIGSTOP)

    class Interruption(BaseException):
        pass

    def interrupt(*_):
        raise Interruption

    usual = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Interruption) as info:
            started.step(np.array([0, 1]))
    finally:
        signal.signal(signal.SIGUSR1, usual)
        os.kill(started.processes[1].pid, signal.SIGCONT)
    assert info.value.__notes__ == ["a worker process of Probe-v0 has not answered"]
    close(started)


class Closing(SimpleNamespace):
    """Something whose ``close`` does what it is given."""

    @property
    def unwrapped(self):
        return self


def test_a_fault_in_closing_is_logged_and_does_no_harm(caplog):
    close(Closing(close=lambda: fail(ArithmeticError)))
    assert "the environments could not be closed: ArithmeticError (" in caplog.text


def test_what_does_not_close_is_left_alone(caplog, monkeypatch):
    """The alarm of something else, which the time limit borrows, still goes off."""
    monkeypatch.setattr(workers, "CLOSE_SECONDS", 0.1)
    before, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    close(Closing(close=lambda: time.sleep(60)))
    assert "CloseTimeoutError: it took longer than 0.1 s" in caplog.text
    assert signal.getsignal(signal.SIGALRM) is before
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    assert (left == 0) == (timer[0] == 0) and left <= timer[0]


class Clinging(Probe):
    """Does not close."""

    def close(self):
        time.sleep(60)


def test_the_copies_that_do_not_close_share_one_time(caplog, monkeypatch):
    monkeypatch.setattr(workers, "CLOSE_SECONDS", 0.1)
    gymnasium.register("Clinging-v0", Clinging)
    try:
        began = time.monotonic()
        close(make_gymnasium("Clinging-v0", 2))
        assert time.monotonic() - began < 10
    finally:
        del gymnasium.registry["Clinging-v0"]
    assert caplog.text.count("it took longer than 0.1 s") == 1

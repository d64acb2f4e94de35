"""Copies of an environment in worker processes: chosen when they pay, equal row for row, gone when closed."""

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from envs import workers
from envs.faults import UserCodeError
from envs.gymnasium_env import make_gymnasium
from envs.same_step_autoreset import SameStepAutoreset
from envs.workers import close, faster_mode, step_seconds


class Slow(gymnasium.Env):
    """A step takes `pause` seconds; episodes end by chance, or after 12 steps; what it shows depends on everything."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    action_space = gymnasium.spaces.Discrete(3)
    steps_of_all_copies = 0  # of this process

    def __init__(self, pause=0.0, fails_at=None, refuses=()):
        self.pause, self.fails_at, self.refuses, self.life = pause, fails_at, refuses, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.seen = 0, 0
        return self.show(), {}

    def show(self):
        return np.array([self.np_random.random(), self.count, self.seen], np.float32)

    def step(self, action):
        time.sleep(self.pause)
        if action in self.refuses:
            raise ValueError(f"action {action} is against the rules")
        self.life += 1
        if self.life == self.fails_at:
            raise ArithmeticError("the simulator has failed")
        Slow.steps_of_all_copies += 1
        self.count, self.seen = self.count + 1, 3 * self.seen + int(action)
        return self.show(), float(action), self.np_random.random() < 0.1, self.count == 12, {"count": self.count}


@pytest.fixture(autouse=True)
def registered():
    gymnasium.register("Slow-v0", Slow)
    yield
    del gymnasium.registry["Slow-v0"]
    left = multiprocessing.active_children()
    for process in left:  # or each later test would fail for the same reason
        process.kill()
        process.join()
    assert left == []


@pytest.fixture
def cores(monkeypatch):
    """``cores(n)``: this process may run on n of them."""
    return lambda number: monkeypatch.setattr(workers, "available_cores", lambda: number)


@pytest.fixture
def lines(caplog):
    """What has been logged, as a function."""
    caplog.set_level("INFO", "envs.workers")
    return lambda: [record.getMessage() for record in caplog.records]


# ------------------------------------------------------------------------------------------------------------- choosing


def test_slow_steps_go_to_workers(cores, lines):
    """Four copies that sleep 5 ms each: 20 ms in a row, 5 ms and the pipes side by side."""
    cores(2)
    envs = make_gymnasium("Slow-v0", 4, vectorization_mode="auto", pause=5e-3)
    assert isinstance(envs, AsyncVectorEnv) and envs.shared_memory
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    (line,) = lines()
    here, there = [float(word) for word in line.split() if word.replace(".", "").isdigit()]
    assert line.endswith(": worker processes are used") and here > 20 > there > 5
    assert len(multiprocessing.active_children()) == 4  # those that were measured are gone
    close(envs)


def test_quick_steps_start_no_process(cores, lines, monkeypatch):
    cores(2)
    monkeypatch.setattr(AsyncVectorEnv, "__init__", lambda *_, **__: pytest.fail("workers were started"))
    for id in ("CartPole-v1", "Slow-v0"):
        assert isinstance(make_gymnasium(id, 4, vectorization_mode="auto"), SyncVectorEnv)
    assert lines() == []


def test_with_one_core_nothing_is_measured(cores, lines):
    cores(1)
    before = Slow.steps_of_all_copies
    envs = make_gymnasium("Slow-v0", 2, vectorization_mode="auto", pause=1e-2)
    assert isinstance(envs, SyncVectorEnv)
    assert (Slow.steps_of_all_copies, lines()) == (before, [])


@pytest.mark.parametrize(
    ("copies", "here", "there", "mode", "said"),
    [
        (4, 0.9e-3, 0.0, "sync", []),
        (50, 2.9e-3, 0.0, "sync", []),
        (4, 2e-3, 3e-3, "sync", ["2.00 ms a step in this process, 3.00 ms in workers: no worker processes are used"]),
        (4, 3e-3, 2e-3, "async", ["3.00 ms a step in this process, 2.00 ms in workers: worker processes are used"]),
        (50, 4e-3, 3e-3, "async", ["4.00 ms a step in this process, 3.00 ms in workers: worker processes are used"]),
    ],
)
def test_the_faster_is_chosen_and_told(cores, lines, monkeypatch, copies, here, there, mode, said):
    cores(2)
    monkeypatch.setattr(workers, "step_seconds", lambda envs: {"sync": here, "async": there}[envs.mode])
    assert faster_mode(lambda mode: SimpleNamespace(mode=mode, num_envs=copies)) == mode
    assert lines() == [f"environments: {line}" for line in said]


def test_what_was_measured_is_not_used_again(cores):
    """Or an environment that counts over its whole life would depend on how fast it was measured."""
    cores(2)
    envs = make_gymnasium("Slow-v0", 2, vectorization_mode="auto")
    assert [env.unwrapped.life for env in envs.envs] == [0, 0]
    with pytest.raises(UserCodeError, match="step 100 of copy 0"):
        step_seconds(make_gymnasium("Slow-v0", 2, fails_at=workers.MOST_STEPS))  # it was measured, for as long as said


@pytest.mark.parametrize("options", [{"refuses": (1,)}, {"fails_at": 5}])
def test_an_environment_that_cannot_be_measured_stays_here(cores, options):
    """Illegal actions, for instance: what the environment has to say is said in training."""
    cores(2)
    envs = make_gymnasium("Slow-v0", 2, vectorization_mode="auto", **options)
    envs.reset(seed=0)
    for _ in range(4):
        envs.step(np.array([0, 2]))


def test_what_cannot_be_made_is_told(cores):
    cores(2)
    with pytest.raises(TypeError, match="speed"):
        make_gymnasium("Slow-v0", 2, vectorization_mode="auto", speed=3)


def test_a_measurement_is_short():
    """The median, so that a first step or a hiccup does not count; at least one step, at most a quarter of a second."""
    envs = make_gymnasium("Slow-v0", 2, pause=0.3)
    began = time.perf_counter()
    assert step_seconds(envs) == pytest.approx(0.6, abs=0.1)
    assert time.perf_counter() - began < 1
    assert envs.closed


@pytest.mark.parametrize(("most_seconds", "steps"), [(0, 1), (20, workers.MOST_STEPS)])
def test_at_least_one_step_is_measured_and_at_most_so_many(monkeypatch, most_seconds, steps):
    monkeypatch.setattr(workers, "MOST_SECONDS", most_seconds)
    before = Slow.steps_of_all_copies
    assert step_seconds(make_gymnasium("Slow-v0", 2)) > 0
    assert Slow.steps_of_all_copies - before == 2 * steps


def test_the_same_actions_are_measured_again(monkeypatch):
    monkeypatch.setattr(workers, "MOST_SECONDS", 20)
    taken = [], []
    for seed, actions in enumerate(taken):
        envs = make_gymnasium("Slow-v0", 2)
        envs.action_space.seed(seed + 1)  # whatever was drawn before
        step = envs.step
        monkeypatch.setattr(
            envs, "step", lambda chosen, step=step, actions=actions: actions.append(chosen) or step(chosen)
        )
        step_seconds(envs)
    np.testing.assert_array_equal(*taken)


# ----------------------------------------------------------------------------------------------------------------- rows


def late(mode):
    """Workers that reset late or never, adapted."""
    return SameStepAutoreset(AsyncVectorEnv([lambda: gymnasium.make("Slow-v0")] * 4, autoreset_mode=mode))


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_gymnasium("Slow-v0", 4, vectorization_mode="async"),
        lambda: late(AutoresetMode.NEXT_STEP),
        lambda: late(AutoresetMode.DISABLED),
    ],
    ids=["async", "adapted from NEXT_STEP", "adapted from DISABLED"],
)
def test_every_row_equals_sync(make):
    found, expected = make(), make_gymnasium("Slow-v0", 4, vectorization_mode="sync")
    assert isinstance(found.unwrapped, AsyncVectorEnv)
    expected.action_space.seed(0)
    np.testing.assert_equal(found.reset(seed=5), expected.reset(seed=5))
    ends = np.zeros(2, dtype=int)
    for _ in range(200):
        actions = expected.action_space.sample()
        *left, left_info = found.step(actions)
        *right, right_info = expected.step(actions)
        np.testing.assert_equal(left, right)
        np.testing.assert_equal(left_info.get("_final_obs"), right_info.get("_final_obs"))
        for row in np.flatnonzero(right_info.get("_final_obs", [])):
            np.testing.assert_equal(left_info["final_obs"][row], right_info["final_obs"][row])
            assert left_info["final_info"]["count"][row] == right_info["final_info"]["count"][row]
        ends += [right[2].sum(), right[3].sum()]
    assert (ends > 10).all()
    close(found)


# -------------------------------------------------------------------------------------------------------------- closing


@pytest.fixture
def started():
    """Two workers, reset, and their processes."""
    envs = make_gymnasium("Slow-v0", 2, vectorization_mode="async")
    envs.reset(seed=0)
    assert all(process.is_alive() for process in envs.processes)
    yield envs
    for process in envs.processes:
        process.kill()
        process.join()


def assert_gone(envs):
    assert not any(process.is_alive() for process in envs.processes)
    assert envs.closed
    close(envs)  # once more does no harm


def test_workers_end_when_closed(started):
    close(started)
    assert_gone(started)
    assert [process.exitcode for process in started.processes] == [0, 0]  # they could close their environments


def test_also_inside_a_wrapper(started):
    close(SameStepAutoreset(started))
    assert_gone(started)


def test_workers_end_after_one_of_them_was_killed(started):
    started.processes[0].kill()
    with pytest.raises(UserCodeError, match=r"^Slow-v0, a step: the worker process of copy 0 \(signal SIGKILL\) died$"):
        for _ in range(100):
            started.step(np.array([0, 1]))
    close(started)
    assert_gone(started)


def test_also_inside_a_wrapper_after_one_of_them_was_killed(started):
    started.processes[0].kill()
    with pytest.raises(UserCodeError, match=r"^Slow-v0, a step: the worker process of copy 0 \(signal SIGKILL\) died$"):
        for _ in range(100):
            started.step(np.array([0, 1]))
    close(SameStepAutoreset(started))
    assert_gone(started)


def test_workers_end_after_one_of_them_has_failed():
    envs = make_gymnasium("Slow-v0", 2, vectorization_mode="async", fails_at=3)
    envs.reset(seed=0)
    with pytest.raises(UserCodeError, match="step 3 of copy 0: ArithmeticError: the simulator has failed"):
        for _ in range(3):
            envs.step(np.array([0, 1]))
    close(envs)
    assert_gone(envs)


def test_workers_end_after_an_interrupted_step(started):
    """One of the two answers has been read when the interrupt comes; the other one never comes."""
    os.kill(started.processes[1].pid, signal.SIGSTOP)
    started.step_async(np.array([0, 1]))
    started.parent_pipes[0].recv()
    began = time.perf_counter()
    threading.Timer(0.5, os.kill, (started.processes[1].pid, signal.SIGCONT)).start()
    close(started)
    assert time.perf_counter() - began < 5
    assert_gone(started)


def test_interrupts_are_left_to_the_process_that_steps(request):
    """A terminal sends Ctrl-C to all processes; training finishes its update and saves."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    started = request.getfixturevalue("started")
    for process in started.processes:
        os.kill(process.pid, signal.SIGINT)
    for _ in range(5):
        started.step(np.array([0, 1]))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    close(started)
    assert_gone(started)


def test_workers_can_be_started_from_any_thread():
    made = []
    thread = threading.Thread(target=lambda: made.append(make_gymnasium("Slow-v0", 1, vectorization_mode="async")))
    thread.start()
    thread.join()
    close(made[0])
    assert_gone(made[0])


def test_other_environments_are_just_closed():
    envs = make_gymnasium("CartPole-v1", 2)
    close(envs)
    assert envs.closed
    close(make_gymnasium("CartPole-v1", 2, vectorization_mode="vector_entry_point"))


# ------------------------------------------------------------------------------------------------------------ any space


class Words(gymnasium.Space):
    """A space that Gymnasium does not know, with a function that has no name, as MiniGrid's missions have one."""

    def __init__(self):
        super().__init__(None, None)
        self.say = lambda: "go to the red ball"

    def __eq__(self, other):
        return isinstance(other, Words)


KINDS_OF_SPACES = {
    "words": Words(),
    "text": gymnasium.spaces.Text(9),
    "sequence": gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(3)),
    "graph": gymnasium.spaces.Graph(gymnasium.spaces.Box(0, 1, (2,)), None),
}


class Telling(Slow):
    """What ``Slow`` shows, and beside it something that is no array."""

    def __init__(self, kind, other_copies=None):
        super().__init__()
        self.kind = kind
        mine = other_copies if other_copies and multiprocessing.current_process().name.endswith("-1") else kind
        space = {"seen": Slow.observation_space, "told": KINDS_OF_SPACES[mine]}
        self.observation_space = gymnasium.spaces.Dict(space)
        self.words = {
            "words": "go to the red ball",
            "text": "abc",
            "sequence": (1, 2),
            "graph": gymnasium.spaces.GraphInstance(np.zeros((3, 2), np.float32), None, None),
        }

    def show(self):
        return {"seen": super().show(), "told": self.words[self.kind]}


@pytest.mark.parametrize("kind", KINDS_OF_SPACES)
def test_leaves_that_processes_cannot_share_come_through_workers_too(kind):
    gymnasium.register("Telling-v0", partial(Telling, kind))
    envs = make_gymnasium("Telling-v0", 2, vectorization_mode="async")
    same = make_gymnasium("Telling-v0", 2, vectorization_mode="sync")
    try:
        obs, _ = envs.reset(seed=3)
        expected, _ = same.reset(seed=3)
        for _ in range(15):  # past the end of an episode
            np.testing.assert_array_equal(obs["seen"], expected["seen"])
            assert str(obs["told"]) == str(expected["told"])
            obs, expected = envs.step(np.array([1, 2]))[0], same.step(np.array([1, 2]))[0]
    finally:
        close(envs)
        close(same)
        del gymnasium.registry["Telling-v0"]


def test_copies_of_other_spaces_are_told():
    gymnasium.register("Telling-v0", partial(Telling, "words", other_copies="text"))
    told = "^Telling-v0: the observation space of copy 1 must be that of copy 0$"
    try:
        with pytest.raises(UserCodeError, match=told):
            make_gymnasium("Telling-v0", 2, vectorization_mode="async", action_mask="ignore")
    finally:
        del gymnasium.registry["Telling-v0"]

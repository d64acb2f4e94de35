"""The training loop: what it tells the agent, what it counts, reports and saves, and when it stops."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from envs.probes import ActionReward, Counter, EchoCue
from envs.single_env import SingleEnv
from rl.checkpoint import load_checkpoint
from rl.training import threads
from rl.training.run import checkpoint_path
from rl.training.trainer import Trainer


@pytest.fixture
def make_trainer(tmp_path, scribe):
    """A trainer of an agent that notes what it is told; rollouts of ``num_steps`` steps of each environment."""

    def make(envs, total_steps, num_steps=8, actions=(0,), **options):
        return Trainer(scribe(envs.num_envs, num_steps, actions), envs, tmp_path, total_steps, **{"seed": 0, **options})

    return make


@pytest.fixture
def counters():
    """Two single Counters of 2 and 3 steps as Gymnasium vectorises them."""

    def make(mode, end="truncated"):
        made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n, end=end) for n in (2, 3)]
        return SyncVectorEnv(made, autoreset_mode=mode)

    return make


# ------------------------------------------------------------------------------------------------------ what it is told


def test_the_agent_is_told_the_outcome_of_each_action_and_what_follows_a_rollout(make_trainer, notebook, counters):
    """Episodes of 2 and 3 steps, rollouts of 3: observe has rewards, rows terminated, truncated, ignored, final counts.

    A cut row is shown its next episode already (count 0), but V is asked of what closed the last one (counts 2 and 3).
    """
    for envs in (Counter(2, [2, 3], "truncated"), counters(AutoresetMode.SAME_STEP)):
        trainer = make_trainer(envs, 12, num_steps=3)
        trainer.train(notebook)
        assert trainer.agent.notes == [
            ("reset",), ("act", [0, 0]), ("observe", [0, 0], [], [], [], None),
            ("act", [1, 1]), ("observe", [1, 1], [], [0], [], [2]),
            ("act", [0, 2]), ("observe", [0, 2], [], [1], [], [3]),
            ("learn", [1, 0]),
            ("act", [1, 0]), ("observe", [1, 0], [], [0], [], [2]),
            ("act", [0, 1]), ("observe", [0, 1], [], [], [], None),
            ("act", [1, 2]), ("observe", [1, 2], [], [0, 1], [], [2, 3]),
            ("learn", [0, 0]),
        ]  # fmt: skip


def test_steps_that_only_reset_are_told_as_ignored(make_trainer, notebook, counters):
    """As above in NEXT_STEP mode: each end is followed by a step that is none, and shows its own final observation."""
    trainer = make_trainer(counters(AutoresetMode.NEXT_STEP), 12, num_steps=3)
    trainer.train(notebook)
    assert trainer.agent.notes == [
        ("reset",), ("act", [0, 0]), ("observe", [0, 0], [], [], [], None),
        ("act", [1, 1]), ("observe", [1, 1], [], [0], [], [2]),
        ("act", [2, 2]), ("observe", [0, 2], [], [1], [0], [3]),
        ("learn", [0, 3]),
        ("act", [0, 3]), ("observe", [0, 0], [], [], [1], None),
        ("act", [1, 0]), ("observe", [1, 0], [], [0], [], [2]),
        ("act", [2, 1]), ("observe", [0, 1], [], [], [0], None),
        ("learn", [0, 2]),
    ]  # fmt: skip


def test_terminations_are_told_apart_from_truncations(make_trainer, notebook):
    trainer = make_trainer(Counter(2, [2, 3], "terminated"), 6, num_steps=3)
    trainer.train(notebook)
    assert [note[1:3] for note in trainer.agent.said("observe")] == [([], []), ([0], []), ([1], [])]
    assert [note[-1] for note in trainer.agent.said("observe")] == [None] * 3
    both = make_trainer(Counter(2, [2, 3], "both"), 6, num_steps=3)
    both.train(notebook)
    assert [note[1:3] for note in both.agent.said("observe")] == [([], []), ([0], [0]), ([1], [1])]
    assert [note[-1] for note in both.agent.said("observe")] == [None, [2], [3]]


def test_the_actions_of_the_agent_reach_the_environment(make_trainer, notebook):
    """Which pays 1 for action 1 and 0 for action 0."""
    trainer = make_trainer(ActionReward(2), 16, actions=(0, 1, 1))
    trainer.train(notebook)
    assert [note[0] for note in trainer.agent.said("observe")] == [[a, a] for a in (0, 1, 1, 0, 1, 1, 0, 1)]


class SeedNote(VectorWrapper):
    """Notes the seed of every reset."""

    def __init__(self, envs):
        super().__init__(envs)
        self.seeds = []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)


@pytest.mark.parametrize("seed", [None, 7])
def test_environments_are_reset_once_with_the_seed(make_trainer, notebook, seed):
    envs = SeedNote(EchoCue(2))
    trainer = make_trainer(envs, 64, seed=seed)
    trainer.train(notebook)
    assert envs.seeds == [seed]
    trainer.total_steps = 96
    trainer.train(notebook)  # goes on where it was
    assert envs.seeds == [seed]
    assert trainer.agent.env_steps == 96


# ------------------------------------------------------------------------------------------------- counting, reporting


def test_whole_rollouts_are_played_until_the_steps_are_reached(make_trainer, notebook):
    """3 environments x 8 steps are 24 in a rollout: 60 steps take 3 rollouts, so 72."""
    trainer = make_trainer(Counter(3), 60)
    assert trainer.train(notebook) is True
    assert trainer.agent.env_steps == 72
    assert len(trainer.agent.said("learn")) == 3
    content = load_checkpoint(checkpoint_path(trainer.run_dir))
    assert content["agent"] == {"env_steps": 72}
    assert 0 < trainer.seconds <= trainer.wall_seconds
    assert content["seconds"] == [trainer.seconds, trainer.wall_seconds]
    assert [path.name for path in (trainer.run_dir / "checkpoints").iterdir()] == ["last.pt"]


def test_an_agent_that_only_plays_is_refused(make_trainer, notebook):
    """It would play for ever."""
    trainer = make_trainer(Counter(3), 60)
    trainer.agent.training = False
    with pytest.raises(ValueError, match=r"agent\.training=False: it must be True to train"):
        trainer.train(notebook)


def test_every_update_is_reported(make_trainer, notebook):
    """Episodes of 3 and 4 steps pay 0+1+2 = 3 and 0+1+2+3 = 6; in 12 steps row 0 ends 4 times, row 1 three times."""
    envs = Counter(2, [3, 4])
    envs.drain_statistics = lambda: {"game/votes": 5.0}
    trainer = make_trainer(envs, 48, num_steps=12)
    trainer.train(notebook)
    for step, values in notebook.written:
        assert values["losses/policy_loss"] == step
        assert values["charts/episodic_return"] == pytest.approx((4 * 3 + 3 * 6) / 7)
        assert values["charts/episodic_length"] == pytest.approx(24 / 7)
        assert values["game/votes"] == 5.0
        assert values["charts/SPS"] > 0
        played = {"charts/episodic_return", "charts/episodic_length", "charts/SPS"}
        assert values.keys() == played | {"game/votes", "losses/policy_loss"}
        assert (step, pytest.approx((4 * 3 + 3 * 6) / 7), values["charts/SPS"]) in notebook.bar
    assert [step for step, _ in notebook.written] == [step for step, *_ in notebook.bar] == [24, 48]
    assert notebook.written[-1][1]["charts/SPS"] == pytest.approx(48 / trainer.seconds)
    assert trainer.recent_return == pytest.approx((4 * 3 + 3 * 6) / 7)


def test_before_the_first_episode_has_ended_there_is_no_return(make_trainer, notebook):
    trainer = make_trainer(Counter(2, 100), 16)
    trainer.train(notebook)
    assert trainer.recent_return is None
    assert notebook.bar[0][1] is None
    assert notebook.written[0][1].keys() == {"charts/SPS", "losses/policy_loss"}


def test_evaluations_are_no_training_time(make_trainer, notebook, monkeypatch):
    """An hour for each of two evaluations, none for anything else."""
    now = [0.0]
    monkeypatch.setattr("rl.training.trainer.time.perf_counter", lambda: now[0])

    def evaluate():
        now[0] += 3600.0
        return {"eval/episodic_return": 0.0}

    trainer = make_trainer(EchoCue(2), 32, evaluate=evaluate, evaluate_every=16)
    monkeypatch.setattr(trainer, "report", lambda metrics: None)  # it would divide by zero seconds
    trainer.train(notebook)
    assert (trainer.seconds, trainer.wall_seconds) == (0.0, 7200.0)


# --------------------------------------------------------------------------------------------------- when what happens


def test_evaluations_come_at_multiples_of_their_interval(make_trainer, notebook):
    """Rollouts of 16 steps, an evaluation every 40: after 48 (40 is behind it), 80, 128 (120)."""
    calls = []

    def evaluate():
        calls.append((trainer.agent.env_steps, trainer.agent.notes[-1][0]))
        return {"eval/episodic_return": float(len(calls)), "eval/other": 9.0}

    trainer = make_trainer(EchoCue(2), 140, evaluate=evaluate, evaluate_every=40, threshold=2.0)
    trainer.train(notebook)
    assert calls == [(48, "learn"), (80, "learn"), (128, "learn")]
    assert [(point["env_steps"], point["return"], point["solved"]) for point in trainer.evaluations] == [
        (48, 1.0, False),
        (80, 2.0, True),
        (128, 3.0, True),
    ]
    assert trainer.agent.env_steps == 144  # it does not stop unless it is asked to
    reported = [(step, values) for step, values in notebook.written if "eval/other" in values]
    assert reported == [
        (step, {"eval/episodic_return": value, "eval/other": 9.0}) for step, value in ((48, 1), (80, 2), (128, 3))
    ]
    assert all(0 < point["seconds"] <= trainer.seconds for point in trainer.evaluations)


def test_without_an_interval_nothing_is_evaluated(make_trainer, notebook):
    trainer = make_trainer(EchoCue(2), 64, evaluate=lambda: 1 / 0)
    trainer.train(notebook)
    assert trainer.evaluations == []


@pytest.mark.parametrize(("threshold", "stop", "steps"), [(2.0, True, 16), (2.1, True, 64), (2.0, False, 64)])
def test_training_stops_at_the_threshold_if_asked(make_trainer, notebook, threshold, stop, steps):
    options = {"evaluate": lambda: {"eval/episodic_return": 2.0}, "evaluate_every": 16}
    trainer = make_trainer(EchoCue(2), 64, threshold=threshold, stop_at_threshold=stop, **options)
    assert trainer.train(notebook) is True
    assert trainer.agent.env_steps == steps
    assert trainer.evaluations[0]["solved"] == (threshold == 2.0)
    assert load_checkpoint(checkpoint_path(trainer.run_dir))["agent"]["env_steps"] == steps


def test_checkpoints_come_at_multiples_of_their_interval(make_trainer, notebook, monkeypatch):
    trainer = make_trainer(EchoCue(2), 64, checkpoint_every=32)
    saved, original = [], trainer.save
    monkeypatch.setattr(trainer, "save", lambda metrics: saved.append(trainer.agent.env_steps) or original(metrics))
    trainer.train(notebook)
    assert saved == [32, 64, 64]  # the last one at the end


def test_metrics_are_on_disk_before_the_checkpoint(make_trainer, notebook, monkeypatch):
    order = []
    trainer = make_trainer(EchoCue(2), 16)
    trainer.obs = trainer.envs.reset(0)
    monkeypatch.setattr(notebook, "flush", lambda: order.append(checkpoint_path(trainer.run_dir).exists()))
    trainer.save(notebook)
    assert order == [False]
    assert checkpoint_path(trainer.run_dir).exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"total_steps": 0}, "total_steps=0: it must be a whole number of at least 1"),
        ({"checkpoint_every": 0}, "checkpoint_every=0: it must be a whole number of at least 1"),
        ({"evaluate": dict, "evaluate_every": 0}, "evaluate_every=0: it must be a whole number of at least 1"),
        ({"evaluate_every": 5}, "evaluate_every=5: it must be None without a function to evaluate"),
        ({"threads": 0}, "threads=0: it must be a whole number of at least 1, or auto"),
    ],
)
def test_bad_arguments(make_trainer, given, message):
    with pytest.raises(ValueError) as raised:
        make_trainer(EchoCue(2), **({"total_steps": 16} | given))
    assert str(raised.value) == message


# -------------------------------------------------------------------------------------------------------------- threads


@pytest.fixture
def watched_threads(monkeypatch):
    """``watched_threads(trainer)``: the threads of every action and of every update, on two cores that do not exist.

    Updates on two threads are made the slower ones.
    """
    current, now = [1], [0.0]
    monkeypatch.setattr(torch, "set_num_threads", lambda number: current.append(number))
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: now[0])

    def watch(trainer):
        agent, acting, learning = trainer.agent, [], []
        original_act, original_learn = agent.act, agent.learn

        def act(observation):
            acting.append(current[-1])
            return original_act(observation)

        def learn(next_observation):
            learning.append(current[-1])
            now[0] += current[-1]
            return original_learn(next_observation)

        agent.act, agent.learn = act, learn
        return acting, learning

    return watch


def test_threads_are_chosen_while_training(make_trainer, notebook, watched_threads):
    """Also by a resumed run, which may be on another machine."""
    first = make_trainer(EchoCue(2), 16 * 8, threads="auto")
    acting, learning = watched_threads(first)
    first.train(notebook)
    assert set(acting) == {1}
    assert learning == [1, 1, 2, 1, 2, 1, 2, 1]
    assert first.threads.number == 1  # twice as long, but not longer
    assert notebook.lines == ["updates: 1 s on 1 thread, 2 s on 2: 1 thread is used"]
    second = make_trainer(EchoCue(2), 16 * 16, threads="auto")
    acting, learning = watched_threads(second)
    second.resume()
    second.train(notebook)
    assert set(acting) == {1}
    assert learning == [1, 1, 2, 1, 2, 1, 2, 1]
    assert len(notebook.lines) == 2


def test_a_given_number_of_threads_is_kept(make_trainer, notebook, watched_threads):
    trainer = make_trainer(EchoCue(2), 16 * 8, threads=3)
    acting, learning = watched_threads(trainer)
    trainer.train(notebook)
    assert (set(acting), set(learning), trainer.threads.number) == ({3}, {3}, 3)


def test_without_a_number_torch_is_left_as_it_is(make_trainer):
    before = torch.get_num_threads()
    assert make_trainer(EchoCue(2), 16).threads.number == before == torch.get_num_threads()


# -------------------------------------------------------------------------------------------------------------- signals


class Signalling(EchoCue):
    """Sends signals to its own process within chosen steps, counted from 1."""

    def __init__(self, num_envs, signals):
        super().__init__(num_envs)
        self.signals, self.count = signals, 0

    def step(self, actions):
        self.count += 1
        if self.count in self.signals:
            os.kill(os.getpid(), self.signals[self.count])
        return super().step(actions)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_finishes_the_update_and_saves(make_trainer, notebook, usual_handlers, number):
    """Steps 9 to 16 are the second rollout; the signal comes at step 11 of them."""
    noted, usual = usual_handlers
    trainer = make_trainer(Signalling(2, {11: number}), 1000)
    assert trainer.train(notebook) is False
    assert trainer.stopped_by == number
    assert trainer.agent.env_steps == 32
    assert trainer.agent.notes[-1][0] == "learn"
    assert notebook.written[-1][0] == 32
    assert load_checkpoint(checkpoint_path(trainer.run_dir))["agent"]["env_steps"] == 32
    assert noted == []
    assert {n: signal.getsignal(n) for n in usual} == usual


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_acts_as_usual(make_trainer, notebook, usual_handlers, second):
    """Here usual is to take note; it may be the other signal."""
    noted, usual = usual_handlers
    trainer = make_trainer(Signalling(2, {3: signal.SIGINT, 5: second}), 1000)
    assert trainer.train(notebook) is False
    assert noted == [second]
    assert trainer.agent.env_steps == 16
    assert {n: signal.getsignal(n) for n in usual} == usual


def test_handlers_are_put_back_whatever_happens(make_trainer, notebook, usual_handlers):
    _, usual = usual_handlers
    trainer = make_trainer(EchoCue(2), 1000)

    def broken(actions):
        assert all(signal.getsignal(number) != handler for number, handler in usual.items())
        raise OSError("the simulator is gone")

    trainer.envs.step = broken
    with pytest.raises(OSError, match="simulator"):
        trainer.train(notebook)
    assert {n: signal.getsignal(n) for n in usual} == usual


def test_nothing_of_the_loop_changes_what_the_environment_gave(make_trainer, notebook):
    """An environment may hand out its own arrays."""
    envs = Counter(2, [2, 3], "truncated")
    kept, original = [], envs.step

    def step(actions):
        given = original(actions)
        kept.append((given[:4], [np.copy(array) for array in given[:4]]))
        return given

    envs.step = step
    make_trainer(envs, 12, num_steps=3).train(notebook)
    for given, copies in kept:
        for array, copy in zip(given, copies, strict=True):
            np.testing.assert_array_equal(array, copy)

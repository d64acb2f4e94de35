"""The training loop: what it counts, saves, resumes and does when it is told to stop."""

import os
import signal
from functools import partial

import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import Counter, EchoCue, SpaceProbe
from envs.repeat_previous import RepeatPrevious
from envs.single_env import SingleEnv
from rl import cores
from rl.agents import RecurrentPPO
from rl.checkpoint import load_checkpoint
from rl.training import threads
from rl.training.evaluation import evaluate
from rl.training.metrics import Metrics
from rl.training.run import StopSignals, checkpoint_path, crossed
from rl.training.trainer import Trainer


@pytest.fixture
def make_trainer(tmp_path):
    """A trainer of a small agent: rollouts of 8 steps of each environment."""

    def make(envs, total_steps, folder="run", agent_seed=0, core="gru", agent_options=None, **options):
        agent = RecurrentPPO(
            envs.single_observation_space,
            envs.single_action_space,
            8,
            seed=agent_seed,
            core=partial(getattr(cores, core), hidden_size=8),
            num_envs=envs.num_envs,
            num_steps=8,
            total_steps=1000,
            bptt=4,
            num_minibatches=2,
            epochs=2,
            **(agent_options or {}),
        )
        return Trainer(agent, envs, tmp_path / folder, total_steps, **{"seed": 0, **options})

    return make


@pytest.fixture
def train():
    """Trains to the end or to a signal, with metrics in the run folder; what ``Trainer.train`` returns."""

    def run(trainer):
        with Metrics(trainer.run_dir, trainer.total_steps, trainer.agent.env_steps) as metrics:
            return trainer.train(metrics)

    return run


@pytest.fixture
def usual_handlers():
    """Handlers that note a signal instead of ending the process; the real ones are put back afterwards."""
    noted = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda given, frame: noted.append(given)) for number in numbers}
    mine = {number: signal.getsignal(number) for number in numbers}
    yield noted, mine
    for number, handler in before.items():
        signal.signal(number, handler)


# --------------------------------------------------------------------------------------------------------------- basics


def test_environment_steps_are_counted_and_everything_is_saved(make_trainer, train):
    """3 environments x 8 steps are 24 in a rollout: 60 steps take 3 rollouts, so 72."""
    trainer = make_trainer(SpaceProbe(3), 60)
    assert train(trainer) is True
    assert trainer.agent.env_steps == 72
    assert trainer.agent.updates == 3
    content = load_checkpoint(checkpoint_path(trainer.run_dir))
    assert checkpoint_path(trainer.run_dir) == trainer.run_dir / "checkpoints" / "last.pt"
    assert content["agent"]["env_steps"] == 72
    assert trainer.seconds <= trainer.wall_seconds
    assert [path.name for path in (trainer.run_dir / "checkpoints").iterdir()] == ["last.pt"]


def test_evaluations_come_at_multiples_of_their_interval(make_trainer, train):
    """Rollouts of 16 steps, an evaluation every 40: after 48 (40 is behind it), 80, 128 (120)."""
    calls = []

    def evaluation():
        calls.append(trainer.agent.env_steps)
        return {"eval/episodic_return": float(len(calls))}

    trainer = make_trainer(EchoCue(2), 140, evaluate=evaluation, evaluate_every=40, threshold=2.0)
    train(trainer)
    assert calls == [48, 80, 128]
    assert [(point["env_steps"], point["return"], point["solved"]) for point in trainer.evaluations] == [
        (48, 1.0, False),
        (80, 2.0, True),
        (128, 3.0, True),
    ]
    assert trainer.agent.env_steps == 144


def test_training_stops_at_the_threshold_if_asked(make_trainer, train):
    options = {"evaluate": lambda: {"eval/episodic_return": 2.0}, "evaluate_every": 16}
    trainer = make_trainer(EchoCue(2), 64, threshold=2.0, stop_at_threshold=True, **options)
    assert train(trainer) is True
    assert trainer.agent.env_steps == 16
    unreached = make_trainer(EchoCue(2), 64, threshold=2.1, stop_at_threshold=True, **options)
    train(unreached)
    assert unreached.agent.env_steps == 64


def test_checkpoints_come_at_multiples_of_their_interval(make_trainer, train, monkeypatch):
    trainer = make_trainer(EchoCue(2), 64, checkpoint_every=32)
    saved, original = [], trainer.save
    monkeypatch.setattr(trainer, "save", lambda metrics: saved.append(trainer.agent.env_steps) or original(metrics))
    train(trainer)
    assert saved == [32, 64, 64]  # the last one at the end


@pytest.mark.parametrize(
    ("interval", "before", "after", "expected"),
    [
        (None, 0, 100, False),
        (10, 0, 9, False),
        (10, 0, 10, True),
        (10, 10, 19, False),
        (10, 10, 20, True),
        (10, 5, 35, True),
    ],
)
def test_multiples_are_crossed(interval, before, after, expected):
    assert crossed(interval, before, after) is expected


def test_metrics_are_on_disk_before_the_checkpoint(make_trainer, monkeypatch):
    order = []
    trainer = make_trainer(EchoCue(2), 16)
    with Metrics(trainer.run_dir, 16) as metrics:
        trainer.obs = trainer.envs.reset(0)
        monkeypatch.setattr(metrics, "flush", lambda: order.append(checkpoint_path(trainer.run_dir).exists()))
        trainer.save(metrics)
    assert order == [False]
    assert checkpoint_path(trainer.run_dir).exists()


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
        act, learn, acting, learning = trainer.agent.take_action, trainer.agent.train_step, [], []

        def take_action(obs):
            acting.append(current[-1])
            return act(obs)

        def train_step(obs):
            learning.append(current[-1])
            now[0] += current[-1]
            return learn(obs)

        trainer.agent.take_action, trainer.agent.train_step = take_action, train_step
        return acting, learning

    return watch


def test_threads_are_chosen_while_training(make_trainer, train, watched_threads, caplog):
    """Also by a resumed run, which may be on another machine."""
    caplog.set_level("INFO")
    first = make_trainer(EchoCue(2), 16 * 8, threads="auto")
    acting, learning = watched_threads(first)
    train(first)
    assert set(acting) == {1}
    assert learning == [1, 1, 2, 1, 2, 1, 2, 1]
    assert first.threads.number == 1  # twice as long, but not longer
    assert caplog.text.count("updates: 1 s on 1 thread, 2 s on 2: 1 thread is used") == 1
    second = make_trainer(EchoCue(2), 16 * 16, threads="auto")
    acting, learning = watched_threads(second)
    second.resume()
    train(second)
    assert set(acting) == {1}
    assert learning == [1, 1, 2, 1, 2, 1, 2, 1]
    assert caplog.text.count("1 thread is used") == 2


def test_a_given_number_of_threads_is_kept(make_trainer, train, watched_threads):
    trainer = make_trainer(EchoCue(2), 16 * 8, threads=3)
    acting, learning = watched_threads(trainer)
    train(trainer)
    assert (set(acting), set(learning), trainer.threads.number) == ({3}, {3}, 3)


def test_without_a_number_torch_is_left_as_it_is(make_trainer):
    before = torch.get_num_threads()
    assert make_trainer(EchoCue(2), 16).threads.number == before == torch.get_num_threads()


# --------------------------------------------------------------------------------------------------------------- resume

EVERYTHING = {
    "normalise_observations": True,
    "normalise_returns": True,
    "previous_action_reward": True,
    "anneal_learning_rate": True,
    "entropy_coef_final": 0.0,
}


@pytest.mark.parametrize(
    ("task", "core", "options"),
    [
        (partial(RepeatPrevious, episode_length=11), "gru", {}),
        (partial(RepeatPrevious, episode_length=11), "lstm", EVERYTHING),
        (partial(SpaceProbe, observation="dict", action="multi_discrete", episode_length=5), "rnn", EVERYTHING),
        (partial(SpaceProbe, observation="tuple", action="box", episode_length=5), "mlp", {"separate_critic": True}),
        (partial(Counter, episode_length=[3, 5, 7], end="truncated"), "gru", {"normalise_returns": True}),
    ],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(make_trainer, train, assert_same, task, core, options):
    """6 updates at once, or 3, a new process, 3 more: the same weights and the same evaluations, bit by bit.

    Episodes are cut in half by the checkpoint: 24 steps of each environment are no multiple of their lengths.
    """

    def make(folder, total_steps, agent_seed=0):
        trainer = make_trainer(
            task(3), total_steps, folder, agent_seed, core, options, evaluate_every=48,
            evaluate=lambda: {"eval/episodic_return": evaluate(trainer.agent, task(3), 6, seed=5).mean},
        )  # fmt: skip
        return trainer

    straight = make("straight", 144)
    train(straight)

    train(make("broken", 72))
    second = make("broken", 144, agent_seed=77)  # nothing of the new object's own seed must be left
    second.resume()
    assert second.agent.env_steps == 72
    train(second)
    assert_same(straight.agent, second.agent)
    returns = [(point["env_steps"], point["return"]) for point in straight.evaluations]
    assert [(point["env_steps"], point["return"]) for point in second.evaluations] == returns
    assert [step for step, _ in returns] == [48, 96, 144]
    assert list(straight.episodes.recent) == list(second.episodes.recent)
    assert straight.episodes.state_dict() == second.episodes.state_dict()


def test_a_resumed_run_of_another_width_begins_new_episodes(make_trainer, train):
    first = make_trainer(Counter(3, 5, "truncated"), 72, agent_options={"normalise_returns": True})
    train(first)
    second = make_trainer(Counter(2, 5, "truncated"), 104, agent_options={"normalise_returns": True})
    second.resume()
    assert second.agent.env_steps == 72
    for name, value in first.agent.network.state_dict().items():
        assert torch.equal(value, second.agent.network.state_dict()[name])
    assert second.obs is None
    assert second.agent.actor.starts.tolist() == [True, True]
    assert not second.agent.actor.state["h"].any()
    assert second.agent.actor.state["h"].shape[0] == 2
    assert train(second)
    assert second.agent.env_steps == 104  # 72 + 2 x 16


def test_environments_that_cannot_be_put_back_begin_new_episodes(make_trainer, train):
    def envs():
        made = partial(SingleEnv, "envs.probes:Counter", episode_length=5)
        return SyncVectorEnv([made] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)

    train(make_trainer(envs(), 40))
    second = make_trainer(envs(), 100)
    second.resume()
    assert second.obs is None
    assert second.agent.actor.starts.all()
    starts = []
    original = second.agent.take_action
    second.agent.take_action = lambda obs: starts.append(second.agent.actor.starts.all()) or original(obs)
    train(second)
    assert starts[0]


def test_a_resumed_run_that_is_over_only_saves(make_trainer, train, assert_same):
    first = make_trainer(EchoCue(2), 32)
    train(first)
    second = make_trainer(EchoCue(2), 32)
    second.resume()
    assert train(second) is True
    assert_same(first.agent, second.agent)


def test_seconds_add_up_over_interruptions(make_trainer, train):
    train(make_trainer(EchoCue(2), 32))
    stored = load_checkpoint(checkpoint_path(make_trainer(EchoCue(2), 1).run_dir))["seconds"]
    second = make_trainer(EchoCue(2), 32)
    second.resume()
    assert [second.seconds, second.wall_seconds] == stored
    assert min(stored) > 0


def test_there_must_be_something_to_resume(make_trainer, train):
    with pytest.raises(FileNotFoundError, match=r"last\.pt"):
        make_trainer(EchoCue(2), 32).resume()
    train(make_trainer(EchoCue(2), 16))
    with pytest.raises(ValueError, match="another network"):
        make_trainer(EchoCue(2), 32, core="lstm").resume()


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_update_and_saves(make_trainer, train, usual_handlers, number):
    """Steps 9 to 16 are the second rollout; the signal comes at step 11 of them."""
    noted, usual = usual_handlers
    trainer = make_trainer(Signalling(2, {11: number}), 1000)
    assert train(trainer) is False
    assert trainer.agent.updates == 2
    assert trainer.agent.env_steps == 32
    assert load_checkpoint(checkpoint_path(trainer.run_dir))["agent"]["env_steps"] == 32
    assert noted == []
    assert {n: signal.getsignal(n) for n in usual} == usual


def test_a_stopped_run_can_be_resumed_exactly(make_trainer, train, assert_same, usual_handlers):
    straight = make_trainer(EchoCue(2), 64, "straight")
    train(straight)
    train(make_trainer(Signalling(2, {11: signal.SIGTERM}), 64, "broken"))
    second = make_trainer(EchoCue(2), 64, "broken", agent_seed=5)
    second.resume()
    assert second.agent.env_steps == 32
    train(second)
    assert_same(straight.agent, second.agent)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_acts_as_usual(make_trainer, train, usual_handlers, second):
    """Here usual is to take note; it may be the other signal."""
    noted, usual = usual_handlers
    trainer = make_trainer(Signalling(2, {3: signal.SIGINT, 5: second}), 1000)
    assert train(trainer) is False
    assert noted == [second]
    assert trainer.agent.updates == 1
    assert {n: signal.getsignal(n) for n in usual} == usual


def test_handlers_are_put_back_whatever_happens(make_trainer, train, usual_handlers):
    _, usual = usual_handlers
    trainer = make_trainer(EchoCue(2), 1000)

    def broken(actions):
        assert all(signal.getsignal(number) != handler for number, handler in usual.items())
        raise OSError("the simulator is gone")

    trainer.envs.step = broken
    with pytest.raises(OSError, match="simulator"):
        train(trainer)
    assert {n: signal.getsignal(n) for n in usual} == usual


def test_outside_training_signals_are_not_touched(make_trainer, train, usual_handlers):
    noted, usual = usual_handlers
    with StopSignals() as stop:
        assert not stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        assert {n: signal.getsignal(n) for n in usual} == usual  # the next one acts as usual
    assert noted == []
    train(make_trainer(EchoCue(2), 16))
    os.kill(os.getpid(), signal.SIGTERM)
    assert noted == [signal.SIGTERM]

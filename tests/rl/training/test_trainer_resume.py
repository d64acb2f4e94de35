"""Resuming a run: exactly where it stopped, or with new episodes where the environments cannot be put back."""

import os
import signal
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from envs.probes import Counter, EchoCue, SpaceProbe
from envs.repeat_previous import RepeatPrevious
from envs.single_env import SingleEnv
from envs.t_maze import TMaze
from envs.wrapping import wrap_many
from rl import cores
from rl.agents import Population, RecurrentIQN, RecurrentPPO
from rl.checkpoint import load_checkpoint
from rl.training.evaluation import evaluate
from rl.training.run import checkpoint_path
from rl.training.trainer import Trainer


@pytest.fixture
def make_trainer(tmp_path):
    """A trainer of a small agent: rollouts of 8 steps of each environment."""

    def make(
        envs, total_steps, folder="run", agent_seed=0, core="gru", agent_options=None, kind=RecurrentPPO, update=None,
        **options,
    ):  # fmt: skip
        update = {"num_minibatches": 2, "epochs": 2} if update is None else update
        agent = kind(
            envs.single_observation_space,
            envs.single_action_space,
            8,
            seed=agent_seed,
            core=partial(getattr(cores, core), hidden_size=8),
            num_envs=envs.num_envs,
            num_steps=8,
            total_steps=1000,
            **{"bptt": 4, **update, **(agent_options or {})},
        )
        return Trainer(agent, envs, tmp_path / folder, total_steps, **{"seed": 0, **options})

    return make


def wrapped(num_envs):
    return wrap_many(RepeatPrevious(num_envs, episode_length=11), frame_skip=2, frame_stack=3, clip_rewards=0.05)


ADAPTIVE = {"learning_rate_schedule": "adaptive", "desired_kl": 1e-3}
EVERYTHING = {
    "normalise_observations": True,
    "normalise_returns": True,
    "previous_action_reward": True,
    "learning_rate_schedule": "linear",
    "entropy_coef_schedule": "linear",
}


@pytest.mark.parametrize(
    ("task", "core", "options"),
    [
        (partial(RepeatPrevious, episode_length=11), "gru", {}),
        (partial(RepeatPrevious, episode_length=11), "lstm", EVERYTHING),
        (partial(SpaceProbe, observation="dict", action="multi_discrete", episode_length=5), "rnn", EVERYTHING),
        (partial(SpaceProbe, observation="tuple", action="box", episode_length=5), "mlp", {"separate_critic": True}),
        (partial(Counter, episode_length=[3, 5, 7], end="truncated"), "gru", {"normalise_returns": True}),
        (wrapped, "gru", {"previous_action_reward": True, **ADAPTIVE}),
    ],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(make_trainer, notebook, assert_same, task, core, options):
    """6 updates at once, or 3, a new process, 3 more: the same weights and the same evaluations, bit by bit.

    Episodes are interrupted by the checkpoint: 24 steps of each environment are no multiple of their lengths.
    """

    def make(folder, total_steps, agent_seed=0):
        trainer = make_trainer(
            task(3), total_steps, folder, agent_seed, core, options, evaluate_every=48,
            evaluate=lambda: {"eval/episodic_return": evaluate(trainer.agent, task(3), 6, seed=5).mean},
        )  # fmt: skip
        return trainer

    straight = make("straight", 144)
    straight.train(notebook)

    make("broken", 72).train(notebook)
    second = make("broken", 144, agent_seed=77)  # nothing of the new object's own seed must be left
    second.resume()
    assert second.agent.env_steps == 72
    second.train(notebook)
    assert_same(straight.agent, second.agent)
    returns = [(point["env_steps"], point["return"]) for point in straight.evaluations]
    assert [(point["env_steps"], point["return"]) for point in second.evaluations] == returns
    assert [step for step, _ in returns] == [48, 96, 144]
    assert list(straight.episodes.recent) == list(second.episodes.recent)
    assert straight.episodes.state_dict() == second.episodes.state_dict()


def make_population(observation_space, action_space, layer_size, *, core, bptt, seed, **options):
    """Two rows for one agent, one for another."""
    makers = {"a": partial(RecurrentPPO, bptt=bptt, epochs=1, num_minibatches=1), "b": partial(RecurrentPPO, bptt=2)}
    makers["b"].keywords.update(num_minibatches=1, core=core)
    return Population(observation_space, action_space, makers, ["a", "b", "a"], seed=seed, **options)


@pytest.mark.parametrize(
    ("kind", "update"), [(RecurrentIQN, {"batch_size": 8, "learning_starts": 8}), (make_population, {})]
)
def test_so_do_other_kinds_of_agents(make_trainer, notebook, assert_same, kind, update):
    def make(folder, total_steps, agent_seed=0):
        envs = RepeatPrevious(3, episode_length=11)
        return make_trainer(envs, total_steps, folder, agent_seed, kind=kind, update=update)

    straight, fresh = make("straight", 144), make("fresh", 144)
    straight.train(notebook)
    make("broken", 72).train(notebook)
    second = make("broken", 144, agent_seed=77)
    second.resume()
    second.train(notebook)
    assert_same(straight.agent, second.agent)
    pairs = zip(straight.agent.network.parameters(), fresh.agent.network.parameters(), strict=True)
    assert not any(torch.equal(trained, untrained) for trained, untrained in pairs if trained.dim() > 1)


class LateCounter(VectorEnv):
    """Counts to 3 and to 4 in two rows; the step after an end resets. Can be put back where it was."""

    metadata: ClassVar[dict] = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    num_envs, length = 2, np.array([3, 4])
    single_observation_space, single_action_space = spaces.Box(0, 9, (1,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.count = np.zeros(2, dtype=np.float32)
        return self.count[:, None].copy(), {}

    def step(self, actions):
        self.count = np.where(self.count == self.length, 0, self.count + 1).astype(np.float32)
        return self.count[:, None].copy(), self.count, self.count == self.length, np.zeros(2, dtype=bool), {}

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_rows_that_are_about_to_reset_still_are_after_a_resumption(notebook, tmp_path, scribe):
    """After 3 steps row 0 has ended: the fourth step is none for it."""
    straight = Trainer(scribe(2, 3), LateCounter(), tmp_path / "straight", 12)
    straight.train(notebook)
    first = Trainer(scribe(2, 3), LateCounter(), tmp_path / "broken", 6)
    first.train(notebook)
    second = Trainer(scribe(2, 3), LateCounter(), tmp_path / "broken", 12)
    second.resume()
    second.train(notebook)
    assert second.agent.notes == straight.agent.notes[-7:]
    assert second.agent.notes[:2] == [("act", [3, 3]), ("observe", [0, 4], [1], [], [0], None)]
    assert second.episodes.state_dict() == straight.episodes.state_dict()


def test_checkpoints_without_a_note_of_such_rows_can_be_resumed(notebook, tmp_path, scribe):
    """As they were written before it was kept: no row is about to reset then."""
    first = Trainer(scribe(2, 3), Counter(2, 4), tmp_path, 6)
    first.train(notebook)
    content = load_checkpoint(checkpoint_path(tmp_path))
    del content["resetting"], content["format"]
    torch.save(content, checkpoint_path(tmp_path))
    second = Trainer(scribe(2, 3), Counter(2, 4), tmp_path, 12)
    second.resume()
    second.train(notebook)
    assert second.agent.notes[:2] == [("act", [3, 3]), ("observe", [3, 3], [0, 1], [], [], None)]


def test_a_resumed_run_of_another_width_begins_new_episodes(make_trainer, notebook):
    first = make_trainer(Counter(3, 5, "truncated"), 72, agent_options={"normalise_returns": True})
    first.train(notebook)
    second = make_trainer(Counter(2, 5, "truncated"), 104, agent_options={"normalise_returns": True})
    second.resume()
    assert second.agent.env_steps == 72
    for name, value in first.agent.network.state_dict().items():
        assert torch.equal(value, second.agent.network.state_dict()[name])
    assert second.obs is None
    assert second.agent.actor.starts.tolist() == [True, True]
    assert not second.agent.actor.state["h"].any()
    assert second.agent.actor.state["h"].shape[0] == 2
    assert second.train(notebook)
    assert second.agent.env_steps == 104  # 72 + 2 x 16


def test_environments_that_cannot_be_put_back_begin_new_episodes(notebook, tmp_path, scribe):
    def make(total_steps):
        made = partial(SingleEnv, "envs.probes:Counter", episode_length=5)
        envs = SyncVectorEnv([made] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
        return Trainer(scribe(3, 8), envs, tmp_path, total_steps)

    make(24).train(notebook)
    assert load_checkpoint(checkpoint_path(tmp_path))["obs"] is None  # whatever it is, it need not be stored
    second = make(100)
    second.resume()
    assert second.obs is None
    assert second.agent.env_steps == 24
    second.train(notebook)
    assert second.agent.notes[:2] == [("reset",), ("act", [0, 0, 0])]


def test_environments_that_can_be_put_back_are_neither_reset_nor_is_the_agent(notebook, tmp_path, scribe):
    Trainer(scribe(3, 8), Counter(3, 5), tmp_path, 24).train(notebook)
    second = Trainer(scribe(3, 8), Counter(3, 5), tmp_path, 100)
    second.resume()
    second.train(notebook)
    assert second.agent.notes[0] == ("act", [3, 3, 3])  # 8 steps: an episode of 5, and 3 of the next


def test_a_resumed_run_that_is_over_only_saves(make_trainer, notebook, assert_same):
    first = make_trainer(EchoCue(2), 32)
    first.train(notebook)
    second = make_trainer(EchoCue(2), 32, agent_seed=3)
    second.resume()
    assert second.train(notebook) is True
    assert_same(first.agent, second.agent)


def test_seconds_and_evaluations_add_up_over_interruptions(make_trainer, notebook):
    options = {"evaluate": lambda: {"eval/episodic_return": 1.5}, "evaluate_every": 16}
    make_trainer(EchoCue(2), 32, **options).train(notebook)
    stored = load_checkpoint(checkpoint_path(make_trainer(EchoCue(2), 1).run_dir))["seconds"]
    second = make_trainer(EchoCue(2), 48, **options)
    second.resume()
    assert [second.seconds, second.wall_seconds] == stored
    assert min(stored) > 0
    second.train(notebook)
    assert [point["env_steps"] for point in second.evaluations] == [16, 32, 48]
    assert second.seconds > stored[0] and second.wall_seconds > stored[1]


def test_there_must_be_something_to_resume(make_trainer, notebook):
    with pytest.raises(FileNotFoundError, match=r"last\.pt"):
        make_trainer(EchoCue(2), 32).resume()
    make_trainer(EchoCue(2), 16).train(notebook)
    with pytest.raises(ValueError, match="another network"):
        make_trainer(EchoCue(2), 32, core="lstm").resume()


class Signalling(EchoCue):
    """Sends a signal to its own process within step 11."""

    count = 0

    def step(self, actions):
        self.count += 1
        if self.count == 11:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().step(actions)


def test_a_stopped_run_can_be_resumed_exactly(make_trainer, notebook, assert_same, usual_handlers):
    straight = make_trainer(EchoCue(2), 64, "straight")
    straight.train(notebook)
    make_trainer(Signalling(2), 64, "broken").train(notebook)
    second = make_trainer(EchoCue(2), 64, "broken", agent_seed=5)
    second.resume()
    assert second.agent.env_steps == 32
    second.train(notebook)
    assert_same(straight.agent, second.agent)


def test_a_run_in_an_environment_of_tensors_is_resumed_exactly(make_trainer, notebook, assert_same):
    def make(total_steps, folder, **options):
        return make_trainer(TMaze(2, length=2, device="cpu"), total_steps, folder, **options)

    straight = make(64, "straight")
    straight.train(notebook)
    make(32, "broken").train(notebook)
    second = make(64, "broken", agent_seed=5)
    second.resume()
    assert second.agent.env_steps == 32
    second.train(notebook)
    assert second.envs.tensors is not None and second.agent.rollout is not None
    assert_same(straight.agent, second.agent)


def test_an_evaluation_that_a_signal_breaks_off_is_made_when_the_run_goes_on(
    make_trainer, notebook, assert_same, usual_handlers
):
    """Rollouts are 16 steps, evaluations come at 32 and 64; the signal comes in the first one, or just before it."""

    def make(folder, evaluate, envs=EchoCue):
        return make_trainer(envs(2), 64, folder, evaluate=evaluate, evaluate_every=32)

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the evaluation goes on")

    def undisturbed():
        return {"eval/episodic_return": 1.5}

    straight = make("straight", undisturbed)
    straight.train(notebook)
    for envs, broken_off in ((EchoCue, interrupted), (Signalling, lambda: 1 / 0)):
        first = make(envs.__name__, broken_off, envs)
        assert first.train(notebook) is False
        assert (first.agent.env_steps, first.evaluations) == (32, [])
        second = make(envs.__name__, undisturbed)
        second.resume()
        second.train(notebook)
        assert [point["env_steps"] for point in second.evaluations] == [32, 64]
        assert_same(straight.agent, second.agent)

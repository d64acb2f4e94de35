"""Evaluations between updates: environments that are lent for them, and their share of the time."""

from functools import partial

import numpy as np
import pytest
from gymnasium.vector import VectorWrapper

from envs.probes import Counter, EchoCue
from envs.repeat_previous import RepeatPrevious
from rl import cores
from rl.agents import RecurrentIQN, RecurrentPPO
from rl.checkpoint import load_checkpoint
from rl.training.evaluation import evaluate
from rl.training.run import checkpoint_path, make_later_seed
from rl.training.trainer import Trainer

# ----------------------------------------------------------------------------------------------------------------- lent


class SeedNote(VectorWrapper):
    """Notes the seed of every reset."""

    def __init__(self, envs):
        super().__init__(envs)
        self.seeds = []

    def reset(self, *, seed=None, options=None):
        self.seeds.append(seed)
        return super().reset(seed=seed, options=options)


def test_lent_environments_are_in_new_episodes_afterwards(scribe, notebook, tmp_path):
    """Episodes of 5 steps, rollouts of 3. The open ones are closed, and statistics of the evaluation are nobody's."""
    envs = SeedNote(Counter(2, 5))
    drained = []
    envs.unwrapped.drain_statistics = lambda: drained.append(len(agent.notes)) or {}
    agent = scribe(2, 3)

    def play():
        assert agent.notes[-1] == ("reset",)
        envs.reset(seed=1000)
        envs.step(np.zeros(2, dtype=np.int64))
        return {"eval/episodic_return": 0.0}

    trainer = Trainer(agent, envs, tmp_path, 12, seed=7, evaluate=play, evaluate_every=6, lends_envs=True)
    trainer.train(notebook)
    assert envs.seeds == [7, 1000, make_later_seed(7, 6), 1000, make_later_seed(7, 12)]
    assert len(set(envs.seeds)) == 4
    assert [note for note in agent.notes if note[0] != "observe"] == [
        *(("reset",), ("act", [0, 0]), ("act", [1, 1]), ("act", [2, 2]), ("learn", [3, 3]), ("reset",)),
        *(("reset",), ("act", [0, 0]), ("act", [1, 1]), ("act", [2, 2]), ("learn", [3, 3]), ("reset",)),
        ("reset",),  # before an evaluation and after it
    ]
    assert drained == [8, 10, 17, 19]  # with each report, and after each evaluation
    assert trainer.episodes.returns.tolist() == [0, 0] and not trainer.episodes.recent
    assert trainer.episodes.lengths.tolist() == [0, 0]


@pytest.fixture
def make_lending(tmp_path):
    def make(folder, total_steps, play=None, kind=RecurrentPPO):
        envs = RepeatPrevious(3, episode_length=11)
        update = {"batch_size": 8, "learning_starts": 8}
        update = update if kind is RecurrentIQN else {"bptt": 4, "num_minibatches": 2, "epochs": 2}
        sizes = {"num_envs": 3, "num_steps": 8, "seed": 0, "core": partial(cores.gru, hidden_size=8)} | update
        agent = kind(envs.single_observation_space, envs.single_action_space, 8, **sizes)
        play = play or (lambda: {"eval/episodic_return": evaluate(agent, envs, 6, seed=5).mean})
        options = {"seed": 0, "evaluate": play, "evaluate_every": 48, "lends_envs": True}
        return Trainer(agent, envs, tmp_path / folder, total_steps, **options)

    return make


@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN])
def test_a_run_that_lends_its_environments_is_resumed_exactly(make_lending, notebook, assert_same, kind):
    """After 72 steps, in the middle of the episodes that follow the first evaluation."""
    straight = make_lending("straight", 144, kind=kind)
    straight.train(notebook)
    make_lending("broken", 72, kind=kind).train(notebook)
    second = make_lending("broken", 144, kind=kind)
    second.resume()
    second.train(notebook)
    assert_same(straight.agent, second.agent)
    returns = [(point["env_steps"], point["return"]) for point in straight.evaluations]
    assert [(point["env_steps"], point["return"]) for point in second.evaluations] == returns
    assert [step for step, _ in returns] == [48, 96, 144]


def test_a_run_that_was_stopped_amid_an_evaluation_goes_on_behind_it(make_lending, notebook, assert_same):
    """The environments are then in no episode of training: nothing of them is saved."""

    def interrupted():
        raise KeyboardInterrupt

    straight = make_lending("straight", 72)
    straight.train(notebook)
    first = make_lending("broken", 72, interrupted)
    assert not first.train(notebook)  # it is saved as at a Ctrl-C
    content = load_checkpoint(checkpoint_path(first.run_dir))
    assert (content["agent"]["env_steps"], content["envs"], content["obs"]) == (48, None, None)
    second = make_lending("broken", 72)
    second.resume()
    second.train(notebook)
    assert_same(straight.agent, second.agent)


# ---------------------------------------------------------------------------------------------------- share of the time


@pytest.fixture
def make_clocked(scribe, tmp_path, monkeypatch):
    """A trainer whose updates take 1 s and evaluations ``cost`` s, after every update."""
    now = [0.0]
    monkeypatch.setattr("rl.training.trainer.time.perf_counter", lambda: now[0])

    def make(cost, total_steps, **options):
        agent = scribe(2, 8)
        learn = agent.learn

        def learn_slowly(observation):
            now[0] += 1.0
            return learn(observation)

        def play():
            now[0] += cost
            return {"eval/episodic_return": 2.0}

        agent.learn = learn_slowly
        options = {"evaluate": play, "evaluate_every": 16, "evaluation_share": 0.25} | options
        return Trainer(agent, EchoCue(2), tmp_path, 16 * total_steps, **options)

    return make


def test_evaluations_keep_their_share_of_the_time(make_clocked, notebook):
    """1 s each: the first is played, for its cost is unknown, the n-th after 3n updates, where it has a quarter."""
    trainer = make_clocked(1.0, 13)
    trainer.train(notebook)
    assert [point["env_steps"] // 16 for point in trainer.evaluations] == [1, 6, 9, 12]
    assert (trainer.seconds, trainer.evaluation_seconds, trainer.wall_seconds) == (13.0, 4.0, 17.0)
    assert notebook.lines == [
        "an evaluation takes 1.0 s: some are left out, so that all take no more than 25% of the time "
        "(evaluation_share=null plays them all)"
    ]


@pytest.mark.parametrize(("cost", "share"), [(0.3, 0.25), (9.0, None)])
def test_evaluations_that_cost_little_or_may_cost_anything_are_all_played(make_clocked, notebook, cost, share):
    trainer = make_clocked(cost, 9, evaluation_share=share)
    trainer.train(notebook)
    assert len(trainer.evaluations) == 9 and notebook.lines == []


def test_the_share_is_kept_over_interruptions(make_clocked, notebook):
    make_clocked(1.0, 4).train(notebook)
    second = make_clocked(1.0, 7)
    second.resume()
    assert (second.evaluation_seconds, second.last_evaluation_seconds) == (1.0, 1.0)
    second.train(notebook)
    assert [point["env_steps"] // 16 for point in second.evaluations] == [1, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluation_share": 1.5}, "evaluation_share=1.5: it must be a number from 0 to 1"),
        ({"lends_envs": True}, "evaluation_share=0.25: it must be None where lends_envs is set"),
        (
            {"stop_at_threshold": True, "threshold": 1.0},
            "evaluation_share=0.25: it must be None where stop_at_threshold is set",
        ),
    ],
)
def test_weights_never_depend_on_the_clock(make_clocked, options, message):
    with pytest.raises(ValueError) as raised:
        make_clocked(1.0, 4, **options)
    assert str(raised.value) == message

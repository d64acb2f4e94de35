"""Several agents in one environment: each sees its own rows only, and learns from them what it would alone."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.agents import DualHeadRecurrentPPO, Population, RecurrentPPOLSTM
from rl.cores import gru
from rl.training.evaluation import evaluate

OBS = spaces.Dict({"image": spaces.Box(0, 255, (3, 5, 5), np.uint8), "scalars": spaces.Box(-1, 1, (2,))})
ACTIONS = spaces.MultiDiscrete([4, 3])
SEATS = ["a", "b", "a"]
OPTIONS = {"bptt": 4, "num_minibatches": 2, "epochs": 2}
MEMBERS = {
    "a": partial(DualHeadRecurrentPPO, core=partial(gru, hidden_size=8), **OPTIONS),
    "b": partial(RecurrentPPOLSTM, learning_rate=2e-3, **OPTIONS),
}
ROWS = {"a": [0, 2, 3, 5], "b": [1, 4]}


def make(num_envs=6, members=MEMBERS, seats=SEATS, **options):
    options = {"seed": 3, "num_steps": 8, "action_names": ("move", "vote")} | options
    return Population(OBS, ACTIONS, members, seats, num_envs=num_envs, **options)


def observation(random, num_envs=6):
    image = random.integers(0, 255, (num_envs, 3, 5, 5), dtype=np.uint8)
    return {"image": image, "scalars": random.uniform(-1, 1, (num_envs, 2)).astype(np.float32)}


def turns(seed, count, num_envs=6):
    """(observation, reward, terminated, truncated, final observation, ignored) of random play; rows 4 and 5 differ."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        terminated, truncated = random.random((2, num_envs)) < 0.2
        ignored = random.random(num_envs) < [0, 0, 0, 0, 0.2, 0.3]
        yield (
            observation(random, num_envs),
            random.normal(size=num_envs),
            terminated & ~ignored,
            truncated & ~terminated & ~ignored,
            observation(random, num_envs),
            ignored,
        )


def part(value, rows):
    return {name: leaf[rows] for name, leaf in value.items()} if isinstance(value, dict) else value[rows]


def train(agent, seed, rows=None, updates=2):
    """``updates`` rollouts of 8 turns; with ``rows``, of these alone. The actions of all turns."""
    actions = []
    for update in range(updates):
        *played, (last, *_) = turns(seed + update, 9)
        for turn in played:
            obs, *outcome = turn if rows is None else [part(value, rows) for value in turn]
            actions.append(agent.take_action(obs))
            agent.add_memory_ppo(*outcome)
        agent.train_step(last if rows is None else part(last, rows))
    return np.stack(actions)


def equal(one, other):
    return all(torch.equal(leaf, other[name]) for name, leaf in one.items())


def test_a_member_learns_what_it_would_alone_on_its_rows():
    together = make()
    actions = train(together, 0)
    assert actions.shape == (16, 6, 2)
    for index, (name, rows) in enumerate(ROWS.items()):
        assert together.rows[name].tolist() == rows
        spaces_and_size = {"num_envs": len(rows), "num_steps": 8, "seed": 3 + index, "action_names": ("move", "vote")}
        alone = MEMBERS[name](OBS, ACTIONS, **spaces_and_size)
        assert (actions[:, rows] == train(alone, 0, rows)).all()
        assert equal(alone.network.state_dict(), together.members[name].network.state_dict())
        assert together.last_metrics[f"{name}/policy_loss"] == alone.last_metrics["policy_loss"]
    assert together.env_steps == sum(member.env_steps for member in together.members.values()) > 0
    assert together.num_parameters == sum(leaf.numel() for leaf in together.network.parameters())


def test_steps_of_annealing_are_shared_out_by_rows():
    members = make(total_steps=600).members
    assert (members["a"].total_steps, members["b"].total_steps) == (400, 200)
    assert make(total_steps=None).members["a"].total_steps is None


def test_one_name_at_all_seats_is_the_agent_itself():
    one = make(members={"a": MEMBERS["a"]}, seats=["a"])
    alone = MEMBERS["a"](OBS, ACTIONS, num_envs=6, num_steps=8, seed=3, action_names=("move", "vote"))
    assert (train(one, 5) == train(alone, 5)).all()
    assert equal(alone.network.state_dict(), one.members["a"].network.state_dict())


def test_a_saved_population_goes_on_exactly(tmp_path):
    first, second = make(), make(seed=99)
    train(first, 0)
    first.save(tmp_path / "new" / "population.pt")
    second.load(tmp_path / "new" / "population.pt")
    assert (train(first, 7) == train(second, 7)).all()
    assert equal(first.network.state_dict(), second.network.state_dict())
    other = make(members={"a": MEMBERS["a"]}, seats=["a"])
    with pytest.raises(ValueError, match="the checkpoint is of other agents than a"):
        other.load(tmp_path / "new" / "population.pt")


def test_players_of_another_number_of_rows_keep_the_seats(monkeypatch):
    population = make()
    players = population.new_actor(12, seed=1)
    assert {name: len(rows) for name, rows in players.rows.items()} == {"a": 8, "b": 4}
    random = np.random.default_rng(0)
    for member, code in (("a", [1, 2]), ("b", [3, 0])):
        monkeypatch.setattr(
            players.players[member], "play", lambda obs, greedy, code=code: np.tile(code, (len(obs["image"]), 1))
        )
    actions = players.play(observation(random, 12), greedy=True)
    assert actions.tolist() == [[1, 2], [3, 0], [1, 2]] * 4
    with pytest.raises(ValueError, match="num_envs=7 is no multiple of the 3 seats"):
        population.new_actor(7)


def test_a_member_may_be_replaced_between_two_rollouts():
    population, fresh = (
        make(),
        MEMBERS["b"](OBS, ACTIONS, num_envs=2, num_steps=8, action_names=("move", "vote"), seed=9),
    )
    train(population, 0, updates=1)
    population.members["b"] = fresh
    train(population, 1, updates=1)
    assert (population.members["a"].updates, fresh.updates) == (2, 1)
    assert equal(population.network["b"].state_dict(), fresh.network.state_dict())


def test_evaluation_tells_which_rows_played(witness_vote):
    agent = Population(
        witness_vote.single_observation_space, witness_vote.single_action_space, MEMBERS, SEATS, num_envs=6, num_steps=8
    )
    played = evaluate(agent, witness_vote, 12, seed=0)
    assert sorted(played.rows.tolist()) == sorted([*range(6)] * 2)
    assert agent.network.training


@pytest.fixture
def witness_vote():
    from envs.witness_vote import WitnessVote

    return WitnessVote(6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 7}, "num_envs=7 is no multiple of the 3 seats"),
        ({"seats": ["a", "c"]}, r"seats=\['a', 'c'\] must name every member, and no other: there are a, b"),
        ({"seats": ["a"]}, "must name every member"),
        ({"seats": []}, "must name every member"),
        ({"num_envs": 0}, "num_envs=0"),
    ],
)
def test_members_and_seats_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_outcomes_of_a_wrong_shape_are_refused():
    population = make()
    population.take_action(observation(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"truncated has shape \(5,\), but \(6,\) is expected"):
        population.add_memory_ppo(np.zeros(6), np.zeros(6, bool), np.zeros(5, bool))

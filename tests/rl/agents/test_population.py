"""Several agents in one environment: each sees its own rows only, and learns from them what it would alone."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.agents import DualHeadRecurrentPPO, Population, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM
from rl.agents.population import member_seed
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


def make_population(num_envs=6, members=MEMBERS, seats=SEATS, **options):
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


def rows_of(value, rows):
    return {name: leaf[rows] for name, leaf in value.items()} if isinstance(value, dict) else value[rows]


def train_rows(agent, seed, rows=None, updates=2):
    """``updates`` rollouts of 8 turns; with ``rows``, of these alone. The actions of all turns."""
    actions = []
    for update in range(updates):
        *played, (last, *_) = turns(seed + update, 9)
        for turn in played:
            obs, *outcome = turn if rows is None else [rows_of(value, rows) for value in turn]
            actions.append(agent.act(obs))
            agent.observe(*outcome)
        agent.learn(last if rows is None else rows_of(last, rows))
    return np.stack(actions)


def equal(one, other):
    return all(torch.equal(leaf, other[name]) for name, leaf in one.items())


# ------------------------------------------------------------------------------------------------------------ learning


def test_a_member_learns_what_it_would_alone_on_its_rows():
    together = make_population()
    actions = train_rows(together, 0)
    assert actions.shape == (16, 6, 2)
    for index, (name, rows) in enumerate(ROWS.items()):
        assert together.rows[name].tolist() == rows
        spaces_and_size = {"num_envs": len(rows), "num_steps": 8, "seed": member_seed(3, index)}
        alone = MEMBERS[name](OBS, ACTIONS, action_names=("move", "vote"), **spaces_and_size)
        assert (actions[:, rows] == train_rows(alone, 0, rows)).all()
        assert equal(alone.network.state_dict(), together.members[name].network.state_dict())
        assert together.last_metrics[f"{name}/policy_loss"] == alone.last_metrics["policy_loss"]
    assert together.env_steps == sum(member.env_steps for member in together.members.values()) > 0
    assert together.num_parameters == sum(leaf.numel() for leaf in together.network.parameters())


def test_steps_of_schedules_are_shared_out_by_rows():
    members = make_population(total_steps=600).members
    assert (members["a"].total_steps, members["b"].total_steps) == (400, 200)
    assert make_population(total_steps=None).members["a"].total_steps is None


def test_one_name_at_all_seats_is_the_agent_itself():
    one = make_population(members={"a": MEMBERS["a"]}, seats=["a"])
    alone = MEMBERS["a"](OBS, ACTIONS, num_envs=6, num_steps=8, seed=member_seed(3, 0), action_names=("move", "vote"))
    assert (train_rows(one, 5) == train_rows(alone, 5)).all()
    assert equal(alone.network.state_dict(), one.members["a"].network.state_dict())


def test_a_saved_population_goes_on_exactly(tmp_path):
    first, second = make_population(), make_population(seed=99)
    train_rows(first, 0)
    first.save(tmp_path / "new" / "population.pt")
    second.load(tmp_path / "new" / "population.pt")
    assert (train_rows(first, 7) == train_rows(second, 7)).all()
    assert equal(first.network.state_dict(), second.network.state_dict())
    other = make_population(members={"a": MEMBERS["a"]}, seats=["a"])
    with pytest.raises(ValueError, match="the checkpoint is of other agents than a"):
        other.load(tmp_path / "new" / "population.pt")


# -------------------------------------------------------------------------------------------------------------- players


def greedy_outputs(players, obs):
    """What each member's network makes of the next step: policy parameters by name."""
    found = {}
    for name, rows in players.rows.items():
        player = players.actors[name]
        found[name] = player.step(player.inputs(rows_of(obs, rows)), greedy=True)[0]
    return found


def test_players_of_another_number_of_rows_keep_the_seats(monkeypatch):
    population = make_population()
    players = population.new_actor(12, seed=1)
    assert {name: len(rows) for name, rows in players.rows.items()} == {"a": 8, "b": 4}
    asked = []
    for member, code in (("a", [1, 2]), ("b", [3, 0])):

        def act(obs, greedy, code=code):
            asked.append(greedy)
            return np.tile(code, (len(obs["image"]), 1))

        monkeypatch.setattr(players.actors[member], "act", act)
    for greedy in (True, False):
        actions = players.act(observation(np.random.default_rng(0), 12), greedy=greedy)
        assert actions.tolist() == [[1, 2], [3, 0], [1, 2]] * 4
    assert asked == [True, True, False, False]
    with pytest.raises(ValueError, match="num_envs=7 is no multiple of the 3 seats"):
        population.new_actor(7)


def test_each_player_is_told_of_its_own_rows():
    """Rewards name their rows; episodes end in rows 1, 2 and 3, of which member b plays the first."""
    population = make_population(members={n: partial(m, previous_action_reward=True) for n, m in MEMBERS.items()})
    players = population.new_actor(6, seed=1)
    players.act(observation(np.random.default_rng(0)))
    players.observe(np.arange(6, dtype=np.float32), np.array([False, True, True, True, False, False]))
    starts = {name: player.starts.tolist() for name, player in players.actors.items()}
    assert starts == {"a": [False, True, True, False], "b": [True, False]}
    fed = {name: player.previous["previous_reward"].flatten().tolist() for name, player in players.actors.items()}
    assert fed == {"a": [0.0, 0.0, 0.0, 5.0], "b": [0.0, 4.0]}


@pytest.mark.parametrize("memory", [True, False])
def test_players_remember_unless_they_are_not_to(memory):
    """After one of two different steps all see the same."""
    outputs = []
    for seed in (0, 1):
        players = make_population().new_actor(6, 1, memory)
        players.act(observation(np.random.default_rng(seed)), greedy=True)
        players.observe(np.zeros(6, dtype=np.float32), np.zeros(6, bool))
        outputs.append(greedy_outputs(players, observation(np.random.default_rng(9))))
    assert [torch.equal(outputs[0][name], outputs[1][name]) for name in ("a", "b")] == [not memory] * 2


def test_actors_that_are_told_nothing_go_on_remembering():
    population = make_population(seed=1)
    told, silent = (population.new_actor(6, 1) for _ in range(2))
    for seed in range(4):
        for actors in (told, silent):
            actors.act(observation(np.random.default_rng(seed)), greedy=True)
        told.observe(np.zeros(6, dtype=np.float32), np.zeros(6, bool))
        for name in ("a", "b"):
            assert torch.equal(told.actors[name].state["h"], silent.actors[name].state["h"])
    silent.reset()
    assert all(actor.starts.all() and not actor.state["h"].any() for actor in silent.actors.values())


def test_players_sample_by_their_seed_and_leave_the_members_alone():
    population, obs = make_population(), observation(np.random.default_rng(0), 60)

    def sampled(seed):
        return population.new_actor(60, seed).act(obs).tolist()

    assert sampled(1) == sampled(1) != sampled(2)
    assert all(member.actor.starts.all() for member in population.members.values())
    assert not any(leaf.any() for member in population.members.values() for leaf in member.actor.state.values())


# ------------------------------------------------------------------------------------------------- one call at a time


@pytest.mark.parametrize("member", [MEMBERS["b"], RecurrentIQN], ids=["RecurrentPPOLSTM", "RecurrentIQN"])
def test_an_action_that_waits_is_dropped_by_loading(member):
    """Of each member, whatever its type."""
    population = make_population(members={"a": MEMBERS["a"], "b": member})
    obs = observation(np.random.default_rng(0))
    population.act(obs)
    population.load_state_dict(population.state_dict())
    with pytest.raises(RuntimeError, match="without act"):
        population.observe(0.0, False)
    population.act(obs)
    population.observe(0.0, False)
    assert [member.rollout_size for member in population.members.values()] == [4, 2]


def test_the_loss_is_the_mean_over_the_members():
    population = make_population()
    assert population.learn() == 0.0
    assert population.last_metrics == {}
    train_rows(population, 0, updates=1)
    *played, (last, *_) = turns(3, 9)
    for obs, *outcome in played:
        population.act(obs)
        population.observe(*outcome)
    loss = population.learn(last)
    assert loss == np.mean([population.last_metrics[f"{name}/loss"] for name in ("a", "b")])
    assert loss not in [population.last_metrics[f"{name}/loss"] for name in ("a", "b")]


def test_a_reset_is_one_of_all_members():
    population = make_population()
    population.act(observation(np.random.default_rng(0)))
    population.observe(0.0, False)
    assert not any(member.actor.starts.any() for member in population.members.values())
    population.act(observation(np.random.default_rng(1)))
    population.reset()
    for member in population.members.values():
        assert member.actor.starts.all()
        assert member.pending_action is None
        assert member.buffer.truncated[0].all()


def test_a_population_knows_what_was_asked_for():
    population = make_population(device="cpu", num_steps=16, action_names=("left", "right"))
    assert (population.num_envs, population.num_steps, population.device.type) == (6, 16, "cpu")
    assert population.model_name == "Population"
    assert set(population.network) == {"a", "b"}
    for member in population.members.values():
        assert member.num_steps == 16
        assert member.network.head.branches == ("left", "right")


def test_the_words_of_a_client_do_what_the_plain_ones_do():
    client, plain = make_population(), make_population()
    for obs, *outcome in turns(0, 8):
        assert (client.take_action(obs) == plain.act(obs)).all()
        client.add_memory_ppo(*outcome)
        plain.observe(*outcome)
    last = observation(np.random.default_rng(9))
    loss = client.train_step(last)
    assert (loss.shape, loss.item()) == ((), plain.learn(last))
    for name in ("start_epoch_action", "end_epoch_action"):
        client.act(last)
        getattr(client, name)(epoch=0)
        assert all(member.pending_action is None for member in client.members.values())
    assert equal(client.network.state_dict(), plain.network.state_dict())


# ---------------------------------------------------------------------------------------------------------------- seeds


def test_seeds_of_members_are_all_different():
    """For 21 seeds and 5 places; with ``seed + place`` there would be 25."""
    assert len({member_seed(seed, place) for seed in range(21) for place in range(5)}) == 21 * 5
    assert member_seed(3, 1) == member_seed(3, 1)


def test_no_member_is_that_of_the_next_place_with_the_seed_before():
    """Nor are two of one population alike."""
    members = {name: MEMBERS["a"] for name in "abc"}
    weights = {}
    for seed in (3, 4):
        population = make_population(members=members, seats=list("abc"), num_envs=3, seed=seed)
        for place, member in enumerate(population.members.values()):
            weights[seed, place] = torch.cat([leaf.flatten() for leaf in member.network.parameters()])
    for key, vector in weights.items():
        assert not any(torch.equal(vector, other) for another, other in weights.items() if another != key)


def test_without_a_seed_populations_differ():
    assert not equal(make_population(seed=None).network.state_dict(), make_population(seed=None).network.state_dict())


# ---------------------------------------------------------------------------------------- replacement, what is refused


def test_a_member_may_be_replaced_between_two_rollouts():
    population, fresh = (
        make_population(),
        MEMBERS["b"](OBS, ACTIONS, num_envs=2, num_steps=8, action_names=("move", "vote"), seed=9),
    )
    train_rows(population, 0, updates=1)
    population.members["b"] = fresh
    train_rows(population, 1, updates=1)
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
        make_population(**arguments)


def test_outcomes_of_a_wrong_shape_are_refused():
    population = make_population()
    population.act(observation(np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"truncated has shape \(5,\), but \(6,\) is expected"):
        population.observe(np.zeros(6), np.zeros(6, bool), np.zeros(5, bool))


BOX, TWO = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2)


def make(num_envs=6):
    member = partial(RecurrentPPO, layer_size=8, core=partial(gru, hidden_size=8), bptt=4, num_minibatches=2)
    seats = ["a", "b", "c"]
    return Population(BOX, TWO, dict.fromkeys(seats, member), seats, num_envs=num_envs, num_steps=8, seed=0)


def test_a_population_trains_as_long_as_one_of_its_members_does():
    population = make()
    population.members["a"].training = population.members["c"].training = False
    assert population.training
    population.members["b"].training = False
    assert not population.training
    population.training = True
    assert all(member.training for member in population.members.values())


def test_players_of_different_members_draw_independently():
    """Of two choices nearly alike two members agree in about half of 600 rows, not in all of them."""
    actions = make().new_actor(1800, seed=1).act(np.zeros((1800, 2), np.float32))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert 0.4 < (actions[one::3] == actions[other::3]).mean() < 0.6

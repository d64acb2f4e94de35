"""Playing with a trained policy: any number of rows, memories inside or handed in and out, and what is refused."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import Player, cores
from rl.agents import Population, RecurrentIQN, RecurrentPPO

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)
OBSERVATIONS = np.random.default_rng(0).standard_normal((12, 3, 2)).astype(np.float32)  # [T, B, 2]
KINDS = {"PPO": RecurrentPPO, "IQN": RecurrentIQN}


@pytest.fixture
def make(make_agent, randomise):
    """An agent of random weights, so that what it remembers decides what it does."""

    def make(envs=(OBS, FOUR), **options):
        agent = make_agent(envs, **options)
        with torch.no_grad():
            for parameter in randomise(agent.network).parameters():
                parameter.mul_(4 if parameter.dim() > 1 else 0)
        return agent

    return make


@pytest.fixture
def expected():
    """The actions of an actor of the agent that is told of each outcome, ``[T, B, ...]``."""

    def play(agent, observations=OBSERVATIONS, starts=()):
        actor = agent.new_actor(observations.shape[1], 0)
        agent.network.eval()
        actions = []
        for t, obs in enumerate(observations):
            actions.append(actor.act(obs, greedy=True))
            actor.observe(np.ones(len(obs), np.float32), np.array([(t + 1, row) in starts for row in range(len(obs))]))
        agent.network.train()
        return np.stack(actions)

    return play


# ------------------------------------------------------------------------------------------------------------- memories


@pytest.mark.parametrize("core", ["gru", "lstm", "attention", "mamba", "mlp"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_memory_goes_on_from_call_to_call_and_as_a_state(make, expected, kind, core):
    agent = make(kind=kind, core=core)
    player, server, actions = Player(agent), Player(agent), expected(agent)
    state = server.initial_state(3)
    for t, obs in enumerate(OBSERVATIONS):
        assert player.act(obs).tolist() == actions[t].tolist()
        action, state = server.act(obs, state)
        assert action.tolist() == actions[t].tolist()


def test_the_actions_above_hang_on_what_is_remembered(make, expected):
    """Or the test above could not fail."""
    agent = make()
    forgetful = np.stack([Player(agent).act(obs) for obs in OBSERVATIONS])
    assert (forgetful[0] == expected(agent)[0]).all() and (forgetful != expected(agent)).sum() >= 3


@pytest.mark.parametrize("say", ["rows", "bools", "starts", "state"])
def test_rows_begin_anew_where_they_are_told_to(make, expected, say):
    """Before step 4 row 1, before step 7 rows 0 and 2: the others go on."""
    agent, starts = make(core="lstm"), {(4, 1), (7, 0), (7, 2)}
    actions, player = expected(agent, starts=starts), Player(agent)
    assert (actions != expected(agent)).any()
    state = player.initial_state(3)
    for t, obs in enumerate(OBSERVATIONS):
        begins = np.array([(t, row) in starts for row in range(3)])
        if say == "state":
            action, state = player.act(obs, state, begins)
        elif say == "starts":
            action = player.act(obs, starts=begins)
        else:
            player.reset(np.flatnonzero(begins) if say == "rows" else begins)
            action = player.act(obs)
        assert action.tolist() == actions[t].tolist()


def test_a_reset_begins_everywhere_with_any_number_of_rows(make, expected):
    agent = make()
    player = Player(agent)
    for rows in (3, 1, 2):
        for t in range(6):
            assert player.act(OBSERVATIONS[t, :rows]).tolist() == expected(agent)[t, :rows].tolist()
        player.reset()


def test_a_state_is_not_changed_and_can_be_played_on_twice(make):
    player = Player(make())
    _, state = player.act(OBSERVATIONS[0], player.initial_state(3))
    before = {name: leaf.clone() for name, leaf in state.items()}
    first, second = (player.act(OBSERVATIONS[1], state) for _ in range(2))
    assert all(torch.equal(before[name], leaf) for name, leaf in state.items())
    assert first[0].tolist() == second[0].tolist()
    assert all(torch.equal(leaf, second[1][name]) for name, leaf in first[1].items())


def test_a_state_may_be_sent_as_arrays(make):
    player = Player(make())
    _, state = player.act(OBSERVATIONS[0], player.initial_state(3))
    sent = {name: leaf.numpy().astype(np.float64) for name, leaf in state.items()}
    for got, kept in zip(*(player.act(OBSERVATIONS[1], given)[1].values() for given in (sent, state)), strict=True):
        assert torch.equal(got, kept)


@pytest.mark.parametrize("core", ["gru", "attention", "jamba"])
def test_threads_share_a_player_on_states_of_their_own(make, core):
    """16 clients in 8 threads get what each would get alone: no core keeps numbers between two steps."""
    player = Player(make(core=core))
    clients = np.random.default_rng(1).standard_normal((16, 10, 2)).astype(np.float32)

    def play(observations):
        state, actions = player.initial_state(), []
        for obs in observations:
            action, state = player.act(obs, state)
            actions.append(action)
        return actions, {name: leaf.tolist() for name, leaf in state.items()}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(play, clients)) == [play(observations) for observations in clients]


# ----------------------------------------------------------------------------------------------------- agent and player


def test_player_and_agent_do_not_notice_each_other(make, play_turns, assert_same):
    """The agent learns as one without a player; the player keeps its weights, and drops nothing out."""
    options = {"core_options": {"num_layers": 2, "dropout": 0.5}, "num_envs": 3}
    agent, alone = make(**options), make(**options)
    player = Player(agent)
    actions = [player.act(obs).tolist() for obs in OBSERVATIONS]
    assert set(player.initial_state()) == {"h"}  # no count of dropout
    for learner in (agent, alone):
        for _ in range(2):
            play_turns(learner, 8)
            learner.learn()
            if learner is agent:
                player.act(OBSERVATIONS[0])
    assert_same(agent, alone)
    assert agent.training
    player.reset()
    assert [player.act(obs).tolist() for obs in OBSERVATIONS] == actions


def test_actions_are_sampled_by_the_seed(make):
    agent = make()
    obs = np.zeros((200, 2), np.float32)

    def sampled(seed):
        return Player(agent, seed=seed).act(obs, None, False).tolist()

    assert sampled(1) == sampled(1) != sampled(2)
    assert len(set(sampled(1))) > 1
    assert len(set(Player(agent, seed=1).act(obs).tolist())) == 1


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_previous_actions_and_rewards_are_fed(make, expected, kind):
    """The action is known to the player, the reward is told; without it nothing is guessed."""
    agent = make(kind=kind, previous_action_reward=True)
    player, server = Player(agent), Player(agent)
    state, actions = server.initial_state(3), expected(agent)
    for t, obs in enumerate(OBSERVATIONS):
        if t:
            for refused in (partial(player.act, obs), partial(server.act, obs, state)):
                with pytest.raises(ValueError, match=r"rewards=None: this agent is fed the reward of its previous"):
                    refused()
        action, state = server.act(obs, state, np.full(3, t == 0), rewards=np.ones(3) if t else None)
        own = player.act(obs, rewards=np.ones(3) if t else None)
        assert own.tolist() == action.tolist() == actions[t].tolist()
    with pytest.raises(ValueError, match=r"rewards has shape \(2,\), but the observation has 3 row"):
        player.act(OBSERVATIONS[0], rewards=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"rewards=\[nan, 1, 1\]: they must be finite"):
        player.act(OBSERVATIONS[0], rewards=[float("nan"), 1, 1])


# ----------------------------------------------------------------------------------------------------------- the spaces


@pytest.mark.parametrize(
    ("action_space", "kind"),
    [
        (FOUR, int),
        (spaces.Discrete(3, start=-1), int),
        (spaces.MultiDiscrete([2, 3], start=[5, -1]), np.ndarray),
        (spaces.Box(np.array([-2, 0], np.float32), np.array([-1, 9], np.float32)), np.ndarray),
        (spaces.MultiBinary(3), np.ndarray),
    ],
    ids=str,
)
def test_a_single_observation_gives_a_single_action_of_the_space(make, action_space, kind):
    """As the single form of the agent gives it."""
    agent = make((OBS, action_space))
    agent.training = False
    player = Player(agent)
    for obs in 9 * OBSERVATIONS[:, 0]:
        action = player.act(obs)
        assert isinstance(action, kind) and action_space.contains(action)
        np.testing.assert_allclose(action, agent.act(obs), rtol=1e-6)  # kernels round as the processor has them do


def test_observations_of_many_parts_come_as_a_dict_or_flat(make, expected):
    space = spaces.Dict({"b": OBS, "a": spaces.Tuple([spaces.Box(-1, 1, (1,)), spaces.Discrete(3, start=1)])})
    player = Player(make((space, FOUR)))
    one = {"b": OBSERVATIONS[0, 0], "a": (np.ones(1, np.float32), 3)}
    many = {"b": OBSERVATIONS[0], "a": (np.ones((3, 1), np.float32), np.array([3, 1, 2]))}
    alone, _ = player.act(one, player.initial_state())
    assert alone == player.act(many)[0]
    boxes = Player(make((spaces.Dict({"b": OBS, "a": OBS}), FOUR)))
    state = boxes.initial_state()
    assert boxes.act(np.arange(4.0), state)[0] == boxes.act({"a": np.arange(2.0), "b": np.arange(2.0, 4)}, state)[0]


def test_actions_that_the_mask_forbids_are_never_chosen(make):
    space = spaces.Dict({"action_mask": spaces.MultiBinary(4), "obs": OBS})
    player = Player(make((space, FOUR)), seed=0)
    for t, obs in enumerate(OBSERVATIONS):
        mask = np.eye(4, dtype=np.int8)[[t % 4, (t + 1) % 4, 3]]
        for greedy in (True, False):
            assert player.act({"obs": obs, "action_mask": mask}, greedy=greedy).tolist() == mask.argmax(1).tolist()


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda p: p.act(np.zeros((3, 3))), r"observation 'obs' has shape \(3, 3\): it must be \(2,\), or \(B, 2\)"),
        (lambda p: p.act(np.zeros((0, 2))), r"has shape \(0, 2\)"),
        (lambda p: p.act(None), r"has shape \(\)"),
        (lambda p: p.act(np.array([[0, 0], [0, np.nan], [0, 0]])), "a number that is not finite, in row 1"),
        (lambda p: p.act(np.full((3, 2), np.inf)), "a number that is not finite, in row 0"),
        (lambda p: p.act(np.array([["a", "b"]] * 3)), "observation 'obs' holds <U1, but its space is float32"),
        (lambda p: p.act(np.zeros((2, 2))), r"2 row\(s\) was given, but the memory is of 3: call reset\(\)"),
        (lambda p: p.act(np.zeros(2)), r"1 row\(s\) was given, but the memory is of 3"),
        (lambda p: p.act(np.zeros((3, 2)), [True]), r"starts has shape \(1,\), but the observation has 3 row"),
        (lambda p: p.act(np.zeros((3, 2)), True), r"starts has shape \(\), but the observation has 3 row"),
        (lambda p: p.act(np.zeros((3, 2)), [0, 2, 1]), r"starts=\[0, 2, 1\]: it must hold a bool for each of the 3"),
        (lambda p: p.reset([3]), r"rows=\[3\]: they must be whole numbers from 0 to 2, or 3 bools"),
        (lambda p: p.reset(-1), "rows=-1: they must be whole numbers from 0 to 2"),
        (lambda p: p.reset([True, False]), r"rows=\[True, False\]: they must be"),
        (lambda p: p.act(np.zeros((3, 2)), {}), "state=no leaves: it must be a dict of h, as initial_state makes it"),
        (lambda p: p.act(np.zeros((3, 2)), state=None), "state=None: it must be a dict of h"),
        (lambda p: p.act(np.zeros((3, 2)), {"c": 1}), "state=c: it must be a dict of h"),
        (lambda p: p.act(np.zeros((3, 2)), p.initial_state(2)), r"state 'h' is \(2, 1, 8\) .*: it must be \(3, 1, 8\)"),
        (lambda p: p.act(np.zeros(2), {"h": torch.ones(1, 1, 8, dtype=torch.int64)}), "of torch.int64: it must be"),
        (
            lambda p: p.act(np.zeros(2), {"h": torch.full((1, 1, 8), torch.nan)}),
            "numbers that are not finite: the state",
        ),
        (lambda p: p.initial_state(0), "batch_size=0: it must be a whole number of at least 1"),
    ],
)
def test_bad_input_is_told_in_a_sentence_and_changes_nothing(make, call, sentence):
    agent = make()
    player, other = Player(agent), Player(agent)
    for each in (player, other):
        each.act(OBSERVATIONS[0])
    with pytest.raises(ValueError, match=sentence):
        call(player)
    for obs in OBSERVATIONS[1:]:
        assert player.act(obs).tolist() == other.act(obs).tolist()


@pytest.mark.parametrize(
    ("space", "given", "sentence"),
    [
        (spaces.Discrete(3, start=1), 4, r"holds 4, which is no value of Discrete\(3, start=1\)"),
        (spaces.MultiDiscrete([2, 3]), [1, 3], "holds 3, which is no value of MultiDiscrete"),
        (spaces.Box(0, 255, (2,), np.uint8), [0, 256], "holds numbers from 0 to 256, but its space is uint8"),
        (spaces.Box(0, 255, (2,), np.uint8), [0.5, 2], "holds fractions, but its space is uint8"),
        (
            spaces.Dict({"a": OBS, "b": OBS}),
            {"a": np.zeros(2)},
            "with the parts a, b is expected, but this dict lacks 'b'",
        ),
        (spaces.Dict({"a": OBS, "b": OBS}), {"a": np.zeros(2), "b": np.zeros((3, 2))}, "they have a: none, b: 3"),
        (spaces.Dict({"a": OBS, "b": OBS}), np.zeros(3), "3 numbers was given, but 4 are expected"),
        (spaces.Tuple([OBS, OBS]), 3, "with the parts 0, 1 is expected, but this int lacks"),
    ],
    ids=str,
)
def test_observations_that_are_no_values_of_their_space_are_refused(make, space, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Player(make((space, FOUR))).act(given)


def test_several_networks_are_no_player():
    member = partial(RecurrentPPO, layer_size=4, core=partial(cores.gru, hidden_size=4), num_minibatches=1, bptt=8)
    population = Population(OBS, FOUR, {"a": member}, ["a"], num_envs=2, num_steps=8)
    with pytest.raises(ValueError, match=r"Population has several networks: play its members, Player\(agent.members"):
        Player(population)
    assert Player(population.members["a"]).act(np.zeros(2)) in range(4)

"""Recurrent PPO with two heads: codes of moves and votes, and that only what was executed is trained."""

from itertools import product

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter
from rl import cores
from rl.agents import DualHeadRecurrentPPO, RecurrentPPO

OBS = spaces.Box(-1, 1, (3,))
HIDDEN = -1


@pytest.fixture
def make():
    """An agent of 3 inputs with 7 codes of a move or a vote, which learns in one sequence of 16 turns."""

    def make(codes=7, **options):
        sizes = {"hidden_size": 8, "rollout_length": 16, "batch_size": 16, "bptt": 16, "entropy_start": 0.0}
        return DualHeadRecurrentPPO(3, codes, seed=0, **sizes | options)

    return make


@pytest.fixture
def make_voter(make):
    """The same, but it nearly always votes 1 and moves at random."""

    def make_voter(**options):
        agent = make(**options)
        with torch.no_grad():
            agent.network.heads.bias[5] = 50.0
        return agent

    return make_voter


@pytest.fixture
def codes_of(force_branches):
    """The code that an agent returns for each move and vote, by forcing its policy."""

    def ask(agent):
        agent.training, codes = False, {}
        for branches in product(*(range(n) for n in agent.network.head.sizes)):
            force_branches(agent, *branches)
            codes[branches] = agent.take_action(np.zeros(3))
            assert agent.get_dual_action() == branches
        return codes

    return ask


def stored(agent):
    return agent.buffer.actions[: agent.buffer.size, 0].tolist()


# ------------------------------------------------------------------------------------------------------- memory, names


def test_it_remembers_with_a_gru_unless_told_otherwise():
    assert set(DualHeadRecurrentPPO(OBS, spaces.Discrete(7)).actor.state) == {"h"}
    assert set(DualHeadRecurrentPPO(10, 7, hidden_size=8).actor.state) == {"h"}
    assert set(DualHeadRecurrentPPO(10, 7, hidden_size=8, core=cores.lstm).actor.state) == {"h", "c"}


def test_positional_arguments_are_those_of_recurrent_ppo(same_weights):
    """(observation_space, action_space, layer_size, epsilon, epsilon_min, device, seed)."""
    kinds = DualHeadRecurrentPPO, RecurrentPPO
    agents = [kind(OBS, spaces.MultiDiscrete([4, 3]), 8, 0.5, 0.25, "cpu", 3) for kind in kinds]
    for agent in agents:
        assert (agent.layer_size, agent.epsilon, agent.epsilon_min, agent.device.type) == (8, 0.5, 0.25, "cpu")
    assert same_weights(*agents)


def test_with_spaces_it_learns_what_recurrent_ppo_learns(make_agent, train_batched, same_weights):
    """From cuts, too, with what was seen after them."""
    envs = [Counter(3, [2, 3, 5], "truncated") for _ in range(2)]
    agents = [make_agent(envs[0], kind, num_envs=3) for kind in (DualHeadRecurrentPPO, RecurrentPPO)]
    for agent, env in zip(agents, envs, strict=True):
        train_batched(agent, env, 2)
        assert agent.updates == 2
    assert same_weights(*agents)


def test_two_branches_are_named_move_and_vote():
    assert DualHeadRecurrentPPO(10, 7, hidden_size=8).network.head.branches == ("move", "vote")
    assert DualHeadRecurrentPPO(OBS, spaces.MultiDiscrete([3, 4])).network.head.branches == ("move", "vote")
    assert DualHeadRecurrentPPO(OBS, spaces.MultiDiscrete([3, 4, 2])).network.head.branches[0] == "action_0"
    assert DualHeadRecurrentPPO(OBS, spaces.Discrete(7)).network.head.branches == ("action",)
    named = DualHeadRecurrentPPO(OBS, spaces.MultiDiscrete([3, 4]), action_names=["left", "right"])
    assert named.network.head.branches == ("left", "right")


def test_widths_and_numbers_of_votes_are_free():
    agent = DualHeadRecurrentPPO(3, 4 + 6 - 1, n_vote_actions=6, hidden_size=24)
    assert agent.network.head.sizes == [4, 6]
    assert agent.actor.state["h"].shape == (1, 1, 24)


# --------------------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize(("codes", "moves", "votes"), [(6, 4, 3), (7, 4, 3), (6, 2, 5), (7, 5, 3)])
def test_simple_codes_are_a_move_or_a_vote(make, codes_of, codes, moves, votes):
    """4 moves and 3 votes: 0 to 3 are moves; votes 1 and 2 are 4 and 5, whatever the move. A no-op may be a move."""
    found = codes_of(make(codes, n_move_actions=moves, n_vote_actions=votes))
    pairs = list(product(range(moves), range(votes)))
    assert found == {(move, vote): move if vote == 0 else moves - 1 + vote for move, vote in pairs}
    assert set(found.values()) == set(range(moves + votes - 1))


@pytest.mark.parametrize("codes", [12, 13])
def test_composite_codes_are_a_move_and_a_vote(make, codes_of, codes):
    found = codes_of(make(codes, use_composite_actions=True))
    assert found == {(move, vote): move * 3 + vote for move in range(4) for vote in range(3)}


def test_one_head_over_all_codes(make, codes_of):
    agent = make(use_dual_head=False)
    assert agent.action_space == spaces.Discrete(7)
    assert codes_of(agent) == {(code,): code for code in range(7)}
    assert make(15, use_dual_head=False, use_factored_actions=True, action_dims="5,3").network.head.sizes == [5, 3]


@pytest.mark.parametrize(("codes", "options"), [(7, {}), (13, {"use_composite_actions": True})])
def test_every_code_but_the_no_op_above_them_is_played(make, codes, options):
    agent, seen = make(codes, rollout_length=1000, **options), set()
    for _ in range(300):
        seen.add(agent.take_action(np.zeros(3)))
        agent.add_memory_ppo(0.0, False)
    assert seen == set(range(codes - 1))


@pytest.mark.parametrize(
    ("codes", "options", "sentence"),
    [
        (5, {}, "4 moves and 3 votes with codes of a move or a vote make 6, or 7"),
        (8, {}, "action_space=8"),
        (7, {"use_composite_actions": True}, r"codes of move \* vote make 12, or 13"),
        (14, {"use_composite_actions": True}, "action_space=14"),
        (7, {"n_vote_actions": 5}, "4 moves and 5 votes"),
        (7, {"use_factored_actions": True}, "action_dims are for one head"),
        (7, {"action_dims": "5,3"}, "action_dims are for one head"),
    ],
    ids=str,
)
def test_codes_that_do_not_fit_are_refused_in_a_sentence(make, codes, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(codes, **options)


# -------------------------------------------------------------------------------------------------------- hidden moves


def test_a_move_that_a_vote_hides_is_not_trained(make_voter):
    """Only votes were executed: the move head must not change, the vote head and the rest do."""
    agent = make_voter()
    before = agent.network.heads.weight.clone(), agent.network.heads.bias.clone()
    for turn in range(16):
        assert agent.take_action(np.full(3, 0.1 * turn)) == 4
        agent.add_memory_ppo(float(turn % 3), turn % 5 == 4)
    assert stored(agent) == [[HIDDEN, 1]] * 16
    agent.train_step()
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert torch.equal(agent.network.heads.weight[:4], before[0][:4])
    assert torch.equal(agent.network.heads.bias[:4], before[1][:4])
    assert not torch.equal(agent.network.heads.weight[7], before[0][7])  # of the value
    assert agent.updates == 1


def test_a_hidden_move_counts_for_nothing_in_the_ratio(make):
    """Two in three turns vote: their moves have no log-probability; moves of the other turns and all votes have."""
    agent = make()
    hidden = []
    for _ in range(16):
        hidden.append(agent.take_action(np.zeros(3)) >= 4)
        agent.add_memory_ppo(0.0, False)
    assert 0 < sum(hidden) < 16
    assert [move == HIDDEN for move, _ in stored(agent)] == hidden
    log_probs = agent.targets()[0].old_log_probs[:, 0]  # [T, branches]
    assert (log_probs[:, 0] == 0).tolist() == hidden
    assert (log_probs[:, 1] < 0).all()


def test_a_pair_that_was_fetched_is_trained_as_a_pair(make_voter):
    agent = make_voter()
    before, pairs = agent.network.heads.bias[:4].clone(), []
    for turn in range(16):
        assert agent.take_action(np.full(3, 0.1 * turn)) == 4
        pairs.append(list(agent.get_dual_action()))
        agent.add_memory_ppo(float(turn % 3), turn % 5 == 4)
    assert stored(agent) == pairs
    agent.train_step()
    assert not torch.equal(agent.network.heads.bias[:4], before)


def test_a_pair_that_act_gave_is_trained_as_a_pair(make_voter):
    """Also beside turns of a client that does not fetch it."""
    agent, pairs = make_voter(), []
    for turn in range(8):
        if turn % 2:
            assert agent.take_action(np.zeros(3)) == 4
            pairs.append([HIDDEN, 1])
        else:
            pairs.append(agent.act(np.zeros(3)).tolist())
        agent.observe(0.0, False)
    assert stored(agent) == pairs
    assert all(vote == 1 and move >= 0 for move, vote in pairs[::2])


def test_fetching_counts_for_one_step_only(make_voter):
    agent = make_voter()
    assert agent.get_dual_action() is None  # there is nothing to fetch, so this does not count either
    for fetched in (False, True, False, True, False):
        agent.take_action(np.zeros(3))
        if fetched:
            agent.get_dual_action()
        agent.memory.add(None, 0, 0.0, False)
    assert [move == HIDDEN for move, _ in stored(agent)] == [True, False, True, False, True]


def test_a_move_without_a_vote_is_trained_with_both_heads(make_voter):
    agent = make_voter()
    with torch.no_grad():
        agent.network.heads.bias[4] = 100.0  # vote 0: none
    code = agent.take_action(np.zeros(3))
    agent.add_memory_ppo(0.0, False)
    assert code < 4
    assert stored(agent) == [[code, 0]]


def test_composite_codes_hide_nothing(make):
    agent = make(12, use_composite_actions=True)
    for _ in range(20):
        code = agent.take_action(np.zeros(3))
        agent.add_memory_ppo(0.0, False)
        assert stored(agent)[-1] == list(divmod(code, 3))


@pytest.mark.parametrize("forget", ["reset", "start_epoch_action", "training", "load"])
def test_a_move_hidden_and_dropped_does_not_hide_the_next(make_voter, forget):
    """Nor does a pair that was fetched and dropped uncover the move after it."""
    for fetched in (False, True):
        agent = make_voter()
        agent.take_action(np.zeros(3))
        if fetched:
            agent.get_dual_action()
        if forget == "training":
            agent.training = False
            agent.training = True
        elif forget == "load":
            agent.load_state_dict(agent.state_dict())
        else:
            getattr(agent, forget)()
        if fetched:
            agent.take_action(np.zeros(3))
            agent.add_memory_ppo(0.0, False)
            assert stored(agent) == [[HIDDEN, 1]]
        else:
            pair = agent.act(np.zeros(3)).tolist()
            agent.observe(0.0, False)
            assert stored(agent) == [pair]


def test_an_outcome_that_was_refused_hides_the_move_all_the_same(make_voter):
    agent = make_voter()
    agent.take_action(np.zeros(3))
    with pytest.raises(ValueError, match="they must be finite"):
        agent.add_memory_ppo(float("nan"), False)
    agent.add_memory_ppo(1.0, False)
    assert stored(agent) == [[HIDDEN, 1]]


def test_a_pair_fetched_after_an_outcome_was_refused_is_trained_as_a_pair(make_voter):
    agent = make_voter()
    agent.take_action(np.zeros(3))
    with pytest.raises(ValueError, match="they must be finite"):
        agent.add_memory_ppo(float("nan"), False)
    pair = list(agent.get_dual_action())
    agent.add_memory_ppo(1.0, False)
    assert stored(agent) == [pair]


def test_a_vote_played_without_learning_hides_nothing(make_voter):
    agent = make_voter()
    agent.training = False
    assert agent.take_action(np.zeros(3)) == 4
    agent.add_memory_ppo(0.0, False)
    assert agent.rollout_size == 0
    agent.training = True
    pair = agent.act(np.zeros(3)).tolist()
    agent.observe(0.0, False)
    assert stored(agent) == [pair]

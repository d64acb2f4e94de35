"""Construction from plain sizes with the names of the older social-dilemma agents, and their action codes."""

from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import DualHeadRecurrentPPO, RecurrentPPOLSTM
from rl.networks.encoders import ImageEncoder, VectorEncoder

NAMED = (DualHeadRecurrentPPO, RecurrentPPOLSTM)


@pytest.fixture
def codes_of():
    """The code that an agent returns for each combination of branches, by forcing its policy."""

    def ask(agent):
        agent.training = False
        sizes = agent.network.head.sizes
        codes = {}
        with torch.no_grad():
            agent.network.heads.weight[:-1].zero_()
            for branches in product(*(range(n) for n in sizes)):
                chosen = torch.cat([torch.eye(n)[branch] for n, branch in zip(sizes, branches, strict=True)])
                agent.network.heads.bias[:-1].copy_(50 * chosen)
                codes[branches] = agent.take_action(np.zeros(agent.observation_space.shape))
        return codes

    return ask


# ------------------------------------------------------------------------------------------------- names and defaults


@pytest.mark.parametrize("kind", NAMED)
def test_positional_and_keyword_construction_agree(kind):
    """(input_size, action_space, layer_size, epsilon, epsilon_min, device, seed), as the older agents had them."""
    positional = kind(10, 7, 250, 0.5, 0.01, "cpu", 3, hidden_size=8)
    keyword = kind(
        input_size=10,
        action_space=7,
        layer_size=250,
        epsilon=0.5,
        epsilon_min=0.01,
        device="cpu",
        seed=3,
        hidden_size=8,
    )
    for agent in (positional, keyword):
        assert agent.observation_space.shape == (10,)
        assert (agent.layer_size, agent.epsilon, agent.epsilon_min) == (250, 0.5, 0.01)
        assert agent.device == torch.device("cpu")
        assert not agent.batched
    one, other = positional.network.state_dict(), keyword.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_older_names_reach_the_hyperparameters():
    agent = RecurrentPPOLSTM(
        10, 7, gamma=0.95, lr=2.5e-4, clip_param=0.1, K_epochs=3, batch_size=16, max_grad_norm=0.4, gae_lambda=0.9,
        rollout_length=48, entropy_start=0.05, hidden_size=24,
    )  # fmt: skip
    ppo = agent.ppo
    assert (ppo.gamma, ppo.learning_rate, ppo.clip, ppo.epochs) == (0.95, 2.5e-4, 0.1, 3)
    assert (ppo.max_grad_norm, ppo.gae_lambda, ppo.entropy_coef) == (0.4, 0.9, 0.05)
    assert (agent.num_steps, ppo.num_minibatches, agent.batch_size) == (48, 3, 16)
    assert agent.network.actor.core.output_size == 24


def test_defaults_of_sizes():
    """100 turns in batches of 64: two minibatches, as 100 / 64 is nearest to 2; memories of 256 units."""
    agent = RecurrentPPOLSTM(10, 7)
    assert (agent.num_steps, agent.ppo.num_minibatches) == (100, 2)
    assert agent.network.actor.core.output_size == 256


@pytest.mark.parametrize(("kind", "leaves"), [(DualHeadRecurrentPPO, {"h"}), (RecurrentPPOLSTM, {"h", "c"})])
def test_each_agent_has_its_own_memory_unless_told_otherwise(kind, leaves):
    assert set(kind(10, 7, hidden_size=8).actor.state) == leaves
    assert set(kind(10, 7, hidden_size=8, core=cores.mlp).actor.state) == set()
    space = spaces.Box(-1, 1, (10,))
    assert set(kind(space, spaces.Discrete(7)).actor.state) == leaves
    assert set(kind(space, spaces.Discrete(7), core=partial(cores.rnn, hidden_size=8)).actor.state) == {"h"}


def test_entropy_is_annealed_over_updates():
    """From 0.1 to 0 in 4 updates of 10 turns: 0.1, 0.075, 0.05, 0.025, 0, 0."""
    agent = RecurrentPPOLSTM(
        2, 3, seed=0, hidden_size=4, rollout_length=10, batch_size=10, bptt=10, K_epochs=1,
        entropy_start=0.1, entropy_end=0.0, entropy_decay_steps=4,
    )  # fmt: skip
    seen, original = [], agent.ppo._annealed
    agent.ppo._annealed = lambda left: seen.append(original(left).entropy_coef) or original(left)
    for _ in range(60):
        agent.take_action(np.zeros(2))
        agent.add_memory_ppo(0.0, False)
        agent.train_step()
    assert seen == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0, 0.0])


@pytest.mark.parametrize("options", [{}, {"entropy_end": 0.0}, {"entropy_end": 0.0, "entropy_decay_steps": 0}])
def test_without_decay_steps_entropy_stays(options):
    agent = RecurrentPPOLSTM(2, 3, entropy_start=0.1, hidden_size=4, **options)
    assert agent.ppo._annealed(0.0).entropy_coef == agent.ppo._annealed(1.0).entropy_coef == 0.1


# ------------------------------------------------------------------------------------------------------- observations


@pytest.mark.parametrize("kind", NAMED)
def test_numbers_beside_an_image_reach_the_network(kind):
    """75 numbers of an image, 4 scalars: each of them changes the policy or the value."""
    agent = kind(79, 7, obs_dim=(3, 5, 5), hidden_size=8, seed=0)
    assert {name: space.shape for name, space in agent.leaves.items()} == {"image": (3, 5, 5), "scalars": (4,)}
    assert isinstance(agent.network.actor.encoder.parts[0], ImageEncoder)

    def features(numbers):
        obs = agent.actor.inputs(numbers)
        return agent.network.actor.encoder(obs)

    base = np.random.default_rng(0).standard_normal(79).astype(np.float32)
    for index in (0, 40, 74, 75, 76, 77, 78):
        changed = base.copy()
        changed[index] += 1.0
        assert not torch.equal(features(base), features(changed)), index


def test_the_numbers_of_an_image_go_first_and_in_order():
    agent = DualHeadRecurrentPPO(22, 7, obs_dim=(2, 3, 3), hidden_size=8)
    obs = agent.actor.inputs(np.arange(22.0))
    assert torch.equal(obs["image"], torch.arange(18.0).view(1, 2, 3, 3))
    assert torch.equal(obs["scalars"], torch.tensor([[18.0, 19.0, 20.0, 21.0]]))


@pytest.mark.parametrize(
    ("size", "options", "shape", "encoder"),
    [
        (75, {"obs_dim": (3, 5, 5)}, (3, 5, 5), ImageEncoder),
        ((3, 5, 5), {}, (3, 5, 5), ImageEncoder),
        ([3, 5, 5], {"obs_type": "image"}, (3, 5, 5), ImageEncoder),
        ((75,), {}, (75,), VectorEncoder),
        (75, {}, (75,), VectorEncoder),
        ((1, 75), {}, (75,), VectorEncoder),
        ((3, 5, 5), {"obs_type": "flattened"}, (75,), VectorEncoder),
        (75, {"obs_dim": (3, 5, 5), "obs_type": "flattened"}, (75,), VectorEncoder),
        (608, {}, (608,), VectorEncoder),  # no shape is guessed from a size
        (605, {}, (605,), VectorEncoder),
    ],
)
def test_what_counts_as_an_image(capsys, size, options, shape, encoder):
    agent = RecurrentPPOLSTM(size, 7, hidden_size=8, **options)
    assert agent.observation_space.shape == shape
    (part,) = agent.network.actor.encoder.parts
    assert type(part) is encoder
    assert capsys.readouterr().out == ""
    agent.take_action(np.zeros(shape))


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("shape", [(3, 5, 5), (5, 9, 9), (9, 9, 9)])
def test_the_first_axis_of_obs_dim_is_the_channels(kind, shape):
    agent = kind(int(np.prod(shape)), 7, obs_dim=shape, hidden_size=8)
    assert not agent.network.actor.encoder.parts[0].channels_last


@pytest.mark.parametrize("kind", NAMED)
def test_the_first_axis_of_obs_dim_is_the_channels_also_where_there_are_many(kind):
    """(channels, height, width) is what obs_dim means, so the first layer has to have 27 input channels."""
    agent = kind(27 * 9 * 9, 7, obs_dim=(27, 9, 9), hidden_size=8)
    assert agent.network.actor.encoder.parts[0].layers[0].in_channels == 27


# ------------------------------------------------------------------------------------------------------- action codes


def test_simple_codes_of_moves_and_votes(codes_of):
    """4 moves and 3 votes: 0 to 3 are moves; votes 1 and 2 are 4 and 5, whatever the move."""
    codes = codes_of(DualHeadRecurrentPPO(10, 7, hidden_size=8))
    assert codes == {(move, vote): move if vote == 0 else 3 + vote for move in range(4) for vote in range(3)}
    assert set(codes.values()) == set(range(6))


def test_simple_codes_of_other_sizes(codes_of):
    """2 moves and 5 votes: moves 0 and 1, votes 2 to 5."""
    codes = codes_of(DualHeadRecurrentPPO(10, 6, n_move_actions=2, n_vote_actions=5, hidden_size=8))
    assert codes == {(move, vote): move if vote == 0 else 1 + vote for move in range(2) for vote in range(5)}


def test_a_noop_may_be_a_move_of_its_own(codes_of):
    codes = codes_of(DualHeadRecurrentPPO(10, 7, n_move_actions=5, hidden_size=8))
    assert set(codes.values()) == set(range(7))
    assert codes[4, 0] == 4


def test_composite_codes_of_moves_and_votes(codes_of):
    codes = codes_of(DualHeadRecurrentPPO(10, 13, use_composite_actions=True, hidden_size=8))
    assert codes == {(move, vote): move * 3 + vote for move in range(4) for vote in range(3)}


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("dims", [(5, 3), (5, 3, 2), (2, 3, 4), (4,), (2, 2, 2, 2)])
def test_factored_codes_are_mixed_radix(codes_of, kind, dims):
    """The first branch weighs most: (a, b, c) of sizes (5, 3, 2) is a * 6 + b * 2 + c. Each code is used once."""
    agent = kind(
        10, int(np.prod(dims)), use_factored_actions=True, action_dims=dims, hidden_size=8,
        **({"use_dual_head": False} if kind is DualHeadRecurrentPPO else {}),
    )  # fmt: skip
    codes = codes_of(agent)
    expected = {}
    for branches in product(*(range(n) for n in dims)):
        code = 0
        for size, branch in zip(dims, branches, strict=True):
            code = code * size + branch
        expected[branches] = code
    assert codes == expected
    assert sorted(codes.values()) == list(range(int(np.prod(dims))))
    for branches, code in codes.items():
        assert tuple(np.unravel_index(code, dims)) == branches


@pytest.mark.parametrize("dims", ["5,3", [5, 3], (5, 3), "5, 3"])
def test_the_sizes_of_factors_in_any_form(dims):
    agent = RecurrentPPOLSTM(10, 15, use_factored_actions=True, action_dims=dims, hidden_size=8)
    assert agent.action_space == spaces.MultiDiscrete([5, 3])


def test_one_head_over_all_codes(codes_of):
    agent = DualHeadRecurrentPPO(10, 7, use_dual_head=False, hidden_size=8)
    assert agent.action_space == spaces.Discrete(7)
    assert codes_of(agent) == {(code,): code for code in range(7)}
    plain = RecurrentPPOLSTM(10, 7, hidden_size=8)
    assert codes_of(plain) == {(code,): code for code in range(7)}


def test_branches_are_named_move_and_vote():
    assert DualHeadRecurrentPPO(10, 7, hidden_size=8).network.head.branches == ("move", "vote")
    space = spaces.Box(-1, 1, (2,))
    assert DualHeadRecurrentPPO(space, spaces.MultiDiscrete([3, 4])).network.head.branches == ("move", "vote")
    assert DualHeadRecurrentPPO(space, spaces.MultiDiscrete([3, 4, 2])).network.head.branches[0] == "action_0"
    named = DualHeadRecurrentPPO(space, spaces.MultiDiscrete([3, 4]), action_names=["left", "right"])
    assert named.network.head.branches == ("left", "right")


@pytest.mark.parametrize("options", [{}, {"use_composite_actions": True}])
def test_every_code_that_is_played_lies_below_the_number_of_codes(options):
    codes = 13 if options else 7
    agent = DualHeadRecurrentPPO(3, codes, seed=0, hidden_size=8, rollout_length=1000, **options)
    seen = set()
    for _ in range(300):
        seen.add(agent.take_action(np.zeros(3)))
        agent.add_memory_ppo(0.0, False)
    assert seen == set(range(codes - 1))  # every code but the no-op above them


# --------------------------------------------------------------------------------------------------------- hidden moves


@pytest.fixture
def voter():
    """An agent in simple mode that nearly always votes 1 and moves at random."""

    def make(**options):
        agent = DualHeadRecurrentPPO(
            3, 7, seed=0, hidden_size=8, rollout_length=16, batch_size=16, bptt=16, entropy_start=0.0, **options
        )
        with torch.no_grad():
            agent.network.heads.bias[5] = 50.0
        return agent

    return make


def stored(agent):
    return agent.buffer.actions[: agent.buffer.size, 0].tolist()


def test_a_move_that_a_vote_hides_is_not_trained(voter):
    """Only votes were executed: the move head must not change, the vote head and the rest may."""
    agent = voter()
    before = agent.network.heads.weight[:4].clone(), agent.network.heads.bias[:4].clone()
    for turn in range(16):
        assert agent.take_action(np.full(3, 0.1 * turn)) == 4
        agent.add_memory_ppo(float(turn % 3), turn % 5 == 4)
    assert stored(agent) == [[-1, 1]] * 16
    agent.train_step()
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert torch.equal(agent.network.heads.weight[:4], before[0])
    assert torch.equal(agent.network.heads.bias[:4], before[1])
    assert agent.updates == 1


def test_a_pair_that_was_fetched_is_trained_as_a_pair(voter):
    agent = voter()
    before = agent.network.heads.bias[:4].clone()
    pairs = []
    for turn in range(16):
        assert agent.take_action(np.full(3, 0.1 * turn)) == 4
        pairs.append(list(agent.get_dual_action()))
        agent.add_memory_ppo(float(turn % 3), turn % 5 == 4)
    assert stored(agent) == pairs
    agent.train_step()
    assert not torch.equal(agent.network.heads.bias[:4], before)


def test_fetching_counts_for_one_step_only(voter):
    agent = voter()
    for fetched in (True, False, True, False):
        agent.take_action(np.zeros(3))
        if fetched:
            agent.get_dual_action()
        agent.memory.add(None, 0, 0.0, False)
    assert [move == -1 for move, _ in stored(agent)] == [False, True, False, True]


def test_a_move_without_a_vote_is_trained_with_both_heads(voter):
    agent = voter()
    with torch.no_grad():
        agent.network.heads.bias[4] = 100.0  # vote 0: none
    code = agent.take_action(np.zeros(3))
    agent.add_memory_ppo(0.0, False)
    assert stored(agent) == [[code, 0]]


def test_composite_codes_hide_nothing():
    agent = DualHeadRecurrentPPO(3, 12, seed=0, hidden_size=8, use_composite_actions=True)
    for _ in range(20):
        code = agent.take_action(np.zeros(3))
        agent.add_memory_ppo(0.0, False)
        assert stored(agent)[-1] == list(divmod(code, 3))


def test_asking_for_a_pair_when_there_is_none_does_not_count(voter):
    agent = voter()
    assert agent.get_dual_action() is None
    agent.take_action(np.zeros(3))
    agent.add_memory_ppo(0.0, False)
    assert stored(agent) == [[-1, 1]]


def test_a_pair_fetched_and_dropped_does_not_count_for_the_next_action(voter):
    agent = voter()
    agent.take_action(np.zeros(3))
    agent.get_dual_action()
    agent.start_epoch_action(epoch=1)
    agent.take_action(np.zeros(3))
    agent.add_memory_ppo(0.0, False)
    assert stored(agent) == [[-1, 1]]


# ------------------------------------------------------------------------------------------------ what cannot be built


@pytest.mark.parametrize(
    ("kind", "arguments", "options", "sentence"),
    [
        (RecurrentPPOLSTM, (0, 7), {}, r"input_size\[0\]=0: it must be a whole number of at least 1"),
        (RecurrentPPOLSTM, ((3, -5, 5), 7), {}, r"input_size\[1\]=-5"),
        (RecurrentPPOLSTM, (None, 7), {}, "input_size is missing"),
        (RecurrentPPOLSTM, ((), 7), {}, "input_size is missing"),
        (RecurrentPPOLSTM, (10, 0), {}, "action_space=0"),
        (RecurrentPPOLSTM, (10,), {}, "action_space=None"),
        (RecurrentPPOLSTM, (10, 7), {"obs_dim": (3, 5, 5)}, "holds 75 numbers, but input_size=10 only 10"),
        (RecurrentPPOLSTM, (10, 7), {"obs_type": "image"}, r"give obs_dim=\(channels, height, width\)"),
        (RecurrentPPOLSTM, (10, 7), {"obs_type": "pixels"}, "obs_type='pixels': it must be one of"),
        (RecurrentPPOLSTM, (10, 7), {"use_factored_actions": True}, "need the size of each factor"),
        (RecurrentPPOLSTM, (10, 7), {"use_factored_actions": True, "action_dims": (3, 0)}, r"action_dims=\[3, 0\]"),
        (RecurrentPPOLSTM, (10, 7), {"rollout_length": 0}, "rollout_length=0"),
        (RecurrentPPOLSTM, (10, 7), {"batch_size": 0}, "batch_size=0"),
        (RecurrentPPOLSTM, (10, 7), {"hidden_size": 0}, "hidden_size=0"),
        (RecurrentPPOLSTM, (10, 7), {"K_epochs": 0}, "epochs=0"),
        (RecurrentPPOLSTM, (10, 7), {"lr": -1.0}, "learning_rate=-1"),
        (DualHeadRecurrentPPO, (10, 5), {}, "4 moves and 3 votes with codes of a move or a vote make 6, or 7"),
        (DualHeadRecurrentPPO, (10, 8), {}, "action_space=8"),
        (DualHeadRecurrentPPO, (10, 7), {"use_composite_actions": True}, "codes of move \\* vote make 12, or 13"),
        (DualHeadRecurrentPPO, (10, 7), {"n_vote_actions": 5}, "4 moves and 5 votes"),
    ],
)
def test_sizes_that_cannot_be_are_refused_in_a_sentence(kind, arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(*arguments, **options)


def test_an_input_size_that_is_no_whole_number_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="input_size"):
        RecurrentPPOLSTM(2.5, 7, hidden_size=8)


@pytest.mark.parametrize("arguments", [(np.prod((3, 5)), 7), (15, np.int64(7)), ((np.int64(3), 5), 7)])
def test_sizes_may_be_numpy_integers(arguments):
    """What np.prod and array shapes give."""
    RecurrentPPOLSTM(*arguments, hidden_size=8)


def test_factors_beside_two_heads_are_not_ignored():
    with pytest.raises(ValueError, match="action_dims"):
        DualHeadRecurrentPPO(10, 7, use_factored_actions=True, action_dims="5,3", hidden_size=8)


def test_factors_must_make_the_number_of_codes():
    """15 pairs have codes up to 14, of which a client that knows 7 actions can execute half."""
    with pytest.raises(ValueError, match="action_dims"):
        RecurrentPPOLSTM(10, 7, use_factored_actions=True, action_dims="5,3", hidden_size=8)


def test_an_agent_without_a_cnn_flattens():
    agent = RecurrentPPOLSTM((3, 5, 5), 7, use_cnn=False, hidden_size=8)
    assert agent.observation_space.shape == (75,)


@pytest.mark.parametrize("dims", ["5,x", "5,0", "", [5, -3]])
def test_factors_that_are_no_sizes_are_refused_in_a_sentence(dims):
    with pytest.raises(ValueError, match=r"action_dims=.*the size of each factor"):
        RecurrentPPOLSTM(10, 15, use_factored_actions=True, action_dims=dims, hidden_size=8)

"""The quantile network against its equation, and the epsilon-greedy head."""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents.client import action_code
from rl.networks import QuantileNetwork
from rl.networks.quantile_network import FORBIDDEN, EpsilonGreedyHead
from rl.spaces import leaf_spaces

BOX = spaces.Box(-1.0, 1.0, (3,))
every_core = pytest.mark.parametrize("core", cores.__all__)


@pytest.fixture
def make(randomise):
    """A network of random weights with 8 units."""

    def build(core="gru", observation_space=BOX, action_space=None, **options):
        core = partial(getattr(cores, core), hidden_size=8)
        action_space = spaces.Discrete(4) if action_space is None else action_space
        return randomise(QuantileNetwork(leaf_spaces(observation_space), action_space, core, 6, **options))

    return build


@pytest.mark.parametrize("dueling", [False, True])
def test_quantiles_are_those_of_the_equation(make, dueling):
    """f(psi * relu(W cos(pi i tau) + b)) for every row, tau and action by itself, in float64."""
    network = make(dueling=dueling, num_cosines=5).double()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, 2, 8, generator=generator, dtype=torch.float64)
    taus = torch.rand(3, 2, 7, generator=generator, dtype=torch.float64)
    got = network.quantiles(features, taus)
    assert got.shape == (3, 2, 7, 4)
    layers = network.embedding, network.hidden, network.output
    (W, b), (V, c), (U, d) = ((layer.weight, layer.bias) for layer in layers)
    for row in np.ndindex(3, 2, 7):
        cosines = torch.tensor([math.cos(math.pi * i * taus[row].item()) for i in range(5)], dtype=torch.float64)
        phi = (W @ cosines + b).clamp_min(0)
        outputs = U @ (V @ (features[row[:2]] * phi) + c).clamp_min(0) + d
        if dueling:
            outputs = outputs[4] + outputs[:4] - outputs[:4].mean()
        torch.testing.assert_close(got[row], outputs, rtol=1e-5, atol=1e-6)  # pi i is rounded to float32


@pytest.mark.parametrize("dueling", [False, True])
def test_the_value_of_an_action_is_the_mean_over_the_midpoints(make, dueling, assert_close):
    network = make(dueling=dueling, num_action_quantiles=5)
    features = torch.randn(3, 2, 8)
    taus = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).expand(3, 2, 5)
    assert_close(network.action_values(features, {}), network.quantiles(features, taus).mean(-2), 1e-6)


def test_tau_may_be_shared_by_all_steps(make, assert_close):
    network, features, taus = make(), torch.randn(5, 2, 8), torch.rand(2, 7)
    assert_close(network.quantiles(features, taus), network.quantiles(features, taus.expand(5, 2, 7)), 1e-6)


def test_quantiles_depend_on_tau(make):
    spread = make().quantiles(torch.randn(1, 8), torch.tensor([[0.1, 0.9]]))
    assert (spread[0, 0] - spread[0, 1]).abs().max() > 1e-3


@every_core
def test_steps_and_unrolling_agree(make, core, assert_close):
    network = make(core)
    obs, starts = {"obs": torch.randn(9, 4, 3)}, torch.rand(9, 4) < 0.3
    state = network.initial_state(4)
    features, after = network.unroll(obs, state, starts)
    values = network.action_values(features, obs)
    for t in range(9):
        step_values, best, state = network.step({"obs": obs["obs"][t]}, state, starts[t])
        assert_close(step_values, values[t], 1e-5)
        assert torch.equal(best, step_values.max(-1).values)
    for name, leaf in state.items():
        assert_close(leaf, after[name], 1e-5)


def test_fresh_networks_value_all_actions_almost_alike():
    network = QuantileNetwork(leaf_spaces(BOX), spaces.Discrete(4), partial(cores.gru, hidden_size=8))
    values, _, _ = network.step({"obs": torch.randn(50, 3)}, network.initial_state(50), None)
    assert values.abs().max() < 0.01


# -------------------------------------------------------------------------------------------------------------- actions


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4),
        spaces.Discrete(3, start=5),
        spaces.MultiDiscrete([4]),
        spaces.MultiDiscrete([2, 3, 4]),
        spaces.MultiDiscrete([3, 2], start=[1, 4]),
    ],
    ids=str,
)
def test_codes_are_those_that_clients_get(space):
    """The best of all combinations becomes branches, those become what the environment takes, and its code."""
    head = EpsilonGreedyHead(space)
    actions = head.mode(torch.eye(head.num_params))
    assert head.codes(actions).tolist() == list(range(head.num_params))
    executed = head.to_environment(actions.numpy())
    assert all(space.contains(action) for action in executed)
    assert len({tuple(np.atleast_1d(action).tolist()) for action in executed}) == head.num_params
    if isinstance(space, spaces.MultiDiscrete):
        assert [action_code(action, space) for action in executed] == list(range(head.num_params))
    assert head.codes(actions.view(-1, 1, len(head.sizes))).shape == (head.num_params, 1)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_random_actions_come_with_probability_epsilon(epsilon):
    """3 actions: the best one has 1 - epsilon + epsilon / 3, the others epsilon / 3; 4 standard errors of slack."""
    head, count = EpsilonGreedyHead(spaces.Discrete(3)), 20_000
    head.epsilon = epsilon
    params = torch.tensor([0.1, 0.5, -2.0]).expand(count, 3)
    shares = torch.bincount(head.sample(params, torch.Generator().manual_seed(0)).flatten(), minlength=3) / count
    expected = torch.tensor([epsilon / 3, 1.0 - 2 * epsilon / 3, epsilon / 3])
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / count).sqrt() + 1e-6).all()


def test_branches_are_explored_together():
    """Of MultiDiscrete([2, 3]) all 6 pairs come up equally often."""
    head, count = EpsilonGreedyHead(spaces.MultiDiscrete([2, 3])), 12_000
    head.epsilon = 1.0
    actions = head.sample(torch.zeros(count, 6), torch.Generator().manual_seed(0))
    shares = torch.bincount(head.codes(actions), minlength=6) / count
    torch.testing.assert_close(shares, torch.full((6,), 1 / 6), atol=0.015, rtol=0)


def test_a_mask_forbids_actions_in_every_way(make):
    """Branches of 2 and 3: what is left is (1, 0) and (1, 2), the codes 3 and 5."""
    space = spaces.Dict({"numbers": BOX, "action_mask": spaces.MultiBinary(5)})
    network = make("gru", space, spaces.MultiDiscrete([2, 3]))
    obs = {"numbers": torch.randn(200, 3), "action_mask": torch.tensor([0, 1, 1, 0, 1]).expand(200, 5)}
    params, best, _ = network.step(obs, network.initial_state(200), None)
    assert set(network.head.codes(network.head.mode(params)).tolist()) <= {3, 5}
    assert (best > -1e6).all()
    network.head.epsilon = 1.0
    actions = network.head.sample(params, torch.Generator().manual_seed(0))
    assert network.head.codes(actions).unique().tolist() == [3, 5]


def test_values_over_time_are_masked_as_those_of_a_step(make):
    """Every step has a mask of its own; branches of 2 and 2: the codes (0, 0), (0, 1), (1, 0), (1, 1)."""
    space = spaces.Dict({"numbers": BOX, "action_mask": spaces.MultiBinary(4)})
    network, plain = make("mlp", space, spaces.MultiDiscrete([2, 2])), make("mlp", BOX, spaces.MultiDiscrete([2, 2]))
    masks = torch.tensor([[[1, 1, 1, 1], [1, 0, 1, 1]], [[1, 1, 0, 1], [0, 1, 1, 0]], [[0, 0, 1, 1], [1, 1, 1, 0]]])
    features = torch.randn(3, 2, 8)
    values = network.action_values(features, {"action_mask": masks})
    assert (values == FORBIDDEN).int().tolist() == [
        [[0, 0, 0, 0], [0, 0, 1, 1]],
        [[1, 0, 1, 0], [1, 1, 0, 1]],
        [[1, 1, 1, 1], [0, 1, 0, 1]],
    ]
    free = values != FORBIDDEN
    assert torch.equal(values[free], plain.action_values(features, {})[free])


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-1, 1, (2,)), spaces.MultiBinary(3), spaces.MultiDiscrete([[2, 3], [3, 2]]), spaces.Text(3)],
    ids=str,
)
def test_other_action_spaces_are_refused_in_a_sentence(make, space):
    with pytest.raises(ValueError, match=r"(?s)action space .* is not supported.*Discrete"):
        make(action_space=space)


def test_too_many_combinations_are_refused(make):
    with pytest.raises(ValueError, match="has 10000000 combinations, more than 65536"):
        make(action_space=spaces.MultiDiscrete([10] * 7))


def test_a_mask_of_another_size_is_refused(make):
    space = spaces.Dict({"numbers": BOX, "action_mask": spaces.MultiBinary(6)})
    with pytest.raises(ValueError, match=r"action_mask has shape \(6,\), but there are 5 choices"):
        make("gru", space, spaces.MultiDiscrete([2, 3]))


@pytest.mark.parametrize("option", ["num_cosines", "num_action_quantiles"])
def test_sizes_below_one_are_refused(make, option):
    with pytest.raises(ValueError, match=f"{option}=0"):
        make(**{option: 0})


def test_a_mask_of_three_branches_allows_the_combinations_of_what_each_allows():
    sizes = (2, 3, 4)
    head = EpsilonGreedyHead(spaces.MultiDiscrete(sizes))
    masks = torch.rand(20, sum(sizes), generator=torch.Generator().manual_seed(0)) < 0.6
    parts = masks.split(sizes, dim=1)
    for action, choices in enumerate(product(*map(range, sizes))):
        expected = torch.stack([part[:, choice] for part, choice in zip(parts, choices, strict=True)]).all(0)
        assert torch.equal(head.allowed(masks)[:, action], expected)

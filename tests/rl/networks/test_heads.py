import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import distributions

from rl.networks import make_head
from rl.networks.heads import NOT_EXECUTED

TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-5)]
precisions = pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float64", "float32"])
CONTINUOUS = spaces.Box(np.float32([-1, 0, -np.inf]), np.float32([1, 4, np.inf]))
SPACES = [
    spaces.Discrete(5),
    spaces.Discrete(3, start=10),
    spaces.MultiDiscrete([2, 3, 4]),
    spaces.MultiDiscrete([2, 3], start=[1, -2]),
    CONTINUOUS,
    spaces.Box(-1.0, 1.0, (2, 3)),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 2]),
]


@pytest.fixture
def draw_params():
    def draw(head, *leading, dtype=torch.float32, device="cpu"):
        generator = torch.Generator().manual_seed(0)
        return 2.0 * torch.randn(*leading, head.num_params, generator=generator, dtype=dtype).to(device)

    return draw


@pytest.fixture
def make_gaussian(randomise):
    """A Gaussian head whose standard deviations are not all 1."""

    def make(space=CONTINUOUS, dtype=torch.float32, device="cpu"):
        return randomise(make_head(space)).to(device=device, dtype=dtype)

    return make


# ------------------------------------------------------------------------------ against torch.distributions, in value


@precisions
@pytest.mark.parametrize("sizes", [[5], [2, 3, 4], [1, 6]])
def test_categorical_log_probs_and_entropies(sizes, dtype, tolerance, device, draw_params, assert_close):
    head = make_head(spaces.MultiDiscrete(sizes))
    params = draw_params(head, 6, 7, dtype=dtype, device=device)
    actions = torch.stack([torch.arange(42, device=device).view(6, 7) % n for n in sizes], dim=-1)
    expected = [distributions.Categorical(logits=logits) for logits in params.split(sizes, dim=-1)]
    log_probs = torch.stack([e.log_prob(a) for e, a in zip(expected, actions.unbind(-1), strict=True)], dim=-1)
    log_p, entropies = head.evaluate(params, actions)
    assert_close(log_p, log_probs, tolerance)
    assert_close(entropies, torch.stack([e.entropy() for e in expected], dim=-1), tolerance)


@precisions
@pytest.mark.parametrize("sizes", [[5], [2, 3, 4]])
def test_categorical_gradients_are_those_of_torch(sizes, dtype, tolerance, device, draw_params, assert_close):
    head = make_head(spaces.MultiDiscrete(sizes))
    params = draw_params(head, 6, 7, dtype=dtype, device=device).requires_grad_()
    actions = torch.stack([torch.arange(42, device=device).view(6, 7) % n for n in sizes], dim=-1)
    weights = torch.randn(2, 6, 7, len(sizes), dtype=dtype, generator=torch.Generator().manual_seed(3)).to(device)
    expected = [distributions.Categorical(logits=logits) for logits in params.split(sizes, dim=-1)]
    log_probs = torch.stack([e.log_prob(a) for e, a in zip(expected, actions.unbind(-1), strict=True)], dim=-1)
    entropies = torch.stack([e.entropy() for e in expected], dim=-1)
    (wanted,) = torch.autograd.grad((weights * torch.stack([log_probs, entropies])).sum(), params)
    (gradient,) = torch.autograd.grad((weights * torch.stack(head.evaluate(params, actions))).sum(), params)
    assert_close(gradient, wanted, tolerance)


@precisions
def test_normal_log_probs_and_entropies(dtype, tolerance, device, draw_params, make_gaussian, assert_close):
    head = make_gaussian(dtype=dtype, device=device)
    params = draw_params(head, 6, 7, dtype=dtype, device=device)
    actions = params.flip(0) * 1.5
    expected = distributions.Independent(distributions.Normal(params, head.log_std.exp()), 1)
    log_probs, entropies = head.evaluate(params, actions)
    assert_close(log_probs, expected.log_prob(actions).unsqueeze(-1), tolerance)
    assert_close(entropies, expected.entropy().unsqueeze(-1), tolerance)


@precisions
def test_normal_gradients_are_those_of_torch(dtype, tolerance, device, draw_params, make_gaussian, assert_close):
    """By the means and by the standard deviations, which are learned, too."""
    head = make_gaussian(dtype=dtype, device=device)
    params = draw_params(head, 6, 7, dtype=dtype, device=device).requires_grad_()
    actions = params.detach().flip(0) * 1.5
    expected = distributions.Independent(distributions.Normal(params, head.log_std.exp()), 1)
    inputs = params, head.log_std
    wanted = torch.autograd.grad((2.0 * expected.log_prob(actions) + 3.0 * expected.entropy()).sum(), inputs)
    log_probs, entropies = head.evaluate(params, actions)
    gradients = torch.autograd.grad((2.0 * log_probs + 3.0 * entropies).sum(), inputs)
    for found, other in zip(gradients, wanted, strict=True):
        assert_close(found, other, tolerance)


@precisions
def test_bernoulli_log_probs_and_entropies(dtype, tolerance, device, draw_params, assert_close):
    head = make_head(spaces.MultiBinary(4))
    params = draw_params(head, 6, 7, dtype=dtype, device=device)
    actions = (params.flip(0) > 0).long()
    expected = distributions.Independent(distributions.Bernoulli(logits=params), 1)
    log_probs, entropies = head.evaluate(params, actions)
    assert_close(log_probs, expected.log_prob(actions.to(dtype)).unsqueeze(-1), tolerance)
    assert_close(entropies, expected.entropy().unsqueeze(-1), tolerance)


def test_extreme_logits_stay_finite():
    for space in (spaces.Discrete(2), spaces.MultiBinary(2)):
        head = make_head(space)
        params = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
        actions = torch.tensor([[1, 0]])[:, : head.action_shape[0]]  # the unlikely ones
        log_probs, entropies = head.evaluate(params, actions)
        (gradient,) = torch.autograd.grad((log_probs + entropies).sum(), params)
        assert torch.isfinite(log_probs).all()
        assert torch.isfinite(gradient).all()
        assert entropies.abs().max() < 1e-6


@precisions
@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 3, 4]), CONTINUOUS, spaces.MultiBinary(4)], ids=str)
def test_kl_divergence(space, dtype, tolerance, device, draw_params, randomise, assert_close):
    head, other = (randomise(make_head(space), seed).to(device=device, dtype=dtype) for seed in (0, 1))
    params = draw_params(head, 6, 7, dtype=dtype, device=device)
    others = params.roll(1, 0) * 0.5
    actions = torch.zeros(6, 7, *head.action_shape, dtype=head.action_dtype, device=device)
    if isinstance(space, spaces.MultiDiscrete):
        sides = [
            [distributions.Categorical(logits=logits) for logits in each.split([2, 3, 4], -1)]
            for each in (params, others)
        ]
    elif isinstance(space, spaces.Box):
        own, theirs = (each.log_std.exp() for each in (head, other))
        sides = [[distributions.Normal(params, own)], [distributions.Normal(others, theirs)]]
    else:
        sides = [[distributions.Bernoulli(logits=each)] for each in (params, others)]
    parts = [distributions.kl_divergence(own, theirs) for own, theirs in zip(*sides, strict=True)]
    expected = [part if part.dim() == 2 else part.sum(-1) for part in parts]
    assert_close(head.kl(params, actions, other, others), torch.stack(expected, dim=-1), tolerance)


def test_kl_divergence_stays_finite_where_the_other_is_certain():
    """Certain of something else, and with actions that a mask forbids."""
    head = make_head(spaces.Discrete(3))
    params = torch.tensor([[200.0, 0.0, -1e9], [0.0, 1.0, -1e9]], requires_grad=True)
    others = torch.tensor([[0.0, 200.0, -1e9], [0.0, 1.0, -1e9]])
    kl = head.kl(params, torch.zeros(2, 1, dtype=torch.int64), head, others)
    kl.sum().backward()
    assert kl.squeeze(-1).tolist() == pytest.approx([200.0, 0.0])
    assert torch.isfinite(params.grad).all()


def test_kl_divergence_leaves_out_what_was_not_executed(draw_params):
    head = make_head(spaces.MultiDiscrete([2, 3]))
    params = draw_params(head, 2)
    kl = head.kl(params, torch.tensor([[NOT_EXECUTED, 1], [1, NOT_EXECUTED]]), head, -params)
    assert kl[0, 0] == kl[1, 1] == 0.0
    assert kl[0, 1] > 0.01 and kl[1, 0] > 0.01


def test_kl_divergence_from_a_head_of_another_kind_is_refused(draw_params):
    head, other = make_head(spaces.Box(-1.0, 1.0, (2,))), make_head(spaces.Discrete(2))
    params = draw_params(head, 3)
    with pytest.raises(TypeError, match="GaussianHead"):
        head.kl(params, params, other, params)


# ---------------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("sizes", [[4], [2, 3]])
def test_categorical_samples_have_the_right_frequencies(sizes, device):
    head, draws = make_head(spaces.MultiDiscrete(sizes)), 20_000
    params = torch.linspace(-1.0, 1.5, sum(sizes), device=device)
    samples = head.sample(params.expand(draws, -1), torch.Generator(device).manual_seed(0))
    assert samples.shape == (draws, len(sizes))
    assert samples.dtype == torch.int64
    for column, logits in zip(samples.t(), params.split(sizes), strict=True):
        expected = logits.softmax(-1) * draws
        counts = column.bincount(minlength=len(logits))
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        # of 1 to 3 degrees of freedom: exceeded once in 60000 draws (3) or in two million (1)
        assert chi_square < 25.0


def test_branches_are_sampled_independently():
    head = make_head(spaces.MultiDiscrete([2, 2]))
    samples = head.sample(torch.zeros(20_000, 4), torch.Generator().manual_seed(0))
    both = (samples.sum(-1) == 2).float().mean().item()
    assert abs(both - 0.25) < 4 * 0.0031  # sqrt(0.25 * 0.75 / 20000) = 0.0031


def test_normal_samples_have_the_right_moments(make_gaussian, device):
    head = make_gaussian(device=device)
    mean = torch.tensor([0.5, -2.0, 3.0], device=device)
    samples = head.sample(mean.expand(40_000, -1), torch.Generator(device).manual_seed(0))
    std = head.log_std.exp()
    assert ((samples.mean(0) - mean).abs() < 5 * std / 200).all()  # the standard error is std / sqrt(40000)
    assert ((samples.std(0) / std - 1).abs() < 5 / math.sqrt(80_000)).all()


def test_bernoulli_samples_have_the_right_frequencies(device):
    head = make_head(spaces.MultiBinary(3))
    params = torch.tensor([-2.0, 0.0, 1.0], device=device)
    samples = head.sample(params.expand(20_000, -1), torch.Generator(device).manual_seed(0))
    p = params.sigmoid()
    assert ((samples.float().mean(0) - p).abs() < 4 * (p * (1 - p) / 20_000).sqrt()).all()
    assert samples.dtype == torch.int64


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_samples_come_from_the_generator_alone(space, draw_params):
    head = make_head(space)
    params = draw_params(head, 50)
    first = head.sample(params, torch.Generator().manual_seed(3))
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert torch.equal(head.sample(params, torch.Generator().manual_seed(3)), first)
    assert not torch.equal(head.sample(params, torch.Generator().manual_seed(4)), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_samples_and_modes_fit_the_space(space, draw_params):
    head = make_head(space)
    params = draw_params(head, 50)
    for actions in (head.sample(params, torch.Generator().manual_seed(0)), head.mode(params)):
        assert actions.shape == (50, *head.action_shape)
        assert actions.dtype == head.action_dtype
        assert all(
            space.contains(action) for action in _in_dtype_of(space, head.to_environment(actions.detach().numpy()))
        )
        log_probs, entropies = head.evaluate(params, actions)
        assert log_probs.shape == entropies.shape == (50, len(head.branches))


def _in_dtype_of(space, actions):
    return actions.astype(space.dtype)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_mode_is_the_likeliest_action(space, draw_params):
    head = make_head(space)
    params = draw_params(head, 20)
    best = head.evaluate(params, head.mode(params))[0].sum(-1)
    for seed in range(20):
        sample = head.sample(params, torch.Generator().manual_seed(seed))
        assert (head.evaluate(params, sample)[0].sum(-1) <= best + 1e-6).all()


# ---------------------------------------------------------------------------------------------- actions not executed


def test_an_action_that_was_not_executed_counts_for_nothing(draw_params, assert_close):
    head = make_head(spaces.MultiDiscrete([2, 3]))
    params = draw_params(head, 4).requires_grad_()
    actions = torch.tensor([[1, NOT_EXECUTED], [0, 2], [NOT_EXECUTED, 1], [NOT_EXECUTED, NOT_EXECUTED]])
    log_probs, _ = head.evaluate(params, actions)
    executed = actions != NOT_EXECUTED
    assert torch.equal(log_probs != 0.0, executed)
    whole, _ = head.evaluate(params, actions.clamp_min(0))
    assert_close(log_probs[executed], whole[executed], 1e-7)
    (gradient,) = torch.autograd.grad(log_probs.sum(), params)
    move, vote = gradient.split([2, 3], dim=-1)
    assert torch.equal(move.abs().sum(-1) > 0, executed[:, 0])
    assert torch.equal(vote.abs().sum(-1) > 0, executed[:, 1])


@pytest.mark.parametrize("sizes", [[3], [2, 3]])
def test_hiding_an_action_changes_neither_the_entropy_nor_its_gradient(sizes, draw_params):
    """The state was seen and the policy had a choice in it, whatever became of it."""
    head = make_head(spaces.MultiDiscrete(sizes))
    params = draw_params(head, 4).requires_grad_()
    actions = torch.zeros(4, len(sizes), dtype=torch.int64)
    _, entropies = head.evaluate(params, actions)
    log_probs, hidden = head.evaluate(params, torch.full_like(actions, NOT_EXECUTED))
    assert torch.equal(hidden, entropies)
    assert torch.equal(log_probs, torch.zeros(4, len(sizes)))
    (expected,) = torch.autograd.grad(entropies.sum(), params)
    (found,) = torch.autograd.grad((log_probs + hidden).sum(), params)
    assert torch.equal(found, expected)


# -------------------------------------------------------------------------------------------------- to the environment


def test_discrete_actions_start_where_the_space_does():
    assert make_head(spaces.Discrete(3, start=10)).to_environment(np.array([[0], [2]])).tolist() == [10, 12]
    head = make_head(spaces.MultiDiscrete([2, 3], start=[1, -2]))
    assert head.to_environment(np.array([[0, 0], [1, 2]])).tolist() == [[1, -2], [2, 0]]


def test_gaussian_actions_are_scaled_to_the_bounds():
    head = make_head(CONTINUOUS)  # bounds -1 ... 1, 0 ... 4, none
    actions = np.float32([[0, 0, 0], [-1, -1, -1], [1, 1, 1], [0.5, 0.5, 0.5], [-9, 9, -9]])
    # the second dimension is 2 + 2 a, the third is left alone; the last row is clipped where there are bounds
    expected = [[0, 2, 0], [-1, 0, -1], [1, 4, 1], [0.5, 3, 0.5], [-1, 4, -9]]
    assert head.to_environment(actions).tolist() == expected
    assert head.to_environment(actions).dtype == np.float32


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_actions_of_the_environment_are_turned_back(space, draw_params):
    """Inside the bounds; from a recording they come in the shapes of the space."""
    head = make_head(space)
    actions = head.sample(draw_params(head, 30), torch.Generator().manual_seed(0))
    if isinstance(space, spaces.Box):
        actions = actions.tanh()
    given = head.to_environment(actions.detach().numpy())
    back = head.from_environment(given)
    assert back.shape == (30, *head.action_shape)
    assert back.dtype == {torch.int64: np.int64, torch.float32: np.float32}[head.action_dtype]
    np.testing.assert_allclose(back, actions.detach().numpy(), rtol=0, atol=1e-6)


def test_gaussian_actions_obey_a_bound_on_one_side():
    head = make_head(spaces.Box(np.float32([0, -np.inf]), np.float32([np.inf, 5])))
    assert head.to_environment(np.float32([[-3, -3], [7, 7]])).tolist() == [[0, -3], [7, 5]]


@pytest.mark.parametrize("bounds", [(-0.1, 0.3), (-1e30, 1e30), (5.0, 5.0)])
def test_gaussian_actions_stay_within_bounds_that_floats_cannot_hold(bounds):
    space = spaces.Box(*bounds, (1,))
    actions = make_head(space).to_environment(np.linspace(-3, 3, 101, dtype=np.float32)[:, None])
    assert all(space.contains(action) for action in actions)


def test_shapes_for_the_environment():
    assert make_head(spaces.Box(-1.0, 1.0, (2, 3))).to_environment(np.zeros((5, 6), np.float32)).shape == (5, 2, 3)
    bits = make_head(spaces.MultiBinary([2, 2])).to_environment(np.array([[0, 1, 1, 0]]))
    assert bits.tolist() == [[[0, 1], [1, 0]]]
    assert bits.dtype == np.int8


# ----------------------------------------------------------------------------------------------- fed back as an input


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_previous_actions_fit_their_space_and_none_is_zero(space, draw_params):
    head = make_head(space)
    actions = head.sample(draw_params(head, 30), torch.Generator().manual_seed(0))
    fed = head.as_previous(actions)
    assert all(head.previous_space.contains(_in_dtype_of(head.previous_space, row)) for row in fed.detach().numpy())
    if head.action_dtype == torch.int64:  # 0 is kept for "there was none"
        assert fed.min() == 1
    else:
        assert torch.equal(fed, actions)
    assert head.previous_space.contains(np.zeros(head.previous_space.shape, head.previous_space.dtype))


# ------------------------------------------------------------------------------------------------------ which spaces


def test_branches_are_named():
    assert make_head(spaces.Discrete(3)).branches == ("action",)
    assert make_head(spaces.MultiDiscrete([2, 3])).branches == ("action_0", "action_1")
    assert make_head(spaces.MultiDiscrete([2, 3]), ["move", "vote"]).branches == ("move", "vote")
    assert make_head(CONTINUOUS, ["torque"]).branches == ("torque",)


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3, 4]), CONTINUOUS], ids=str)
def test_a_wrong_number_of_names_is_refused(space):
    with pytest.raises(ValueError, match=r"move.*vote"):
        make_head(space, ["move", "vote"])


@pytest.mark.parametrize(
    "space",
    [
        spaces.Dict({"a": spaces.Discrete(2)}),
        spaces.MultiDiscrete([[2, 3]]),
        spaces.Box(0, 5, (2,), np.int64),
        spaces.Text(3),
        spaces.Box(-1.0, 1.0, (0,)),
    ],
    ids=["dict", "matrix", "integer box", "text", "empty"],
)
def test_an_unsupported_space_is_refused(space):
    with pytest.raises(ValueError, match="not supported"):
        make_head(space)

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from rl.flat_adam import flat_adam, guarded_step, is_usable, link, load_optimizer, undone_on_failure

ALLOWED, FORBIDDEN = torch.tensor(True), torch.tensor(False)


@pytest.fixture
def make_network(device, randomise):
    def make(seed=0):
        layers = nn.Linear(5, 7), nn.Tanh(), nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(18, 1)
        return randomise(nn.Sequential(*layers), seed).to(device)

    return make


@pytest.fixture
def take_steps(device):
    """Steps of a network down losses that differ from step to step; norms and whether all was finite."""

    def take(network, optimizer, seeds, max_norm=1e9, factor=1.0, allowed=ALLOWED):
        parameters = list(network.parameters())
        found = []
        for seed in seeds:
            loss = factor * loss_of(network, seed)
            found.append(guarded_step(optimizer, loss, parameters, max_norm, allowed.to(device)))
        return found

    return take


def loss_of(network, seed):
    x = torch.randn(11, 1, 5, generator=torch.Generator().manual_seed(seed)).to(next(network.parameters()).device)
    return (10.0 * network(x) ** 2).mean()


def snapshot(network, optimizer):
    """Weights, moments and step count."""
    leaves = [*network.parameters(), *(leaf for state in optimizer.state.values() for leaf in state.values())]
    return [leaf.detach().clone() for leaf in leaves]


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------------------------------ one step


@pytest.mark.parametrize("max_norm", [1e-2, 1e9])
def test_steps_are_those_of_adam_over_separate_parameters(max_norm, make_network, take_steps):
    network, twin = make_network(), make_network()
    optimizer, plain = flat_adam(network, 1e-2), torch.optim.Adam(twin.parameters(), lr=1e-2, eps=1e-5)
    for seed in range(5):
        ((norm, finite),) = take_steps(network, optimizer, [seed], max_norm)
        plain.zero_grad()
        loss_of(twin, seed).backward()
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(twin.parameters(), max_norm))
        assert finite.item() is True
        plain.step()
        for one, other in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_gradient_shorter_than_the_limit_is_left_alone(make_network, take_steps):
    network, twin, third = make_network(), make_network(), make_network()
    ((norm, _),) = take_steps(network, flat_adam(network, 1e-2), [0])
    take_steps(twin, flat_adam(twin, 1e-2), [0], max_norm=2.0 * norm.item())
    assert same(list(network.parameters()), list(twin.parameters()))
    optimizer = flat_adam(third, 1e-2)
    take_steps(third, optimizer, [0], max_norm=0.5 * norm.item())
    (state,) = optimizer.state.values()  # the first moment is a tenth of the gradient that the step was taken with
    assert state["exp_avg"].norm().item() == pytest.approx(0.05 * norm.item(), rel=1e-4)


def test_the_limit_is_of_the_whole_gradient(make_network, take_steps):
    """Not of each parameter: the gradient keeps its direction."""
    network, twin = make_network(), make_network()
    optimizer, other = flat_adam(network, 1e-2), flat_adam(twin, 1e-2)
    take_steps(network, optimizer, [0])
    take_steps(twin, other, [0], max_norm=1e-3)
    long, short = (next(iter(o.state.values()))["exp_avg"] for o in (optimizer, other))
    assert torch.cosine_similarity(long, short, dim=0).item() == pytest.approx(1.0, abs=1e-5)


def test_the_learning_rate_may_change_between_steps(make_network, take_steps):
    network = make_network()
    optimizer = flat_adam(network, 1e-2)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer.param_groups[0]["lr"] = 0.0
    take_steps(network, optimizer, [0])
    assert same(before, list(network.parameters()))


def test_a_sudden_gradient_is_cut_to_twice_what_is_usual():
    """Norms 5 and 5: usual are 5 and no limit is met. A third of 500 is cut to 2 * 5 + 0.001."""
    layer = nn.Linear(2, 1, bias=False)
    optimizer, (weights,) = flat_adam(layer, 1e-3), list(layer.parameters())
    for factor, scale in ((1.0, 1.0), (1.0, 1.0), (100.0, 500 / 10.001), (1.0, 1.0)):
        loss = factor * (weights * torch.tensor([[3.0, 4.0]])).sum()
        norm, _ = guarded_step(optimizer, loss, [weights], 1e9, ALLOWED)
        assert norm.item() == pytest.approx(5.0 * factor)
        assert optimizer.grad_scale.item() == pytest.approx(scale, rel=1e-4)
    # 5 ** 2, weighted 0.999 ** 3, 0.999 ** 2 and 1, and 10.001 ** 2, weighted 0.999, beside the sum of the weights
    usual = ((25 * (0.999**3 + 0.999**2 + 1) + 10.001**2 * 0.999) / (0.999**3 + 0.999**2 + 0.999 + 1)) ** 0.5
    guarded_step(optimizer, 1e4 * weights.sum(), [weights], 1e9, ALLOWED)
    assert optimizer.grad_scale.item() == pytest.approx(2**0.5 * 1e4 / (2 * usual + 1e-3), rel=1e-4)


def test_a_tiny_gradient_is_never_cut_nor_is_the_first_one(make_network):
    network = make_network()
    optimizer, parameters = flat_adam(network, 1e-3), list(network.parameters())
    for factor in (1.0, 1.0):  # the first is refused and leaves no moments
        loss = factor * loss_of(network, 0)
        allowed = FORBIDDEN if not optimizer.state else ALLOWED
        guarded_step(optimizer, loss, parameters, 1e9, allowed)
        assert optimizer.grad_scale.item() == 1.0
    silent = flat_adam(make_network(), 1e-3)
    (vector,) = silent.param_groups[0]["params"]
    # after silence 0.001 is not cut; behind it, the root of half of its square is usual
    for factor, scale in ((0.0, 1.0), (1e-3, 1.0), (1e-2, 1e-2 / (2e-3 * 0.5**0.5 + 1e-3))):
        guarded_step(silent, factor * vector[0], [vector], 1e9, ALLOWED)
        assert silent.grad_scale.item() == pytest.approx(scale, rel=1e-3)


def test_a_parameter_that_the_loss_does_not_reach_stays_as_it_is(make_network):
    network = make_network()
    optimizer, before = flat_adam(network, 1e-2), [parameter.detach().clone() for parameter in network.parameters()]
    guarded_step(optimizer, network[0].weight.square().sum(), list(network.parameters()), 1.0, ALLOWED)
    moved = [not torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True)]
    assert moved == [True] + [False] * 5


# ------------------------------------------------------------------------------------------------ steps not to be taken


def test_a_step_that_is_not_allowed_changes_nothing(make_network, take_steps):
    network = make_network()
    optimizer = flat_adam(network, 1e-2)
    take_steps(network, optimizer, [0])
    before = snapshot(network, optimizer)
    ((norm, finite),) = take_steps(network, optimizer, [1], allowed=FORBIDDEN)
    assert same(snapshot(network, optimizer), before)
    assert norm > 0.0 and finite  # both are told all the same
    take_steps(network, optimizer, [1])
    assert not same(snapshot(network, optimizer), before)


@pytest.mark.parametrize("allowed", [ALLOWED, FORBIDDEN])
@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(factor, allowed, make_network, take_steps):
    network = make_network()
    optimizer = flat_adam(network, 1e-2)
    take_steps(network, optimizer, [0])
    before = snapshot(network, optimizer)
    ((_, finite),) = take_steps(network, optimizer, [1], factor=factor, allowed=allowed)
    assert finite.item() is False
    assert same(snapshot(network, optimizer), before)


def test_a_loss_that_is_not_finite_is_seen_though_its_gradient_is(make_network):
    network = make_network()
    optimizer, before = flat_adam(network, 1e-2), [parameter.detach().clone() for parameter in network.parameters()]
    loss = loss_of(network, 0) + math.inf
    norm, finite = guarded_step(optimizer, loss, list(network.parameters()), 1.0, ALLOWED)
    assert torch.isfinite(norm) and not finite
    assert same(list(network.parameters()), before)


def test_a_gradient_that_is_not_finite_is_seen_though_its_loss_is(make_network):
    network = make_network()
    optimizer, before = flat_adam(network, 1e-2), [parameter.detach().clone() for parameter in network.parameters()]
    loss = loss_of(network, 0) + (network[0].weight * 0.0).abs().sqrt().sum()  # the slope of a root at 0
    norm, finite = guarded_step(optimizer, loss, list(network.parameters()), 1.0, ALLOWED)
    assert torch.isfinite(loss) and not torch.isfinite(norm) and not finite
    assert same(list(network.parameters()), before)


# ----------------------------------------------------------------------------------------------- steps to be taken back


@pytest.mark.parametrize("steps_before", [0, 3])
def test_after_a_failure_all_is_as_it_was(steps_before, make_network, take_steps):
    """Weights, moments, step count and what else is given, bit by bit; the next step is that of an untouched twin."""
    network, twin = make_network(), make_network()
    optimizer, plain = flat_adam(network, 1e-2), flat_adam(twin, 1e-2)
    for one, its_optimizer in ((network, optimizer), (twin, plain)):
        take_steps(one, its_optimizer, range(steps_before))
    other = torch.tensor([1.0, 2.0])
    before = snapshot(network, optimizer)
    with pytest.raises(FloatingPointError, match="too late"), undone_on_failure(network, optimizer, [other]):
        take_steps(network, optimizer, [7, 8])
        other += 1.0
        assert not same(snapshot(network, optimizer), before)
        raise FloatingPointError("too late")
    assert same(snapshot(network, optimizer), before)
    assert other.tolist() == [1.0, 2.0]
    for one, its_optimizer in ((network, optimizer), (twin, plain)):
        take_steps(one, its_optimizer, [9])
    assert same(snapshot(network, optimizer), snapshot(twin, plain))


def test_without_a_failure_all_stays_as_it_became(make_network, take_steps):
    network, twin = make_network(), make_network()
    optimizer, plain = flat_adam(network, 1e-2), flat_adam(twin, 1e-2)
    other = torch.zeros(2)
    with undone_on_failure(network, optimizer, [other]):
        take_steps(network, optimizer, [0, 1])
        other += 1.0
    take_steps(twin, plain, [0, 1])
    assert same(snapshot(network, optimizer), snapshot(twin, plain))
    assert other.tolist() == [1.0, 1.0]


def test_any_other_error_undoes_an_update_too(make_network, take_steps):
    """Code of the user's own may fail in the midst of one."""
    network = make_network()
    optimizer, before = flat_adam(network, 1e-2), [parameter.detach().clone() for parameter in network.parameters()]
    with pytest.raises(RuntimeError), undone_on_failure(network, optimizer):
        take_steps(network, optimizer, [0])
        raise RuntimeError
    assert same(list(network.parameters()), before)


# -------------------------------------------------------------------------------------------- what a good loss can ruin


def test_weights_that_a_finite_loss_has_ruined_are_seen(make_network, take_steps):
    """A step of 1e38 from a finite gradient: what the network makes of such weights is not finite."""
    network = make_network()
    optimizer = flat_adam(network, 1e-2)
    assert is_usable(optimizer)
    ((_, finite),) = take_steps(network, optimizer, [0])
    assert finite and is_usable(optimizer)
    optimizer.param_groups[0]["lr"] = 1e38
    ((_, finite),) = take_steps(network, optimizer, [1])
    assert finite and not is_usable(optimizer)


def test_a_second_moment_that_has_overflowed_is_seen(make_network, take_steps):
    """All further steps would be 0."""
    network = make_network()
    optimizer = flat_adam(network, 1e-2)
    take_steps(network, optimizer, [0])
    next(iter(optimizer.state.values()))["exp_avg_sq"][3] = math.inf
    assert not is_usable(optimizer)


def test_moments_are_loaded_without_the_rest_of_the_settings(make_network, take_steps):
    network, twin = make_network(), make_network()
    optimizer, other = flat_adam(network, 1e-2), flat_adam(twin, 1e-3)
    take_steps(network, optimizer, [0, 1])
    stored = optimizer.state_dict()
    stored["param_groups"][0]["maximize"] = True
    load_optimizer(other, stored)
    assert same(snapshot(network, optimizer)[6:], snapshot(twin, other)[6:])
    group = other.param_groups[0]
    assert (group["lr"], group["maximize"], group["fused"]) == (1e-2, False, True)
    assert next(iter(other.state.values()))["exp_avg"] is not stored["state"][0]["exp_avg"]


# -------------------------------------------------------------------------------------------------- network and vector


def test_stored_weights_are_stepped_from(make_network, take_steps):
    """What is loaded into the network after the optimiser was made is what the next step starts from."""
    network, twin = make_network(), make_network(seed=1)
    optimizer = flat_adam(network, 1e-2)
    network.load_state_dict({name: leaf.clone() for name, leaf in twin.state_dict().items()})
    take_steps(network, optimizer, [0])
    take_steps(twin, flat_adam(twin, 1e-2), [0])
    assert same(list(network.parameters()), list(twin.parameters()))


def test_the_network_computes_as_before(make_network):
    network, twin = make_network(), make_network()
    flat_adam(network, 1e-2)
    assert loss_of(network, 0).item() == loss_of(twin, 0).item()
    assert [parameter.shape for parameter in network.parameters()] == [p.shape for p in twin.parameters()]


@pytest.mark.parametrize("take_out", ["copy", "dtype", "assign", "one layer"])
def test_weights_that_were_taken_out_of_the_vector_are_put_back(make_network, take_steps, take_out):
    """Steps would be taken with a vector that no network reads."""
    network, straight = make_network(), make_network()
    optimizer, other = flat_adam(network, 1e-2), flat_adam(straight, 1e-2)
    for one, its in ((network, optimizer), (straight, other)):
        take_steps(one, its, [1, 2])
    if take_out == "copy":
        network, optimizer = deepcopy((network, optimizer))
    elif take_out == "dtype":
        network.double().float()
    elif take_out == "assign":
        network.load_state_dict({name: leaf.clone() for name, leaf in network.state_dict().items()}, assign=True)
    else:
        network[2] = deepcopy(network[2])
    link(network, optimizer)
    for one, its in ((network, optimizer), (straight, other)):
        take_steps(one, its, [3, 4])
    assert same(snapshot(network, optimizer), snapshot(straight, other))


def test_linked_weights_are_left_alone(make_network):
    network = make_network()
    optimizer = flat_adam(network, 1e-2)
    places = [leaf.data_ptr() for leaf in network.parameters()]
    link(network, optimizer)
    assert [leaf.data_ptr() for leaf in network.parameters()] == places


@pytest.mark.parametrize(
    "change", [lambda net: net.append(nn.Linear(1, 1)), lambda net: net[:-1], lambda net: net.double()]
)
def test_other_weights_than_the_optimiser_was_made_for_are_refused(make_network, device, change):
    network = make_network()
    optimizer = flat_adam(network, 1e-2)
    with pytest.raises(ValueError, match="the weights of the network are others than its optimiser was made for"):
        link(change(network).to(device), optimizer)

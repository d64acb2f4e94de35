import pytest
import torch

from rl.flat_adam import average_gradient, flat_adam, guarded_step
from rl.networks.scales import Scale
from rl.normalisation import AdvantageScale, ReturnScale, RunningMoments
from rl.shards import ALONE, average, average_metrics


class Told:
    """The first of several shards, which is told beforehand what the others are going to say, call by call."""

    index = 0

    def __init__(self, *calls):
        self.calls = list(calls)
        self.size = 1 + len(self.calls[0])

    def sum(self, vector):
        return vector + sum(self.calls.pop(0))

    def gather(self, value):
        return [value, *self.calls.pop(0)]


def test_alone_nothing_is_changed():
    vector, number = torch.tensor([1.0, 2.0]), torch.tensor(3.0)
    assert ALONE.sum(vector) is vector
    assert ALONE.gather("a") == ["a"]
    assert average(ALONE, number) == (number,)
    metrics = {"loss": 1.0}
    assert average_metrics(ALONE, metrics) is metrics


def test_averages_of_numbers():
    shards = Told([torch.tensor([5.0, 9.0])])
    one, other = average(shards, torch.tensor(1.0), torch.tensor(2.0))
    assert (one.item(), other.item()) == (3.0, 5.5)


def test_averages_of_metrics():
    others = [{"loss": 4.0, "ratio_error": 0.5}, {"loss": 7.0, "only": 3.0, "ratio_error": 0.1}]
    assert average_metrics(Told(others), {"loss": 1.0, "ratio_error": 0.2}) == {
        "loss": 4.0,
        "ratio_error": 0.5,  # of an error the largest
        "only": 3.0,  # of those that have it
    }


def test_a_step_goes_down_the_mean_gradient():
    """Loss 3 w here and 5 w in the other shard: Adam sees a gradient of 4, and reports it."""
    network = torch.nn.Linear(1, 1, bias=False)
    optimizer = flat_adam(network, 0.1)
    optimizer.shards = Told([torch.tensor([5.0, 11.0])])
    before = network.weight.item()
    allowed = torch.tensor(True)
    norm, finite = guarded_step(optimizer, 3.0 * network.weight.sum(), [network.weight], 1e9, allowed)
    assert norm.item() == pytest.approx(4.0)
    assert bool(finite)
    assert network.weight.item() == pytest.approx(before - 0.1, abs=1e-4)
    moment = optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg"]
    assert moment.item() == pytest.approx(0.4)  # 0.1 of 4


@pytest.mark.parametrize("ruined", [0, 1])
def test_a_step_is_refused_in_all_shards_if_one_has_a_number_that_is_not_finite(ruined):
    network = torch.nn.Linear(1, 1, bias=False)
    optimizer = flat_adam(network, 0.1)
    told = torch.tensor([5.0, 11.0])
    told[ruined] = float("nan")
    optimizer.shards = Told([told])
    before = network.weight.item()
    _, finite = guarded_step(optimizer, 3.0 * network.weight.sum(), [network.weight], 1e9, torch.tensor(True))
    assert not bool(finite)
    assert network.weight.item() == before


def test_other_numbers_are_averaged_in_the_same_transfer():
    network = torch.nn.Linear(1, 1, bias=False)
    optimizer = flat_adam(network, 0.1)
    optimizer.shards = Told([torch.tensor([5.0, 11.0, 0.5])])
    weight = network.weight
    with torch.no_grad():
        weight.fill_(2.0)
    gradient, loss, kl = average_gradient(optimizer, 3.0 * weight.sum(), [weight], torch.tensor(0.1))
    assert gradient.tolist() == [4.0]
    assert loss.item() == 8.5  # of 6 and 11
    assert kl.item() == pytest.approx(0.3)


def test_moments_are_those_of_all_samples():
    samples = torch.randn(30, 3, generator=torch.Generator().manual_seed(0)) * 3 + 1
    here, there, later = samples[:10], samples[10:25], samples[25:]
    moments, whole = RunningMoments((3,)), RunningMoments((3,))
    told = (*torch.var_mean(there, dim=0, unbiased=False), 15)
    moments.shards = Told([told], [None])
    moments.update(here)
    moments.update(later)  # the others had nothing to say
    whole.update(samples)
    torch.testing.assert_close(moments.mean, samples.mean(0))
    torch.testing.assert_close(moments.var, samples.var(0, unbiased=False))
    torch.testing.assert_close(moments.var, whole.var)
    assert moments.count.item() == 30


def test_moments_of_a_shard_that_saw_nothing_are_those_of_the_others():
    moments = RunningMoments(())
    moments.shards = Told([(torch.tensor(4.0), torch.tensor(7.0), 5)])
    moments.update(torch.zeros(0))
    assert (moments.mean.item(), moments.var.item(), moments.count.item()) == (7.0, 4.0, 5.0)


def test_a_number_of_another_shard_that_is_too_large_is_refused_here_too():
    scale = ReturnScale(1)
    scale.moments.shards = Told([(torch.tensor(float("inf")), torch.tensor(1.0), 5)], [3e38], [2e38])
    with pytest.raises(FloatingPointError, match=r"a reward of size 2e\+38 is too large"):  # not one of its own
        scale.update(torch.ones(2, 1), torch.zeros(2, 1, dtype=torch.bool), 0.9)
    assert scale.moments.count.item() == 0.0


def test_advantages_are_scaled_by_those_of_all():
    """1, 3 here and 5, 7 there: mean 4, variance 5."""
    scale = AdvantageScale()
    scale.shards = Told([torch.tensor([6.0])], [torch.tensor([5.0])])  # 9 + 1 here: the mean square is 5, as there
    found = scale(torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(found, torch.tensor([-3.0, -1.0]) / 5.0**0.5)


def test_a_scale_is_corrected_by_what_any_shard_saw():
    from gymnasium import spaces

    quiet, loud = (torch.tensor([-1.0]), torch.tensor([1.0])), (torch.tensor([-1.0]), torch.tensor([1e4]))
    space = spaces.Box(-float("inf"), float("inf"), (1,))
    alone, told = Scale("obs", space, shared=False), Scale("obs", space, shared=False)
    told.shards = Told([loud])
    assert alone.correct(*quiet, normalised=False) is None
    assert "1e+04" in told.correct(*quiet, normalised=False) or told.corrected
    assert told.width.item() >= 1e4 / 4

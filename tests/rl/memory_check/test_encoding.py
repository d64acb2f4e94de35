"""Scales of observations and features that say nothing."""

import pytest
import torch

from rl.memory_check.encoding import check_features, check_scales


@pytest.fixture
def trace(leaky, make_trace):
    opens = torch.zeros(50, 2, dtype=torch.bool)
    return make_trace(leaky(0.5), torch.linspace(-0.5, 0.5, 100).view(50, 2, 1), opens)


def test_sound_features_pass(trace):
    assert check_scales(trace).passed and check_features(trace).passed
    assert check_scales(trace).finding == "obs -0.5 to 0.5, 1 of 1 numbers vary"


def test_numbers_that_are_not_finite_are_a_fault(trace):
    trace.obs["obs"][3, 1] = float("nan")
    assert check_scales(trace).passed is False


def test_large_numbers_are_worth_a_look(trace):
    trace.obs = {"obs": 300 * trace.obs["obs"], "picture": torch.full((50, 2, 4, 4), 255, dtype=torch.uint8)}
    verdict = check_scales(trace)
    assert verdict.passed is None and verdict.advice.startswith("obs: declare the bounds")
    assert "picture 255 to 255, 0 of 16 numbers vary" in verdict.finding


@pytest.mark.parametrize(("dead", "passed"), [(1, True), (2, True), (3, None), (4, False)])
def test_features_that_never_vary(trace, dead, passed):
    features = trace.inputs["x"].repeat(1, 1, 4)
    features[..., :dead] = 0.3
    trace.inputs = {"x": features}
    verdict = check_features(trace)
    assert verdict.passed is passed and verdict.numbers["dead"] == dead / 4


def test_features_that_are_saturated(trace):
    trace.inputs = {"x": torch.tanh(100 * trace.inputs["x"])}
    verdict = check_features(trace)
    assert verdict.passed is None and verdict.numbers["saturated"] > 0.9 and "normalise" in verdict.advice
    trace.inputs = {"x": 2 * trace.inputs["x"]}  # numbers beyond 1 come from no tanh
    assert check_features(trace).numbers["saturated"] == 0.0
    trace.inputs = {"x": torch.eye(2).repeat(25, 1).view(50, 1, 2).expand(50, 2, 2)}  # nor do codes
    assert check_features(trace).passed and check_features(trace).numbers["saturated"] == 0.0


def test_observations_that_never_vary_are_told(trace):
    trace.obs, trace.inputs = {"obs": torch.ones(50, 2, 1)}, {"x": torch.ones(50, 2, 1)}
    verdict = check_features(trace)
    assert verdict.passed is None and verdict.finding.startswith("observations never vary")


def test_a_memory_that_reads_no_floats(trace):
    trace.inputs = {"x": trace.obs["obs"] > 0}
    assert check_features(trace).passed is None

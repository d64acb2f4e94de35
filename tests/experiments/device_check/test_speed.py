import pytest

from experiments.device_check import speed


def test_kernels_stand_beside_those_of_the_library(device, monkeypatch):
    monkeypatch.setattr(speed, "SHAPES", ((4, 3, 8),))
    found = {each.label: each.numbers for each in speed.measure_kernels(str(device), ["gru", "mingru"])}
    assert found["gru 4 x 3, 8"]["ratio"] == pytest.approx(
        found["gru 4 x 3, 8"]["ms"] / found["gru 4 x 3, 8"]["ms_without_resets"]
    )
    assert set(found["mingru 4 x 3, 8"]) == {"ms"}


def test_training_is_measured_in_whole_iterations(device, monkeypatch):
    monkeypatch.setattr(speed, "SIZES", ((4, 8, 4, 2),))
    found = list(speed.measure_training(str(device), ["gru"], seconds=0.05))
    assert [each.label for each in found] == [f"gru, 4 environments in {kind}" for kind in ("numpy", "torch")]
    for each in found:
        assert each.numbers["steps_per_second"] > 0 and 0 < each.numbers["share_of_update"] < 1


def test_waits_are_counted_on_cuda_alone(device):
    if device.type == "cuda":
        of_numpy, of_torch = speed.count_waits("cuda", ["gru"])
        assert of_numpy.numbers["waits_per_step"] >= 1  # the actions
        assert of_torch.numbers["waits_per_step"] < 0.1  # the episodes that this counts, once in a rollout
    else:
        (found,) = speed.count_waits(str(device), ["gru"])
        assert (found.numbers, found.passed) == ({}, None)


def test_few_minibatches_are_those_of_the_cores_asked_for(device, monkeypatch):
    cases = (("gru", 4, 1, 2, "float32"), ("lstm", 4, 1, 1, "float32"))
    monkeypatch.setattr(speed, "FEW_MINIBATCHES", cases)
    (found,) = speed.measure_few_minibatches(str(device), ["gru"], seconds=0.05)
    assert found.label == "gru, 4 environments, 1 minibatches, 2 epochs, float32"
    assert found.numbers["steps_per_second"] > 0

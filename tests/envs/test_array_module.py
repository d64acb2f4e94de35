"""Numpy and torch do alike what the tasks ask for, and a device that cannot be used is refused."""

import re

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException

from envs.array_module import NumpyArrays, TorchArrays, array_module
from envs.t_maze import TMaze
from experiments.launch.check import construct
from experiments.launch.escape import to_config


@pytest.fixture(scope="module")
def both():
    return NumpyArrays(), TorchArrays("cpu")


def test_numpy_unless_a_device_is_named():
    assert type(array_module(None)) is NumpyArrays
    assert array_module("cpu").device == torch.device("cpu")
    assert array_module(torch.device("cpu")).generator.device == torch.device("cpu")


@pytest.mark.parametrize("name", ["warp", "cuda:99", "", "meta", "hpu"])
def test_a_device_that_torch_cannot_use_is_refused_in_one_sentence(name):
    with pytest.raises(ValueError, match=rf"^device='{name}': torch cannot use it here: [^\n]+$"):
        TMaze(2, device=name)


def test_of_a_long_reason_the_first_sentence_is_told(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError(
            "CUDA error: invalid device ordinal\nCUDA kernel errors might be asynchronously reported. For"
        )

    monkeypatch.setattr(torch, "zeros", fail)
    with pytest.raises(
        ValueError, match=r"^device='cpu': torch cannot use it here: CUDA error: invalid device ordinal$"
    ):
        TorchArrays("cpu")


def test_the_key_of_a_configuration_reaches_the_constructor():
    node = {"_target_": "envs.t_maze.TMaze", "length": 3}
    assert construct(to_config(node), "env", num_envs=2)[0].device is None
    envs, complete = construct(to_config(node | {"device": "cpu"}), "env", num_envs=2)
    assert envs.device == torch.device("cpu") and complete["device"] == "cpu"
    with pytest.raises(InstantiationException, match=r"device='warp': torch cannot use it here"):
        construct(to_config(node | {"device": "warp"}), "env", num_envs=2)


@pytest.mark.parametrize(
    "make",
    [
        lambda xp: xp.zeros((2, 3), xp.bool),
        lambda xp: xp.ones(3, xp.float64),
        lambda xp: xp.arange(4),
        lambda xp: xp.take(xp.asarray(np.arange(12.0).reshape(4, 3)), xp.asarray(np.array([3, 0, 3]))),
        lambda xp: xp.astype(xp.asarray(np.array([1.7, -1.7])), xp.int64),
        lambda xp: xp.where(xp.asarray(np.array([True, False])), xp.arange(2), xp.arange(2) - 5),
        lambda xp: xp.maximum(xp.minimum(xp.arange(5), 3), 1),
        lambda xp: xp.load(xp.zeros(2, xp.float32), np.array([1.5, 2.5])),
        lambda xp: xp.renew(xp.zeros(2, xp.int64), xp.arange(2)),
    ],
)
def test_both_give_the_same(both, make):
    of_numpy, of_torch = (make(xp) for xp in both)
    assert isinstance(of_torch, torch.Tensor)
    np.testing.assert_array_equal(of_numpy, of_torch.numpy())
    assert of_numpy.dtype == of_torch.numpy().dtype


@pytest.mark.parametrize("value", [7, "rows"])
def test_values_are_put_into_rows_alone(both, value):
    """Numpy is given the values of those rows, torch those of all rows and a mask."""
    written = []
    for xp, rows, fresh in zip(both, (np.array([0, 2]), torch.tensor([True, False, True])), (2, 3), strict=True):
        array = xp.zeros((3, 2), xp.int64)
        values = 10 + xp.zeros((fresh, 2), xp.int64) + xp.arange(2) if value == "rows" else value
        xp.put(array[:, :], rows, values)  # into a view
        written.append(np.asarray(array).tolist())
    assert written[0] == written[1] == ([[10, 11], [0, 0], [10, 11]] if value == "rows" else [[7, 7], [0, 0], [7, 7]])


def test_a_number_is_put_into_a_mask_of_numpy_too(both):
    array = np.zeros(3)
    both[0].put(array, np.array([True, False, True]), 4)
    assert array.tolist() == [4, 0, 4]


def test_what_is_renewed_stays_where_it_lies_in_torch():
    xp = TorchArrays("cpu")
    state = xp.zeros(3, xp.int64)
    assert xp.renew(state, xp.arange(3)) is state and xp.load(state, np.arange(3)) is state
    assert state.tolist() == [0, 1, 2]


def test_what_is_exported_is_a_copy(both):
    for xp in both:
        array = xp.zeros(2, xp.int64)
        copy = xp.export(array)
        array += 1
        assert copy.tolist() == [0, 0]


def test_a_copy_and_an_order(both):
    for xp in both:
        array = xp.asarray(np.array([[3, 1, 2], [0, 5, 4]]))
        copy = xp.copy(array)
        array += 1
        assert copy.tolist() == [[3, 1, 2], [0, 5, 4]]
        assert xp.argsort(array).tolist() == [[1, 2, 0], [0, 2, 1]]


def test_draws_are_those_that_numpy_would_make():
    xp = TorchArrays("cpu")
    xp.generator.manual_seed(0)
    drawn = xp.integers(3, size=9000)
    assert drawn.dtype == torch.int64 and drawn.bincount().min() > 2800 and len(drawn.bincount()) == 3
    drawn = xp.integers(2, 5, size=(3000, 2))
    assert drawn.shape == (3000, 2) and drawn.unique().tolist() == [2, 3, 4]
    drawn = xp.uniform(-0.6, -0.4, size=9000)
    assert drawn.dtype == torch.float64 and drawn.shape == (9000,) and abs(float(drawn.mean()) + 0.5) < 0.003
    assert -0.6 <= drawn.min() < -0.599 and -0.401 < drawn.max() <= -0.4
    drawn = xp.random((4000, 2))
    assert drawn.shape == (4000, 2) and 0 <= drawn.min() < 0.01 and 0.99 < drawn.max() <= 1
    drawn = xp.normal(1.0, 0.1, size=(4000, 2))
    assert drawn.dtype == torch.float64 and drawn.shape == (4000, 2)
    assert abs(float(drawn.mean()) - 1) < 0.005 and abs(float(drawn.std()) - 0.1) < 0.005


def test_generators_of_two_environments_begin_apart():
    assert TorchArrays("cpu").integers(2**40, size=1) != TorchArrays("cpu").integers(2**40, size=1)


@pytest.mark.parametrize(
    ("actions", "sentence"),
    [
        (np.zeros(3, np.int64), "actions of type ndarray: they must be a tensor of integers of shape (3,) on cpu"),
        (torch.zeros(2, dtype=torch.int64), "actions are torch.int64 of shape (2,) on cpu: they must be a tensor of"),
        (torch.zeros(3), "actions are torch.float32 of shape (3,) on cpu: they must be a tensor of integers"),
        (torch.zeros(3, dtype=torch.int64, device="meta"), "actions are torch.int64 of shape (3,) on meta: they must"),
    ],
)
def test_actions_of_another_kind_are_refused(actions, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        TorchArrays("cpu").check_actions(actions, (3,), continuous=False)


def test_actions_are_taken_as_int64_or_float32():
    xp = TorchArrays("cpu")
    for dtype in (torch.uint8, torch.int32, torch.int64):
        assert xp.check_actions(torch.ones(3, dtype=dtype), (3,), continuous=False).dtype == torch.int64
    for dtype in (torch.float64, torch.float32, torch.int64):
        assert xp.check_actions(torch.ones(3, dtype=dtype), (3,), continuous=True).dtype == torch.float32
    with pytest.raises(ValueError, match=r"^actions are torch.complex64 .*: they must be a tensor of numbers"):
        xp.check_actions(torch.ones(3, dtype=torch.complex64), (3,), continuous=True)

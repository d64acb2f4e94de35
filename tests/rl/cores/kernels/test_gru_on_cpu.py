"""What numba compiles for the GRU: values and gradients of single steps in float64, and where it is used."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from rl.cores import gru, kernels
from rl.cores.gru import GRULayer, _UnrollGRU

pytest.importorskip("numba")
gru_on_cpu = pytest.importorskip("rl.cores.kernels.gru_on_cpu")


def run(layer, dtype, x, h0, starts, weights):
    """Return outputs ``[T, B, H]`` and gradients by name, of single steps if ``dtype`` is float64."""
    layer = GRULayer(x.shape[-1], h0.shape[-1]).to(dtype)
    layer.load_state_dict({name: leaf.to(dtype) for name, leaf in weights.items()})
    x, h0 = (leaf.to(dtype, copy=True).requires_grad_() for leaf in (x, h0))
    if dtype == torch.float64:
        outputs, h = [], h0
        for t in range(len(x)):
            (h,) = layer.step(x[t], (h * (~starts[t]).unsqueeze(1),))
            outputs.append(h)
        y = torch.stack(outputs)
    else:
        y, (last,) = layer.unroll(x, (h0,), starts)
        torch.testing.assert_close(last, y[-1])
    # not a plain sum: every output has a weight of its own, the last one a larger one
    factors = torch.linspace(-1, 2, y.numel(), dtype=dtype).view_as(y)
    leaves = {"x": x, "h0": h0, **dict(layer.named_parameters())}
    return y, dict(zip(leaves, torch.autograd.grad((y * factors).sum(), leaves.values()), strict=True))


@pytest.mark.parametrize("T, B, D, H", [(1, 1, 3, 8), (20, 2, 5, 16), (9, 4, 3, 7), (12, 5, 3, 6), (16, 16, 8, 32)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_values_and_gradients(T, B, D, H, share, monkeypatch):
    used = []
    apply = gru_on_cpu.UnrollGRU.apply
    monkeypatch.setattr(gru_on_cpu.UnrollGRU, "apply", lambda *args: used.append(1) or apply(*args))
    torch.manual_seed(T + B)
    weights = {name: 0.5 * torch.randn_like(leaf) for name, leaf in GRULayer(D, H).state_dict().items()}
    given = torch.randn(T, B, D), torch.randn(B, H), torch.rand(T, B) < share, weights
    found, expected = (run(GRULayer, dtype, *given) for dtype in (torch.float32, torch.float64))
    assert used == [1]
    torch.testing.assert_close(found[0], expected[0].float(), rtol=0, atol=2e-6)
    for name, gradient in expected[1].items():
        limit = 3e-6 * max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(found[1][name], gradient.float(), rtol=0, atol=limit, msg=name)


def test_inputs_are_left_as_they_are():
    torch.manual_seed(0)
    layer, x, h0, starts = GRULayer(3, 8), torch.randn(6, 2, 3), torch.randn(2, 8), torch.rand(6, 2) < 0.5
    before = [leaf.clone() for leaf in (x, h0, starts)]
    (y, _), again = layer.unroll(x, (h0,), starts), layer.unroll(x, (h0,), starts)[0]
    assert all(map(torch.equal, (x, h0, starts), before)) and torch.equal(y, again)


def test_starts_with_strides_are_those_of_a_copy():
    torch.manual_seed(0)
    layer, x, h0, starts = GRULayer(3, 8), torch.randn(6, 2, 3), torch.randn(2, 8), (torch.rand(6, 4) < 0.5)[:, ::2]
    assert torch.equal(layer.unroll(x, (h0,), starts)[0], layer.unroll(x, (h0,), starts.contiguous())[0])
    assert {str(kind[4].layout) for kind in gru_on_cpu._forward.signatures} == {"C"}


def test_tanh_and_sigmoid():
    x = np.concatenate([np.linspace(-20, 20, 40_001), [-1e9, 1e9, np.nextafter(7.9053, 8)]]).astype(np.float32)
    tanh = np.array([gru_on_cpu.tanh(value) for value in x])
    assert np.abs(tanh - np.tanh(x.astype(np.float64))).max() < 4e-7
    assert (np.abs(tanh[np.abs(x) > 7.91]) == 1).all() and tanh[20_000] == 0
    sigmoid = np.array([gru_on_cpu.sigmoid(value) for value in x])
    assert np.abs(sigmoid - 1 / (1 + np.exp(-x.astype(np.float64).clip(-700)))).max() < 4e-7
    assert set(sigmoid[np.abs(x) > 16]) == {0, 1}


@pytest.mark.parametrize("many", [False, True])
def test_a_memory_that_is_held_does_not_fade(many):
    layer = GRULayer(1, 8)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias_ih[8:16] = 20.0  # z = 1
    B = gru_on_cpu.FEW + 1 if many else 1
    h0 = torch.linspace(-1, 1, 8).repeat(B, 1)
    y, _ = layer.unroll(torch.zeros(5000, B, 1), (h0,), torch.zeros(5000, B, dtype=torch.bool))
    assert torch.equal(y[-1], h0)


def test_numbers_that_are_not_finite_stay():
    layer, x = GRULayer(2, 8), torch.zeros(3, 2, 2)
    x[1, 1, 0] = torch.nan
    y, _ = layer.unroll(x, (torch.zeros(2, 8),), torch.zeros(3, 2, dtype=torch.bool))
    assert y[1:, 1].isnan().all() and y[:, 0].isfinite().all() and y[0].isfinite().all()


def test_float64_and_a_machine_without_numba_take_the_plain_way(monkeypatch):
    used = []
    monkeypatch.setattr(_UnrollGRU, "apply", lambda x, *rest: used.append(x.dtype) or x.new_zeros(*x.shape[:2], 8))
    core = gru(3, hidden_size=8)
    state, starts = core.initial_state(2), torch.zeros(4, 2, dtype=torch.bool)
    core.double().unroll(torch.zeros(4, 2, 3).double(), {"h": state["h"].double()}, starts)
    core.float().unroll(torch.zeros(4, 2, 3), state, starts)
    assert used == [torch.float64]
    monkeypatch.setattr(kernels, "has_numba", lambda: False)
    core.unroll(torch.zeros(4, 2, 3), state, starts)
    assert used == [torch.float64, torch.float32]


def test_numba_that_does_not_load_is_told(monkeypatch, caplog):
    kernels.has_numba.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: object())
    assert not kernels.has_numba()
    assert "numba cannot be loaded, so nothing is compiled" in caplog.text
    kernels.has_numba.cache_clear()
    monkeypatch.undo()
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert not kernels.has_numba()
    kernels.has_numba.cache_clear()


@pytest.mark.slow
def test_without_a_place_for_what_is_compiled():
    """Neither the folder of the module nor that of the user can be written to: each process compiles for itself."""
    code = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import torch; from rl.cores import gru\n"
        "core = gru(3, hidden_size=8)\n"
        "given = torch.zeros(4, 2, 3), core.initial_state(2), torch.zeros(4, 2, dtype=torch.bool)\n"
        "print(core.unroll(*given)[0].shape)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert ended.stdout.strip() == "torch.Size([4, 2, 8])", ended.stderr

"""The kernels beside single steps in float64: on a CPU through Triton's interpreter, on a GPU in float32."""

import importlib
from copy import deepcopy

import pytest
import torch

from rl import cores
from rl.cores import kernels
from rl.networks.acceleration import set_precision

pytest.importorskip("triton")

CELLS = ("rnn", "gru", "lstm", "mingru")
NAMES = (*CELLS, "mamba", "jamba")
CASES = (((1, 1, 3), 0.3), ((4, 19, 33), 0.3), ((10, 2, 16), 0.3), ((3, 5, 12), 0.0), ((3, 5, 12), 1.0))
"""Steps, sequences, hidden units: one step, several blocks, more than one chunk; and the share of starts."""


@pytest.fixture
def calls(monkeypatch, device):
    """Run kernels wherever a core could, and note the widths of the layers that asked."""
    if device.type not in ("cpu", "cuda"):
        pytest.skip("Triton knows no such device")
    widths = []
    for name in NAMES[:-1]:
        module = importlib.import_module(f"rl.cores.{name}")
        monkeypatch.setattr(module, "use_kernels", lambda x, hidden_size: widths.append(hidden_size) or True)
    return widths


def make_case(name, shape, share_of_starts, num_layers):
    (T, B, H), options = shape, {"num_heads": 1} if name == "jamba" else {}
    torch.manual_seed(T + B + H)
    core = getattr(cores, name)(4, hidden_size=H, num_layers=num_layers, **options).double()
    x, starts = torch.randn(T, B, 4, dtype=torch.float64), torch.rand(T, B) < share_of_starts
    state = {key: convert(leaf, torch.float64) for key, leaf in core.initial_state(B).items()}
    state = {key: torch.randn_like(leaf) if leaf.is_floating_point() else leaf for key, leaf in state.items()}
    return core, x, state, starts


def convert(leaf, dtype, device="cpu"):
    return leaf.detach().to(device, dtype if leaf.is_floating_point() else leaf.dtype)


def step_by_step(core, x, state, starts):
    y = []
    for x_t, starts_t in zip(x, starts, strict=True):
        out, state = core.step(x_t, state, starts_t)
        y.append(out)
    return torch.stack(y), state


def results(core, unroll, x, state, starts):
    """Return outputs, the last state, and the gradients by input, first state and weights."""
    differentiable = [leaf.requires_grad_() for leaf in (x, *state.values()) if leaf.is_floating_point()]
    y, after = unroll(x, state, starts)
    leaves = [y, *(leaf for leaf in after.values() if leaf.is_floating_point())]
    total = sum((leaf * torch.arange(leaf.numel(), device=leaf.device).view_as(leaf).cos()).sum() for leaf in leaves)
    return leaves + list(torch.autograd.grad(total, [*differentiable, *core.parameters()], materialize_grads=True))


def check(device, name, shape, share_of_starts, num_layers):
    core, x, state, starts = make_case(name, shape, share_of_starts, num_layers)
    expected = results(core, lambda *given: step_by_step(core, *given), x, state, starts)
    dtype, bound = (torch.float32, 1e-5) if device.type == "cuda" else (torch.float64, 1e-12)
    core = deepcopy(core).to(device, dtype)
    moved = {key: convert(leaf, dtype, device) for key, leaf in state.items()}
    found = results(core, core.unroll, convert(x, dtype, device), moved, starts.to(device))
    for right, other in zip(expected, found, strict=True):
        error = (other.detach().cpu().double() - right).abs().max() / right.abs().max().clamp_min(1.0)
        assert error < bound


@pytest.mark.parametrize(("shape", "share_of_starts"), CASES)
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_computes_what_single_steps_do(name, shape, share_of_starts, calls, device):
    check(device, name, shape, share_of_starts, num_layers=2)
    assert calls == [shape[-1]] * len(calls) != []


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_a_product_over_more_than_one_block(name, calls, device):
    check(device, name, (2, 3, 136), 0.3, 1)
    assert calls == [136]


@pytest.mark.parametrize("name", CELLS)
def test_a_start_clears_even_what_is_not_a_number(name, calls, device):
    core, x, state, starts = make_case(name, (2, 3, 8), 0.0, 1)
    core, starts[0] = core.float().to(device), True
    broken = {key: torch.full_like(leaf, torch.nan, dtype=torch.float32, device=device) for key, leaf in state.items()}
    y, after = core.unroll(x.float().to(device), broken, starts.to(device))
    assert all(torch.isfinite(leaf).all() for leaf in (y, *after.values()))


def test_kernels_are_for_float32_on_cuda_and_for_layers_that_fit(monkeypatch):
    monkeypatch.setattr(kernels, "has_triton", lambda: True)

    class OnCuda:
        device, dtype = torch.device("cuda"), torch.float32

    assert kernels.use_kernels(OnCuda(), kernels.LARGEST)
    assert not kernels.use_kernels(OnCuda(), kernels.LARGEST + 1)
    assert not kernels.use_kernels(torch.zeros(1), 64)
    OnCuda.dtype = torch.float64
    assert not kernels.use_kernels(OnCuda(), 64)


def test_products_are_rounded_where_torch_may_round_them():
    from rl.cores.kernels import products

    try:
        for precision, block in (("tf32", "tf32"), ("float32", "tf32x3")):
            set_precision(torch.device("cuda"), precision)
            assert products.choose_blocks(100, 64)[1]["PRECISION"] == block
    finally:
        set_precision(torch.device("cuda"), "float32")

import pytest
import torch

from rl.cores.scan import doubling, loop, scan

B, H = 3, 4


@pytest.fixture
def make_terms():
    """``a, b [T, B, H]`` and ``h0 [B, H]``; a is 0 in a share of the rows."""

    def make(T, share=0.2, dtype=torch.float64):
        generator = torch.Generator().manual_seed(T)
        keep = torch.rand(T, B, 1, generator=generator) >= share
        a = torch.rand(T, B, H, generator=generator, dtype=torch.float64) * keep
        b, h0 = torch.randn(T + 1, B, H, generator=generator, dtype=torch.float64).split([T, 1])
        return tuple(term.to(dtype).requires_grad_() for term in (a, b, h0[0].clone()))

    return make


def plainly(a, b, h0):
    rows, h = [], h0
    for factor, term in zip(a, b, strict=True):
        h = factor * h + term
        rows.append(h)
    return torch.stack(rows)


@pytest.mark.parametrize("way", [loop, doubling])
@pytest.mark.parametrize("T", [1, 2, 3, 7, 8, 33, 128])
def test_both_ways_equal_the_equation_in_value_and_gradient(way, T, make_terms, assert_close, monkeypatch):
    monkeypatch.setattr("rl.cores.scan._recurrence", lambda a: way)
    terms = make_terms(T)
    weights = torch.randn(T, B, H, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, expected = scan(*terms), plainly(*terms)
    assert_close(found, expected, 1e-13)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), terms),
        torch.autograd.grad((expected * weights).sum(), terms),
        strict=True,
    ):
        assert_close(one, other, 1e-12)


@pytest.mark.parametrize("way", [loop, doubling])
def test_single_precision(way, make_terms, assert_close):
    with torch.no_grad():
        assert_close(way(*make_terms(128, 0.05, torch.float32)), plainly(*make_terms(128, 0.05)).float(), 1e-5)


@pytest.mark.parametrize("way", [loop, doubling])
def test_a_coefficient_of_zero_forgets_exactly(way, make_terms, monkeypatch):
    monkeypatch.setattr("rl.cores.scan._recurrence", lambda a: way)
    a, b, h0 = make_terms(20, 0.0)
    with torch.no_grad():
        a[9] = 0.0
        other = scan(a, torch.cat([b[:9] + 1e30, b[9:]]), h0 * 1e30)
    h = scan(a, b, h0)
    assert torch.equal(h[9:], other[9:])
    d_b, d_h0 = torch.autograd.grad(h[9:].sum(), [b, h0])
    assert torch.count_nonzero(d_b[:9]) == 0
    assert torch.count_nonzero(d_h0) == 0
    assert d_b[9:].min() > 0


def test_a_cpu_takes_the_loop(make_terms, monkeypatch):
    """As many steps as there are; doubling would be log2 T passes over everything."""
    calls = []
    monkeypatch.setattr("rl.cores.scan.loop", lambda *terms: (calls.append(len(terms[0])), loop(*terms))[1])
    scan(*make_terms(9)).sum().backward()
    assert calls == [9, 9]  # forward and backward


def test_terms_are_left_as_they_are(make_terms):
    terms = make_terms(9)
    copies = [term.clone() for term in terms]
    for way in loop, doubling:
        with torch.no_grad():
            way(*terms)
    assert all(torch.equal(term, copy) for term, copy in zip(terms, copies, strict=True))

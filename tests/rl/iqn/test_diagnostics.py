"""What is measured on a replay: stored states that other weights have made, and the memory of the network."""

import numpy as np
import pytest
import torch

from rl import cores
from rl.iqn.diagnostics import diagnose_replay
from rl.networks.diagnostics import NAMES


@pytest.fixture
def diagnose():
    def run(parts, **options):
        sizes = {"burn_in": parts.iqn.burn_in, "bptt": parts.iqn.bptt} | options
        return {name: value.item() for name, value in diagnose_replay(parts.network, parts.replay, **sizes).items()}

    return run


@pytest.mark.parametrize("core", ["gru", "lstm", "attention"])
def test_states_are_stale_once_weights_have_changed(core, make_parts, diagnose, randomise):
    parts = make_parts(core)
    assert diagnose(parts, burn_in=0)["state_staleness"] < 1e-6
    assert diagnose(parts, burn_in=1)["state_staleness"] < 1e-6
    randomise(parts.network, seed=7)
    assert diagnose(parts, burn_in=0)["state_staleness"] > 0.05


def test_a_burn_in_renews_states(make_parts, diagnose, randomise):
    """The same replay without burn-in, with one step of it and with three, within which all episodes begin anew."""
    parts = make_parts(burn_in=3)
    randomise(parts.network, seed=7)
    stale, renewed, gone = (diagnose(parts, burn_in=burn_in)["state_staleness"] for burn_in in (0, 1, 3))
    assert stale > 1.3 * renewed > 0.1 and gone == 0.0


def test_staleness_needs_a_stride_and_a_burn_in_within_a_sequence(make_parts, diagnose):
    parts = make_parts()
    assert (parts.replay.stride, parts.replay.length) == (2, 11)
    assert "state_staleness" in diagnose(parts, burn_in=8, bptt=2)
    assert "state_staleness" not in diagnose(parts, burn_in=9, bptt=2)


def test_stored_states_are_those_of_the_same_environment(make_parts, diagnose):
    """Those one stride after the first, also where the ring goes on at its beginning: put far off, they show."""
    parts = make_parts(steps=40)
    slots = parts.replay.ready().nonzero().squeeze(1)
    slots = slots[:: -(-len(slots) // 8)]
    following = (slots + 3) % len(parts.replay.priorities)
    others = np.setdiff1d(np.arange(len(parts.replay.priorities)), [*slots, *following])
    for leaf in parts.replay.state.values():
        leaf[others] = 1e6
    assert diagnose(parts, burn_in=0)["state_staleness"] < 1e-6
    for leaf in parts.replay.state.values():
        leaf[following] += 1e3
    assert diagnose(parts, burn_in=0)["state_staleness"] > 100


def test_the_gradient_is_cut_by_bptt(make_parts, diagnose):
    parts = make_parts("lstm")
    long, cut = diagnose(parts), diagnose(parts, bptt=2)
    assert 0.0 < long["gradient_share_older_than_1"] < 1.0
    assert cut["gradient_share_older_than_1"] == 0.0


def test_final_entries_are_no_steps_whose_gradient_counts(make_parts, diagnose, monkeypatch):
    parts, seen = make_parts(), []
    monkeypatch.setattr(
        "rl.iqn.diagnostics.measure_memory", lambda core, given, loss, longest, counts: seen.append(counts) or {}
    )
    diagnose(parts)
    slots = parts.replay.ready().nonzero().squeeze(1)
    slots = slots[:: -(-len(slots) // 8)]
    final = parts.replay.read(slots, torch.ones(len(slots))).final[3:8]
    assert final.any() and torch.equal(seen[0], ~final)


@pytest.mark.parametrize("name", cores.__all__)
def test_nothing_is_changed(name, make_parts):
    parts = make_parts(name, masked=True)
    before = [leaf.clone() for leaf in parts.network.state_dict().values()]
    priorities, random = parts.replay.priorities.clone(), torch.get_rng_state()
    found = diagnose_replay(parts.network, parts.replay, 3, 5)
    assert {"dead_features"} <= found.keys() <= {*NAMES}
    assert (len(found) == 1) == (name == "mlp") and all(torch.isfinite(value) for value in found.values())
    assert all(map(torch.equal, before, parts.network.state_dict().values()))
    assert torch.equal(priorities, parts.replay.priorities) and torch.equal(random, torch.get_rng_state())

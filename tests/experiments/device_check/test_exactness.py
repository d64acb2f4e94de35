"""Each check passes here, and fails on a fault that is put in on purpose."""

import pytest
import torch

from experiments.device_check import exactness
from rl.agents.actor import Actor
from rl.cores.stack import Stack

CORES = ["gru", "lstm"]


@pytest.fixture
def verdicts(device):
    """Of every line of a check, by label."""

    def read(check):
        return {finding.label: finding.passed for finding in check(str(device), CORES)}

    return read


@pytest.mark.parametrize("check", [exactness.check_replay, exactness.check_parity, exactness.check_checkpoints])
def test_a_device_that_computes_right_passes(check, verdicts):
    found = verdicts(check)
    assert len(found) >= 2 and set(found.values()) == {True}


def test_a_replay_without_resets_fails(verdicts, monkeypatch):
    unroll = Stack.unroll
    monkeypatch.setattr(Stack, "unroll", lambda core, x, state, starts: unroll(core, x, state, starts & False))
    assert set(verdicts(exactness.check_replay).values()) == {False}


def test_another_result_than_in_float64_fails(verdicts, monkeypatch):
    unroll = Stack.unroll

    def rounded(core, x, state, starts):
        y, after = unroll(core, x, state, starts)
        return y if y.dtype == torch.float64 else y.bfloat16().float(), after

    monkeypatch.setattr(Stack, "unroll", rounded)
    monkeypatch.setattr(exactness, "WORSE", 0.5)  # on a CPU the error would be compared with itself
    assert set(verdicts(exactness.check_parity).values()) == {False}


def test_an_agent_that_plays_otherwise_once_it_was_loaded_fails(verdicts, monkeypatch):
    load = Actor.load_state_dict

    def forget(actor, state):
        load(actor, state)
        with torch.no_grad():
            for parameter in actor.network.heads.parameters():
                parameter.neg_()

    monkeypatch.setattr(Actor, "load_state_dict", forget)
    assert set(verdicts(exactness.check_checkpoints).values()) == {False}

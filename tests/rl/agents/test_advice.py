"""What is wrong is told in a sentence, once, and not before it has stood for a while if it may pass."""

import logging

import pytest

from rl.agents.advice import Advisor

SHARE = "gradient_share_older_than_8"


@pytest.fixture
def told(caplog):
    """The lines after an advisor has heard results, one after the other."""
    caplog.set_level(logging.WARNING, "rl.agents.advice")

    def tell(*results, bptt=32, **options):
        advisor = Advisor(10, bptt, "set agent.refresh_states=true")
        caplog.clear()
        for metrics in results:
            advisor.tell(metrics, **options)
        return caplog.messages

    return tell


def test_every_tenth_update_is_due():
    advisor = Advisor(10, None, "")
    assert [count for count in range(25) if advisor.is_due(count)] == [0, 10, 20]
    assert [before for before in range(0, 36, 4) if advisor.is_due(before, 4)] == [0, 8, 20, 28]
    assert not Advisor(None, None, "").is_due(0, 100)


@pytest.mark.parametrize("every", [0, -1, 2.5, True])
def test_impossible_intervals_are_refused(every):
    with pytest.raises(ValueError, match=f"diagnostics_every={every}: it must be a whole number of at least 1"):
        Advisor(every, None, "")


def test_a_cut_gradient_is_told_at_once(told):
    sentence = "the gradient does not reach 8 steps back: agent.bptt=8 cuts it, raise agent.bptt"
    assert told({SHARE: 0.0}, {SHARE: 0.0}, {SHARE: 0.0}, bptt=8) == [f"diagnostics/{SHARE}: {sentence}"]


def test_a_memory_that_forgets_is_told_after_a_while(told):
    assert told(*[{SHARE: 2e-5}] * 2) == []
    assert told(*[{SHARE: 2e-4}] * 9) == []
    (line,) = told(*[{SHARE: 2e-5}] * 9)
    assert "hardly reaches 8 steps back, only 2e-05 of it" in line and "bptt" not in line
    assert told(*[{SHARE: 2e-5}] * 3, bptt=None) == [line]


def test_stale_states_are_told_with_the_remedy(told):
    stale, fresh = {"state_staleness": 0.62}, {"state_staleness": 0.4}
    assert told(stale, stale, fresh, stale, stale) == []
    assert told(stale, stale, {"loss": 1.0}, stale) == [  # an update that was not diagnosed says nothing
        "diagnostics/state_staleness: stored states are 62% stale after an update: set agent.refresh_states=true, or "
        "lower agent.learning_rate"
    ]


def test_dead_features_are_told(told):
    (line,) = told(*[{"dead_features": 0.75}] * 4)
    assert line.startswith("diagnostics/dead_features: 75% of the features are dead")
    assert told(*[{"dead_features": 0.5}] * 4) == []


def test_saturated_gates_are_told(told):
    (line,) = told(*[{"gate_saturation": 0.97}] * 4)
    assert line.startswith("diagnostics/gate_saturation: 97% of the gates are saturated")
    assert "agent.normalise_returns=true" in line
    assert told(*[{"gate_saturation": 0.5}] * 4) == []


def test_a_wrong_replay_is_told_at_once(told):
    assert told({"ratio_error": 0.05}, {"ratio_error": 0.07}) == [
        "diagnostics/ratio_error: replay is wrong: probabilities of a rollout come back with a relative error of 0.05"
    ]
    assert told({"ratio_error": 1e-4}) == []
    assert told({"ratio_error": 9e-3}, precision="tf32") == []
    assert len(told({"ratio_error": 0.05}, precision="tf32")) == 1
    assert told({"ratio_error": 0.05}, precision="bfloat16") == []


def test_each_fault_has_a_line_of_its_own(told):
    assert len(told(*[{SHARE: 0.0, "dead_features": 1.0, "state_staleness": 2.0, "ratio_error": 1.0}] * 4)) == 4

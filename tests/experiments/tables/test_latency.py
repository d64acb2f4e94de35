"""Timing single actions."""

from types import SimpleNamespace

import pytest
import torch

from experiments.tables import latency


def test_one_thread_for_a_while():
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError), latency.use_one_thread():
            assert torch.get_num_threads() == 1
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_step_is_an_action_and_its_outcome(monkeypatch):
    """Frames come round again; a clock that moves by 1 in each action and by 2 in each outcome."""
    now, seen = [0.0], []

    class Player:
        def act(self, frame):
            now[0] += 1.0
            seen.append(frame)

        def observe(self, reward, terminated):
            now[0] += 2.0
            seen.append((reward, terminated))

    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert latency.time_steps(Player(), ["a", "b"], 3) == [3.0, 3.0, 3.0]
    outcome = (0.0, False)
    assert seen == ["a", outcome, "b", outcome, "a", outcome]

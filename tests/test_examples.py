"""The scripts under ``examples/`` run, and what they train is learned, on a small budget."""

import json
import runpy
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rl import Player, RecurrentPPOLSTM
from tests.serving import serving

FOLDER = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """``example("deploy", ...)``: what ``main`` of that script returns, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *arguments: runpy.run_path(str(FOLDER / f"{name}.py"))["main"](*arguments)


def test_an_agent_trained_by_hand_is_deployed(example):
    assert example("train_by_hand", "maze.pt", 32_000) >= 0.95  # a guess: 0.5
    assert example("deploy", "maze.pt", 40) >= 0.95


SEEN = spaces.Dict({"view": spaces.Box(-1, 1, (3,)), "side": spaces.Discrete(2)})


@pytest.fixture
def served(example):
    """``served(call, **content)``: status and answer of a server, whose agent lies in ``agent.pt``."""
    agent = RecurrentPPOLSTM(SEEN, spaces.MultiDiscrete([9, 9]), num_steps=4, seed=1)
    for parameter in agent.network.parameters():
        parameter.data.mul_(4)  # so that actions depend on what is remembered
    agent.save("agent.pt")
    with serving(lambda listening: example("serve", "agent.pt", 0, (), listening)) as server:

        def call(what, body=None, **content):
            with closing(HTTPConnection("127.0.0.1", server.server_port, timeout=60)) as connection:
                connection.request("POST", f"/{what}", json.dumps(content) if body is None else body)
                answer = connection.getresponse()
                assert answer.headers["Content-Type"] == "application/json"
                return answer.status, json.loads(answer.read())

        call.service = server.calls["/act"].__self__
        yield call


def make_observations(seed, steps=12):
    draws = np.random.default_rng(seed)
    return [{"view": draws.uniform(-1, 1, 3).tolist(), "side": int(draws.integers(2))} for _ in range(steps)]


def play(call, seed, reset_at=None):
    """The actions that a client gets over HTTP."""
    session, actions = call("begin")[1]["session"], []
    for step, seen in enumerate(make_observations(seed)):
        if step == reset_at:
            assert call("reset", session=session) == (200, {"session": session})
        status, answer = call("act", session=session, observation=seen)
        assert status == 200
        actions.append(answer["action"])
    return actions


def play_alone(seed, reset_at=None):
    """Those of a player that has one client."""
    player, actions = Player("agent.pt"), []
    for step, seen in enumerate(make_observations(seed)):
        if step == reset_at:
            player.reset()
        actions.append(player.act(seen).tolist())
    return actions


def test_each_client_of_a_server_has_a_memory_of_its_own(served):
    with ThreadPoolExecutor(6) as pool:
        played = list(pool.map(lambda seed: play(served, seed, 5 if seed % 2 else None), range(6)))
    assert played == [play_alone(seed, 5 if seed % 2 else None) for seed in range(6)]
    assert play_alone(1) != play_alone(1, 5)  # what is remembered decides


def test_what_a_server_refuses_changes_no_memory(served):
    first, second = make_observations(3, 2)
    alone = Player("agent.pt")
    session = served("begin")[1]["session"]
    assert served("act", session=session, observation=first)[1] == {"action": alone.act(first).tolist()}
    for content, words in (
        ({}, "observation is missing"),
        ({"observation": {"view": [0, 0, 0]}}, "side"),
        ({"observation": first | {"view": [0, float("nan"), 0]}}, "not finite"),
        ({"observation": first | {"view": [0, "a", 0]}}, "view"),
        ({"observation": first | {"colour": 1}}, "observation has the part 'colour': there are side, view alone"),
        ({"observation": [first, first]}, "observation"),
    ):
        status, answer = served("act", session=session, **content)
        assert (status, [*answer]) == (400, ["error"]) and words in answer["error"]
    for body, words in (("{", "is no JSON"), ("[]", "must be a JSON object")):
        status, answer = served("act", body)
        assert status == 400 and words in answer["error"]
    assert served("act", session=session, observation=second)[1] == {"action": alone.act(second).tolist()}
    assert served("turn")[0] == served("act", session=["x"])[0] == 404
    assert served("end", session=session) == (200, {})
    status, answer = served("act", session=session, observation=first)
    assert (status, answer["error"]) == (404, f"there is no session {session!r}: POST /begin makes one")


def test_a_server_has_room_for_so_many_sessions(served):
    served.service.most = 2
    (_, first), (_, _) = served("begin"), served("begin")
    status, answer = served("begin")
    assert (status, answer["error"]) == (503, "2 sessions are open: end one, or try later")
    served.service.sessions[first["session"]].used -= 700.0  # nobody has used it for more than ten minutes
    assert served("begin")[0] == 200 and first["session"] not in served.service.sessions


def test_an_own_environment_is_learned(example):
    assert example("own_environment", "run", 20_000) >= 0.85  # best 0.95, without memory 0.5
    assert Path("run/checkpoints/last.pt").is_file()


def test_an_own_core_is_learned(example):
    assert example("own_core", 10_000) >= 0.9  # a guess: 0


def test_an_own_encoder_is_learned(example):
    assert example("own_encoder", 10_000) >= 0.9  # a guess: 0


def test_an_own_loss_changes_what_is_learned(example):
    """The logits stay smaller than without the term."""
    (_, small), (_, large) = example("own_loss", 8_192, 0.3), example("own_loss", 8_192, 0.0)
    assert 0 < small < 0.6 * large


def test_an_own_observer_sees_the_returns(example):
    assert example("own_observer", "run", 4_096) > -2  # a rollout of the first guesses: about -3
    assert Path("run/progress.csv").read_text().startswith("env_steps,")


def test_a_module_that_clears_its_memory_late_is_found(example):
    assert example("check_module") == ["nothing_crosses_a_start"] and example("check_module", False) == []


def test_an_agent_of_sb3_contrib_is_checked(example):
    pytest.importorskip("sb3_contrib")
    assert example("check_sb3") == []


def test_an_agent_of_sb3_contrib_is_taken_over(example):
    pytest.importorskip("sb3_contrib")
    assert example("from_sb3", 1_024, (1,)) == [True]


def test_every_example_is_run_here():
    text = Path(__file__).read_text()
    assert [path.stem for path in sorted(FOLDER.glob("*.py")) if f'example("{path.stem}"' not in text] == []

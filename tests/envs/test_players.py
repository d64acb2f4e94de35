"""The experts that are recorded: what they do step by step, and that it is optimal."""

import numpy as np
import pytest

from envs.players import TMazeExpert, WitnessVoteExpert
from envs.probes import Counter
from envs.t_maze import BACK, DOWN, FORWARD, UP, TMaze
from envs.witness_vote import WitnessVote

START = np.ones(1, dtype=bool)
LATER = np.zeros(1, dtype=bool)


@pytest.mark.parametrize(
    ("make", "expert"),
    [
        (lambda: TMaze(64, 5), TMazeExpert),
        (lambda: TMaze(64, 5, passive=False), TMazeExpert),
        (lambda: WitnessVote(64), WitnessVoteExpert),
        (lambda: WitnessVote(64, 3, 7), WitnessVoteExpert),
    ],
)
def test_experts_reach_the_optimal_return_in_every_episode(play, make, expert):
    env = make()
    assert play(env, expert(env), episodes=3) == pytest.approx(env.optimal_return)


def test_the_cue_is_kept_until_the_junction():
    expert = TMazeExpert(TMaze(1))
    corridor, junction = np.array([[0, 0, 1, 0]]), np.array([[0, 0, 0, 1]])
    for cue, turn in (([1, 0, 1, 0], UP), ([0, 1, 1, 0], DOWN)):
        assert expert(np.array([cue]), START) == [FORWARD]
        assert expert(corridor, LATER) == [FORWARD]
        assert expert(junction, LATER) == [turn]


def test_without_a_cue_at_the_start_the_oracle_is_asked_first():
    expert = TMazeExpert(TMaze(1, passive=False))
    assert expert(np.array([[0, 0, 1, 0]]), START) == [BACK]
    assert expert(np.array([[0, 1, 1, 0]]), LATER) == [FORWARD]
    assert expert(np.array([[0, 0, 0, 1]]), LATER) == [DOWN]


def test_the_culprit_is_looked_for_on_the_left_and_forgotten_after_the_episode():
    env = WitnessVote(1, num_suspects=3, corridor=2)
    expert = WitnessVoteExpert(env)
    away, seen = np.array([[0, 1, 0, 0, 0]]), np.array([[1, 0, 0, 0, 1]])
    left, right = 0, 2
    assert expert(away, START).tolist() == [[left, 0]]
    assert expert(seen, LATER).tolist() == [[right, 2]]
    assert expert(away, LATER).tolist() == [[right, 2]]
    assert expert(away, START).tolist() == [[left, 0]]


@pytest.mark.parametrize(("expert", "task"), [(TMazeExpert, "TMaze"), (WitnessVoteExpert, "WitnessVote")])
def test_an_expert_plays_its_own_task_alone(expert, task):
    with pytest.raises(TypeError, match=f"^envs=.*: it must be a {task}$"):
        expert(Counter(1))

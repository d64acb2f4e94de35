"""How the agent of a run is evaluated: seeds, settings, and what is said of episodes that were cut."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.launch import evaluations as evaluating
from experiments.launch.evaluations import (
    Evaluations,
    average_by_member,
    describe_final,
    estimate_gap_error,
    evaluate_agent,
    summarise_final,
    tag_returns,
)
from rl.agents import Population
from rl.training.evaluation import Evaluation


@pytest.fixture
def calls(monkeypatch):
    """What ``rl.training.evaluation.evaluate`` is called with; it returns 1 with memory and 0.25 without."""
    calls = []

    def evaluate(agent, envs, episodes, seed, **options):
        calls.append({"of": (agent, envs), "episodes": episodes, "seed": seed} | options)
        mean = 1.0 if options["memory"] else 0.25
        return Evaluation(np.array([mean]), np.array([1]), np.array([0]), cut=int(options["max_steps"] == 5))

    monkeypatch.setattr(evaluating, "evaluate", evaluate)
    return calls


@pytest.fixture
def make_evaluations():
    def make(**changes):
        values = {"evaluate_episodes": 7, "final_episodes": 9, "seed": 3, "evaluation_max_steps": 70}
        settings = SimpleNamespace(**values | {"evaluate_memory_zeroed": True} | changes)
        evaluations = Evaluations("agent", "envs", settings)
        evaluations.said = []
        evaluations.say = evaluations.said.append
        return evaluations

    return make


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("memory", [True, False])
def test_evaluation_has_seeds_of_its_own(calls, memory, greedy):
    evaluate_agent("agent", "envs", 7, 3, memory=memory, greedy=greedy, max_steps=8, progress="here")
    options = {"greedy": greedy, "memory": memory, "max_steps": 8, "progress": "here"}
    assert calls == [{"of": ("agent", "envs"), "episodes": 7, "seed": 1_000_003, **options}]


def test_memory_is_evaluated_on_the_same_episodes(calls, make_evaluations):
    tags = make_evaluations().play_between()
    same = {"of": ("agent", "envs"), "episodes": 7, "seed": 1_000_003, "greedy": True, "max_steps": 70}
    labels = [{"memory": True, "progress": "evaluation"}, {"memory": False, "progress": "evaluation, memory zeroed"}]
    assert calls == [same | label for label in labels]
    assert tags == {
        "eval/episodic_return": 1.0,
        "eval/episodic_return_memory_zeroed": 0.25,
        "diagnostics/memory_gap": 0.75,
        "diagnostics/memory_gap_stderr": 0.0,
    }


def test_the_evaluation_at_the_end_has_seeds_that_were_not_seen_before(calls, make_evaluations):
    kept, zeroed = make_evaluations().play_final()
    assert [(call["episodes"], call["seed"], call["memory"]) for call in calls] == [
        (9, 1_001_003, True),
        (9, 1_001_003, False),
    ]
    assert summarise_final(kept, zeroed) == {
        "eval_return_mean": 1.0,
        "eval_return_stderr": 0.0,
        "eval_episodes": 1,
        "eval_episodes_cut": 0,
        "memory_zeroed_return_mean": 0.25,
    }
    words = "return 1.000 +- 0.000 over 1 episodes (memory zeroed: 0.250)"
    assert describe_final(summarise_final(kept, zeroed)) == words


def test_the_control_without_memory_may_be_left_out(calls, make_evaluations):
    evaluations = make_evaluations(evaluate_memory_zeroed=False)
    assert evaluations.play_between() == {"eval/episodic_return": 1.0}
    result = summarise_final(*evaluations.play_final())
    assert [call["memory"] for call in calls] == [True, True]
    assert result["memory_zeroed_return_mean"] is None
    assert describe_final(result) == "return 1.000 +- 0.000 over 1 episodes"


def test_without_episodes_there_is_no_final_evaluation(calls, make_evaluations):
    result = summarise_final(*make_evaluations(final_episodes=0).play_final())
    assert calls == [] and describe_final(result) == "no final evaluation"
    assert result == {
        "eval_return_mean": None,
        "eval_return_stderr": None,
        "eval_episodes": 0,
        "eval_episodes_cut": 0,
        "memory_zeroed_return_mean": None,
    }


def test_episodes_that_were_cut_are_told_once(calls, make_evaluations):
    evaluations = make_evaluations(evaluation_max_steps=5)
    evaluations.play_between()
    evaluations.play_between()
    kept, _ = evaluations.play_final()
    assert evaluations.said == [
        "1 of 1 evaluation episodes had not ended after 5 steps and count with their return so far: raise "
        "evaluation_max_steps, or give evaluation_max_steps=null for no bound"
    ]
    assert summarise_final(kept, None)["eval_episodes_cut"] == 1


def test_members_of_a_population_have_means_of_their_own():
    """Rows 0 and 2 are the first seat's, row 1 the second's; a member that did not play has none."""
    population = Population.__new__(Population)
    population.seats, population.members = ["one", "other"], {"one": None, "other": None}
    played = Evaluation(np.array([1.0, 5.0, 2.0]), np.ones(3), np.array([0, 1, 2]))
    assert average_by_member(population, played) == {"one": 1.5, "other": 5.0}
    assert average_by_member(population, Evaluation(np.array([1.0]), np.ones(1), np.array([0]))) == {"one": 1.0}
    assert average_by_member("agent", played) == {}


def test_tags_without_the_control():
    assert tag_returns(Evaluation(np.array([2.0]), np.ones(1), np.zeros(1)), None) == {"eval/episodic_return": 2.0}


def test_the_error_of_the_memory_gap_comes_from_pairs_of_the_same_episode():
    """Row 0 plays 4 and 1 with memory, 3 and 2 without; row 1 plays 8 and 6: gaps 1, -1 and 2, of variance 7 / 3."""
    kept = Evaluation(np.array([8.0, 4.0, 1.0]), np.ones(3), np.array([1, 0, 0]))
    zeroed = Evaluation(np.array([3.0, 6.0, 2.0]), np.ones(3), np.array([0, 1, 0]))
    tags = tag_returns(kept, zeroed)
    assert tags["diagnostics/memory_gap"] == pytest.approx(2 / 3)
    assert tags["diagnostics/memory_gap_stderr"] == pytest.approx((7 / 3 / 3) ** 0.5)


def test_evaluations_of_other_numbers_of_episodes_are_no_pairs():
    """The environment of row 0 was cut in its first episode: returns 0, 2 and 0, 4 have errors of 1 and 2."""
    kept = Evaluation(np.array([0.0, 2.0]), np.ones(2), np.array([0, 1]), cut=1)
    zeroed = Evaluation(np.array([0.0, 4.0]), np.ones(2), np.array([1, 1]))
    assert estimate_gap_error(kept, zeroed) == pytest.approx(5**0.5)


class Three:
    """The middle one of three shards, whose others have played."""

    index, size = 1, 3

    def __init__(self, *others):
        self.others = others

    def gather(self, value):
        return [self.others[0], value, self.others[1]]


def test_shards_share_the_episodes_out_and_put_them_together(calls, make_evaluations):
    """Seven episodes in three shards: 3, 2 and 2; rows are counted on from shard to shard, four in each."""
    first = Evaluation(np.array([2.0, 3.0, 4.0]), np.array([1, 2, 3]), np.array([0, 1, 2]), cut=1)
    last = Evaluation(np.array([5.0, 6.0]), np.array([4, 5]), np.array([3, 0]), cut=1)
    evaluations = make_evaluations(evaluate_memory_zeroed=False)
    evaluations.shards, evaluations.envs = Three(first, last), SimpleNamespace(num_envs=4)
    kept, _ = evaluations.play(7, 3, "evaluation")
    assert (calls[0]["episodes"], calls[0]["progress"]) == (2, None)  # the first one alone shows a bar
    assert kept.returns.tolist() == [2.0, 3.0, 4.0, 1.0, 5.0, 6.0]
    assert kept.lengths.tolist() == [1, 2, 3, 1, 4, 5]
    assert kept.rows.tolist() == [0, 1, 2, 4, 11, 8]
    assert kept.cut == 2
    evaluations.shards = Three(first, None)  # of one episode the last ones play none
    assert evaluations.play(4, 3, "evaluation")[0].returns.tolist() == [2.0, 3.0, 4.0, 1.0]

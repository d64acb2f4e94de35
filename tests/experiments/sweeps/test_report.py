"""Which of the best trials is the best."""

from types import SimpleNamespace

from experiments.sweeps.report import find_best


def test_of_equal_trials_the_one_that_learned_the_fastest_is_the_best():
    def trial(number, value, *evaluations, state="COMPLETE"):
        told = dict(enumerate(evaluations))
        return SimpleNamespace(number=number, value=value, intermediate_values=told, state=SimpleNamespace(name=state))

    trials = [trial(0, 1.0, 0.0, 1.0), trial(1, 1.0, 0.5, 1.0), trial(2, 1.0, 0.2, 1.0), trial(3, 0.9, 0.9, 0.9)]
    trials.append(trial(4, None, 1.0, 1.0, state="RUNNING"))
    assert find_best(SimpleNamespace(get_trials=lambda deepcopy: trials)).number == 1

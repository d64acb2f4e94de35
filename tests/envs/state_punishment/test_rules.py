"""What events pay and risk: schedules, payoffs, and checks of what belongs to the five kinds."""

import numpy as np
import pytest

from envs.state_punishment.rules import (
    FIRST_KIND,
    NOTHING,
    SAND,
    SCHEDULES,
    WALL,
    Payoffs,
    draw_kinds,
    level_index,
    per_kind,
    probabilities,
)

# As printed in the reference: hundredths for the tables, three digits for the rule.
HEAD_A = [0.30, 0.40, 0.55, 0.70, 0.85, 0.95, 1, 1, 1, 1]
SEED_A = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95]
TABLE_B_TO_E = [
    [0.00, 0.00, 0.00, 0.00],
    [0.05, 0.00, 0.00, 0.00],
    [0.10, 0.00, 0.00, 0.00],
    [0.10, 0.05, 0.00, 0.00],
    [0.10, 0.10, 0.00, 0.00],
    [0.10, 0.10, 0.05, 0.00],
    [0.10, 0.10, 0.10, 0.00],
    [0.15, 0.10, 0.10, 0.05],
    [0.15, 0.15, 0.10, 0.10],
    [0.20, 0.15, 0.15, 0.10],
]
GENERATED = [
    [0.021, 0.035, 0.066, 0.137, 0.349],
    [0.026, 0.042, 0.079, 0.168, 0.445],
    [0.032, 0.049, 0.092, 0.202, 0.558],
    [0.037, 0.056, 0.106, 0.239, 0.688],
    [0.042, 0.063, 0.120, 0.279, 0.838],
    [0.047, 0.071, 0.135, 0.322, 1],
    [0.053, 0.078, 0.150, 0.368, 1],
    [0.058, 0.085, 0.165, 0.418, 1],
    [0.063, 0.092, 0.181, 0.472, 1],
    [0.068, 0.099, 0.197, 0.530, 1],
]
EVENTS = np.array([SAND, WALL, *range(FIRST_KIND, FIRST_KIND + 5), NOTHING])


def payoffs(**changes):
    arguments = {
        "schedule": "head",
        "values": (20, 10, 11, 12, 13),
        "harms": (5, 4, 3, 2, 1),
        "important_rule": False,
        "punishment_mode": "deterministic",
        "punishment_magnitude": 25,
    }
    return Payoffs(**arguments | changes)


def test_schedules_to_the_digits_that_are_printed():
    np.testing.assert_allclose(SCHEDULES["head"], np.column_stack([HEAD_A, TABLE_B_TO_E]), atol=1e-12)
    np.testing.assert_allclose(SCHEDULES["seed"], np.column_stack([SEED_A, TABLE_B_TO_E]), atol=1e-12)
    np.testing.assert_array_equal(np.round(SCHEDULES["generated"], 3), GENERATED)


def test_level_index_rounds_halves_to_even():
    halves = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 8.5]) / 9
    assert level_index(halves).tolist() == [0, 2, 2, 4, 4, 6, 8]
    assert level_index(np.arange(11) / 10).tolist() == [0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9]
    assert level_index(1 / 9) == 1 and level_index(np.ones(1)).dtype == np.int64


def test_what_each_event_pays_and_does_to_others():
    assert payoffs().worth[EVENTS].tolist() == [0, -1, 20, 10, 11, 12, 13, 0]
    assert payoffs().harm[EVENTS].tolist() == [0, 0, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_only_resources_are_punished_as_often_as_the_schedule_says(schedule):
    made = payoffs(schedule=schedule)
    np.testing.assert_array_equal(made.chances(), SCHEDULES[schedule])
    assert not made.punished[:, [SAND, WALL, NOTHING]].any()
    punishments = made.punish(np.random.default_rng(0), np.full(8, 7), EVENTS)
    np.testing.assert_allclose(punishments, [0, 0, *25 * SCHEDULES[schedule][7], 0])


def test_net_values_are_those_after_the_expected_punishment():
    """A at level index 3 of head: 20 - 25 * 0.7; C at 9: 11 - 25 * 0.15."""
    net = payoffs().net_values()
    assert net.shape == (10, 5)
    assert (net[3, 0], net[9, 2], net[0, 1]) == pytest.approx((2.5, 7.25, 10))


def test_a_punishment_is_a_matter_of_chance_or_of_its_expectation():
    events = np.repeat([FIRST_KIND, FIRST_KIND + 1, SAND], 4000)
    made = payoffs(punishment_mode="probabilistic")
    drawn = made.punish(np.random.default_rng(0), np.ones(12_000, dtype=np.int64), events).reshape(3, 4000)
    assert set(drawn.ravel()) == {0, 25} and not drawn[2].any()
    for shares, chance in ((drawn[0] == 25, 0.4), (drawn[1] == 25, 0.05)):
        assert abs(shares.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / 4000)


def test_the_important_rule_never_punishes_a_alone():
    made = payoffs(important_rule=True)
    assert not made.chances()[:, 0].any()
    np.testing.assert_array_equal(made.chances()[:, 1:], SCHEDULES["head"][:, 1:])
    assert SCHEDULES["head"][9, 0] == 1  # the schedule itself is left alone


def test_one_number_per_kind():
    np.testing.assert_array_equal(per_kind("x", [1, np.int64(2), 2.5, np.float32(0.5), -1]), [1, 2, 2.5, 0.5, -1])
    assert per_kind("x", np.arange(5), low=0).dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"punishment_magnitude": -1}, "punishment_magnitude=-1: it must be a number of at least 0"),
        ({"punishment_mode": "x"}, "punishment_mode='x': it must be one of 'probabilistic', 'deterministic'"),
        ({"schedule": "tail"}, "schedule='tail': it must be one of 'head', 'seed', 'generated'"),
    ],
)
def test_what_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        payoffs(**changes)


@pytest.mark.parametrize("values", ["abcde", 5, None, (1, 2, 3, 4), (1,) * 6, (1, 2, 3, 4, None), (0, 0, 0, 0, np.nan)])
def test_what_is_not_one_number_per_kind(values):
    with pytest.raises(ValueError, match=r"^harms=.*: it must be five numbers, for the kinds A to E$"):
        per_kind("harms", values)


def test_numbers_below_what_is_allowed():
    with pytest.raises(
        ValueError, match=r"^x=\(2, -1, 0, 0, 0\): it must be five numbers of at least 0, for the kinds"
    ):
        probabilities("x", (2, -1, 0, 0, 0))


def test_probabilities_add_up_to_one():
    assert probabilities("x", (0.5, 0.5, 0, 0, 1e-7)).tolist() == [0.5, 0.5, 0, 0, 1e-7]
    for values in ((0.5,) * 5, (0.2, 0.2, 0.2, 0.2, 0.19)):
        with pytest.raises(ValueError, match=r"^x=\(0\..*\): it must add up to 1$"):
            probabilities("x", values)


def test_kinds_are_drawn_with_their_chances():
    kinds = draw_kinds(np.random.default_rng(0), np.array([0.5, 0.2, 0.0, 0.1, 0.2]), (100, 400))
    assert kinds.dtype == np.int8 and kinds.shape == (100, 400)
    shares = np.bincount(kinds.ravel(), minlength=FIRST_KIND + 5)[FIRST_KIND:] / 40_000
    assert shares[2] == 0 and shares == pytest.approx([0.5, 0.2, 0, 0.1, 0.2], abs=0.01)

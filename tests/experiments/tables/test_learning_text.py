"""What the learning table says of its rows, by hand."""

from experiments.tables.learning_text import (
    CONTROLS,
    ELSEWHERE,
    HEAD,
    HEAD_ELSEWHERE,
    count_reached,
    format_table,
    summarise_row,
    take_median,
)


def outcome(final, hit=None, **changes):
    """What ``result.json`` of a run may hold."""
    return {
        "agent": "RecurrentPPOLSTM",
        "core": "gru",
        "optimal_return": 1.0,
        "memoryless_return": 0.5,
        "threshold": 0.95,
        "eval_return_mean": final,
        "memory_zeroed_return_mean": 0.4,
        "steps_to_threshold": hit,
        "seconds_to_threshold": None if hit is None else hit / 5000,
        "total_steps": 200_000,
        **changes,
    }


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


TEN = [outcome(final, hit=10_000 * (seed + 1)) for seed, final in enumerate([0.2, 0.95, *[0.96] * 3, *[1.0] * 5])]


def test_a_row_of_ten_seeds():
    """Middle six of 0.2, 0.95, 0.96, 0.96, 0.96, 1, 1, 1, 1, 1: without two on each side, 5.88 / 6."""
    summary = summarise_row({"label": "a maze"}, TEN, [])
    assert summary["reached"] == 9  # at the bar counts, though an earlier evaluation of the tenth had reached it
    assert round(summary["final_return"]["value"], 6) == round((0.96 * 3 + 1 * 3) / 6, 6)
    assert (summary["worst"], summary["best"], summary["control"], summary["seeds"]) == (0.2, 1.0, False, 10)
    head, rule, row = format_table({"maze": summary}).splitlines()
    assert cells(head) == list(HEAD) and head.count("|") == rule.count("|") == row.count("|")
    assert cells(row)[:5] == ["a maze", "RecurrentPPOLSTM, gru", "1 / 0.5", "0.95", "9 of 10"]
    low, high = (summary["final_return"][end] for end in ("low", "high"))
    assert 0.6 < low < 0.98 < high <= 1
    assert cells(row)[5:] == [f"0.98 [{low:.3g}, {high:.3g}]", "0.2 to 1", "0.4", "55 k", "11", "200 k"]


def test_what_is_not_known_is_not_said():
    runs = [outcome(None, threshold=None, optimal_return=None, memory_zeroed_return_mean=None)] * 2
    row = format_table({"pole": summarise_row({}, runs, [])}).splitlines()[2]
    assert cells(row) == ["pole", "RecurrentPPOLSTM, gru", "? / 0.5", "-", "-", "-", "-", "-", "-", "-", "200 k"]
    partly = summarise_row({}, [outcome(1.0), outcome(None)], [])
    assert (partly["reached"], partly["final_return"], partly["worst"]) == (None, None, None)


def test_at_the_bar_is_reached():
    assert count_reached([0.95, 0.9499, 1.0], 0.95) == 2
    assert count_reached([-250.0, -251.0], -250.0) == 1


def test_a_seed_that_never_gets_there_is_later_than_all():
    assert take_median([10.0, 30.0, None]) == 30
    assert take_median([10.0, None, None]) is None
    assert take_median([10.0, 20.0, None, None]) is None  # between the second and never
    assert take_median([10.0, 20.0, 40.0, None]) == 30


def test_controls_and_rows_played_elsewhere_stand_apart():
    """In the order of the configuration, each under what it is."""
    here = {"optimal_return": 2.0, "memoryless_return": 0.0}
    there = [here | {"overrides": ["env.length=100"], "mean": mean, "memory_zeroed": 0.3} for mean in (0.5, 0.96, 0.7)]
    three = [outcome(final, hit=10_000) for final in (0.9, 1.0, 1.0)]
    rows = {"far": {"evaluate": []}, "control": {"control": True}, "plain": {}}
    summaries = {name: summarise_row(row, three, there if name == "far" else []) for name, row in rows.items()}
    plain, rest = format_table(summaries).split(f"\n{CONTROLS}\n\n")
    control, far = rest.split(f"\n{ELSEWHERE}\n\n")
    assert [cells(part.splitlines()[-1])[0] for part in (plain, control, far)] == ["plain", "control", "far"]
    assert [len(part.splitlines()) for part in (plain, control, far)] == [3, 3, 3]
    head, _, row = far.splitlines()
    assert cells(head) == list(HEAD_ELSEWHERE)
    assert cells(row) == [
        *("far", "RecurrentPPOLSTM, gru", "2 / 0", "0.95", "2 of 3", "0.967 [0.9, 1]"),
        *("length=100", "1 of 3", "0.72 [0.5, 0.96]", "0.5 to 0.96", "0.3"),
    ]

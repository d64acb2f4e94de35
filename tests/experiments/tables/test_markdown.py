"""Tables in Markdown, by hand."""

from experiments.tables.markdown import format_number, format_seeds, write_table


def test_a_table():
    assert write_table(["task", "a"], [["x", "1"], ["y", "2"]]).splitlines() == [
        "| task | a |",
        "| --- | --- |",
        "| x | 1 |",
        "| y | 2 |",
    ]


def test_mean_and_standard_error_of_seeds():
    """1, 2, 6: mean 3, sum of squares 4 + 1 + 9 = 14, 14 / 2 = 7, sqrt(7 / 3) = 1.53."""
    assert format_seeds([1.0, 2.0, 6.0], 3) == "3 +- 1.5"
    assert format_seeds([1.0, 2.0, 6.0], 4) == "3 +- 1.5 (3 of 4 seeds)"
    assert format_seeds([2.5], 1) == "2.5"
    assert format_seeds([], 3) == "failed"


def test_numbers_have_no_exponent():
    assert [format_number(value) for value in (0.000123456, -0.5, 12.345, 1234.5, 2e6)] == [
        "0.000123",
        "-0.5",
        "12.3",
        "1,234",
        "2,000,000",
    ]

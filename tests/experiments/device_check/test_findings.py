import pytest

from experiments.device_check.findings import Finding


@pytest.mark.parametrize(
    ("options", "passed", "broken"),
    [
        ({}, None, []),
        ({"most": {"x": 2.0}}, True, []),
        ({"most": {"x": 1.5}}, False, ["x > 1.5"]),
        ({"least": {"x": 2.5}, "most": {"x": 3.0}}, False, ["x < 2.5"]),
        ({"most": {"nothing": 1.0}}, False, ["nothing > 1"]),
        ({"failed": True}, False, []),
        ({"failed": True, "most": {"x": 2.0}}, False, []),
    ],
    ids=str,
)
def test_bounds(options, passed, broken):
    """A number that is none keeps no bound."""
    finding = Finding("a line", {"x": 2.0, "nothing": float("nan")}, **options)
    assert (finding.passed, finding.broken) == (passed, broken)

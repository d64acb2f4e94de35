"""Agents compared over tasks: which runs, on which scale, and what is drawn."""

import json

import matplotlib
import numpy as np
import pytest

from experiments.launch.check import ConfigError
from experiments.tables import comparisons
from experiments.tables.comparisons import (
    NO_INTERVAL,
    draw_efficiency,
    draw_improvement,
    draw_profile,
    find_scales,
    keep_shared,
    name_scale,
    read_final_returns,
)

matplotlib.use("Agg")
LINES = {
    "gru": {"maze": [0.5, 1.0, 1.0], "pole": [10.0, 20, 30]},
    "lstm": {"maze": [0.5, 0.5, 1.0], "pole": [5.0, 5, 5]},
}
SCALES = {"maze": (0.5, 1.0), "pole": (0.0, 30.0)}


@pytest.fixture
def drawn(cwd, monkeypatch):
    """``drawn(draw, ...)``: the axis and the caption of the figure that a function draws."""
    kept = []
    monkeypatch.setattr(comparisons, "put_caption", lambda figure, told: kept.append((figure.axes[0], " ".join(told))))

    def call(draw, *arguments):
        draw(*arguments)
        return kept.pop()

    return call


@pytest.fixture
def folders(tmp_path):
    """``folders(name={...})``: run folders that hold these results; None for one without."""

    def make(**results):
        for name, result in results.items():
            (tmp_path / name).mkdir()
            if result is not None:
                (tmp_path / name / "result.json").write_text(json.dumps(result))
        return [tmp_path / name for name in results]

    return make


def test_final_returns_by_agent_and_task(folders):
    results = {"a": {"eval_return_mean": 1}, "b": {"eval_return_mean": 2.5}, "c": None, "d": {"eval_return_mean": None}}
    a, b, c, d = folders(**results)
    lines, lacking = read_final_returns({folder: ("maze", "gru") for folder in (a, b, c, d)})
    assert lines == {"gru": {"maze": [1.0, 2.5]}} and lacking == [c, d]
    with pytest.raises(ConfigError, match="none of the runs has a final return"):
        read_final_returns({c: ("maze", "gru")})


def test_tasks_that_not_every_agent_has_played():
    kept, left_out = keep_shared({"b": {"y": [1], "x": [2]}, "a": {"x": [3], "z": [4]}})
    assert kept == {"a": {"x": [3]}, "b": {"x": [2]}} and list(kept) == ["a", "b"] and left_out == ["y", "z"]
    with pytest.raises(ConfigError, match="no task that all of a; b have played"):
        keep_shared({"b": {"y": [1]}, "a": {"x": [3]}})


def test_scales(folders):
    """From the command line, else from the results of runs; a single task may do without."""
    known, unknown = {"memoryless_return": 0.5, "optimal_return": 1.0}, {"optimal_return": 500.0}
    maze, pole = folders(maze=known, pole=unknown)
    labels = {maze: ("TMaze (length=3)", "gru"), pole: ("Pole-v1", "gru")}
    tasks = [task for task, _ in labels.values()]
    assert find_scales(tasks, labels, {"Pole-v1": [0, 500]}) == {"TMaze (length=3)": (0.5, 1), "Pole-v1": (0, 500)}
    assert find_scales(tasks[:1], labels, {"TMaze": [-1, 1]}) == {"TMaze (length=3)": (-1, 1)}
    assert find_scales(tasks[1:], labels, {}) == {"Pole-v1": (0, 1)}
    with pytest.raises(ConfigError, match=r"of Pole-v1 are not known: give .* bounds.Pole-v1=\[LOW,HIGH\]"):
        find_scales(tasks, labels, {})
    with pytest.raises(ConfigError, match=r"bounds\.TMase: no run is on TMase; did you mean TMaze"):
        find_scales(tasks, labels, {"TMase": [0, 1]})
    for pair in ([1, 0], [0], 3, ["a", 1]):
        with pytest.raises(ConfigError, match=r"bounds.TMaze=.*: it must be \[LOW,HIGH\]"):
            find_scales(tasks, labels, {"TMaze": pair})


def test_the_scale_is_named():
    assert name_scale({"a": (0.0, 1.0)}, "return") == "return"
    assert name_scale({"a": (0.5, 1.0), "b": (0.5, 1.0)}, "return") == "return, 0.5 to 1 as 0 to 1"
    assert name_scale(SCALES, "return") == "return, normalised by task"


def test_profile(drawn, cwd):
    """Scores of gru: 0, 1, 1 and 1/3, 2/3, 1: above 0.5 are 2/3 of each task."""
    axis, caption = drawn(draw_profile, LINES, SCALES, cwd / "profile.png", "ci")
    gru, lstm = axis.lines
    levels, shares = gru.get_xdata(), gru.get_ydata()
    np.testing.assert_allclose(np.interp([-0.02, 0.2, 0.5, 0.8], levels, shares), [1, 5 / 6, 2 / 3, 0.5])
    np.testing.assert_allclose(np.interp([0.1, 0.5], levels, lstm.get_ydata()), [(1 / 3 + 1) / 2, 1 / 6])
    assert shares[0] == 1 and shares[-1] == 0
    assert len(axis.collections) == 2 and "Band: 95 %" in caption
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["gru (6 runs)", "lstm (6 runs)"]
    assert axis.get_title() == "2 tasks"
    few = {"gru": {"maze": [0.0, 1.0]}}
    axis, caption = drawn(draw_profile, few, {"maze": (0.0, 1.0)}, cwd / "profile.png", "ci")
    assert not axis.collections and caption.endswith(NO_INTERVAL)


def test_improvement(drawn, cwd):
    """On the maze 4 of 9 pairs are won and 4 tied, on the pole all are won."""
    axis, caption = drawn(draw_improvement, LINES, cwd / "improvement.png", "ci")
    point, _ = axis.lines
    np.testing.assert_allclose(point.get_xdata(), ((4 + 4 / 2) / 9 + 1) / 2)
    (bar,) = axis.collections
    low, high = bar.get_segments()[0][:, 0]
    assert low < point.get_xdata()[0] < high <= 1
    assert [label.get_text() for label in axis.get_yticklabels()] == ["gru (6 runs)\nover lstm (6 runs)"]
    assert "ties count half" in caption and "Bar: 95 %" in caption
    with pytest.raises(ConfigError, match="kind=improvement compares agents: all runs are of gru"):
        draw_improvement({"gru": LINES["gru"]}, cwd / "improvement.png", "ci")


def test_efficiency(drawn, cwd):
    """The interquartile mean of all runs of all tasks on their scales."""
    steps = np.array([10, 20])
    maze = [(steps, np.array([0.5, end])) for end in (0.5, 0.75, 1.0)]
    pole = [(steps, np.array([0.0, end])) for end in (30.0, 30.0, 30.0)]
    panels = {"maze": {"gru": maze}, "pole": {"gru": pole}}
    axis, caption = drawn(draw_efficiency, panels, SCALES, "tag", cwd / "efficiency.png", "ci")
    (line,) = axis.lines
    assert line.get_ydata().tolist() == [0, (0.5 + 1 + 1 + 1) / 4]  # of 0, 0.5, 1, 1, 1, 1 the middle four
    assert len(axis.collections) == 1 and "Line: interquartile mean" in caption and "Band: its 95 %" in caption
    apart = {"maze": {"gru": [(steps, steps), (steps + 50, steps)]}}
    with pytest.raises(ConfigError, match="gru: its runs have no steps in common"):
        draw_efficiency(apart, SCALES, "tag", cwd / "efficiency.png", "ci")


def test_each_of_three_tasks_has_its_own_scale(tmp_path, monkeypatch):
    """All runs lie in the middle of theirs; with two tasks some slips do not show."""
    kept = []
    monkeypatch.setattr(comparisons, "put_caption", lambda figure, told: kept.append(figure.axes[0]))
    scales = {"a": (0.0, 2.0), "b": (0.0, 20.0), "c": (0.0, 200.0)}
    steps = np.array([0, 10])
    panels = {task: {"gru": [(steps, np.full(2, high / 2))] * 3} for task, (_, high) in scales.items()}
    draw_efficiency(panels, scales, "return", tmp_path / "x.png", None)
    (line,) = kept[0].get_lines()
    assert line.get_ydata().tolist() == pytest.approx([0.5, 0.5])

"""Which curves stand in which panel."""

import numpy as np
import pytest

from experiments.watching.panels import MANY_LEAVES, Line, Pair, Panel, describe_numbers, make_panels
from rl.training.watching import WatchedEpisode

NAN = float("nan")


def told(panels):
    return {panel.title: [(line.label, line.values.tolist(), line.colour) for line in panel.lines] for panel in panels}


def test_leaves_and_branches_have_a_curve_each(make_track):
    track = make_track([1, 2], norm__h=[1, 2], norm__c=[3, 4], entropy__move=[5, 6], entropy__vote=[7, 8], value=[9, 9])
    assert told(make_panels(Pair(1, WatchedEpisode([track], [])))) == {
        "norm of the memory": [("h", [1, 2], 0), ("c", [3, 4], 1)],
        "entropy of the policy (nats)": [("move", [5, 6], 0), ("vote", [7, 8], 1)],
        "value estimate": [("", [9, 9], 0)],
        "reward": [("", [1, 2], 0)],
        "return so far": [("", [1, 3], 0)],
    }


def test_what_is_zeroed_lies_over_what_is_kept(pair):
    values, *_ = [panel for panel in make_panels(pair) if panel.title == "value estimate"]
    assert [(line.zeroed, line.colour, len(line.values)) for line in values.lines] == [(False, 0, 3), (True, 0, 2)]
    assert values.find_range() == (0.1, 1.0)


def test_many_leaves_have_one_curve(make_track):
    """Their norm together: the root of the sum of the squares."""
    track = make_track([0], value=[0], **{f"norm__leaf_{i}": [2.0] for i in range(MANY_LEAVES + 1)})
    (line,) = make_panels(Pair(1, WatchedEpisode([track], [])))[0].lines
    assert line.label == "" and line.values == pytest.approx([np.sqrt(4 * (MANY_LEAVES + 1))])


def test_players_of_a_world_have_a_curve_each(make_track):
    """With the entropy of all branches together, and a gap where one does not take part; no panel without a curve."""
    one = make_track([1, 1], "a", entropy__move=[1, 2], entropy__vote=[3, 4], value=[0, 0])
    two = make_track([5, NAN], "b", mean_q=[6, NAN], value=[7, NAN])
    shown = told(make_panels(Pair(1, WatchedEpisode([one, two], []))))
    assert shown["entropy of the policy (nats)"] == [("0 a", [4, 6], 0)]
    assert [(label, colour) for label, _, colour in shown["value estimate"]] == [("0 a", 0), ("1 b", 1)]
    assert "norm of the memory" not in shown and shown["mean value of all actions"][0][0] == "1 b"
    label, values, _ = shown["return so far"][1]
    assert (label, values[0]) == ("1 b", 5) and np.isnan(values[1])


def test_a_flat_curve_has_room_and_zero_no_sign():
    assert Panel("", [Line("", np.array([2.0, 2.0]), 0)]).find_range() == (1.5, 2.5)
    low, high = Panel("", [Line("", np.array([-0.0, 1.0, NAN]), 0)]).find_range()
    assert (str(low), high) == ("0.0", 1.0)


def test_the_longer_episode_tells_how_many_moments_there_are(pair):
    assert pair.moments == 3
    pair.zeroed.pictures = [0, 1, 2, 3]
    assert pair.moments == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64(3), "3"),
        (np.array([0.5, 1 / 3], dtype=np.float32), "0.5 0.333"),
        ({"a": np.array([1]), "b": (np.array([2.0]), "word")}, "a: 1\nb.0: 2\nb.1: word"),
        (np.arange(100).reshape(10, 10), "10 x 10 numbers, 0 to 99, mean 49.5"),
    ],
)
def test_observations_as_text(value, text):
    assert describe_numbers(value) == text

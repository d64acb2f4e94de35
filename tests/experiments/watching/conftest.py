"""Shared by the tests of watching: episodes made by hand."""

import numpy as np
import pytest

from experiments.watching.panels import Pair
from rl.training.watching import Track, WatchedEpisode


@pytest.fixture
def make_track():
    """A track of as many steps as there are rewards; its curves are given by name."""

    def make(rewards, name="", end="terminated", **curves):
        named = {key.replace("__", "/"): np.array(values, dtype=np.float64) for key, values in curves.items()}
        seen, done = [np.array([step, 0.5]) for step in range(len(rewards))], list(range(len(rewards)))
        return Track(name, seen, done, np.array(rewards, dtype=np.float64), named, end)

    return make


@pytest.fixture
def pair(make_track):
    """Three steps with the memory kept and two with it zeroed, without pictures."""
    noted = {"value": [0.5, 0.25, 1.0], "norm__h": [1.0, 2.0, 3.0], "norm__c": [4.0, 5.0, 6.0]}
    kept = make_track([0, 0, 1], entropy__action=[0.7, 0.6, 0.5], **noted)
    zeroed = make_track([0, -1], value=[0.5, 0.1], norm__h=[1, 0], norm__c=[4, 0], entropy__action=[0.7, 0.69])
    return Pair(7, WatchedEpisode([kept], []), WatchedEpisode([zeroed], []))

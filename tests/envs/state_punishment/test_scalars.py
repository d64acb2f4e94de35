"""The numbers that an agent observes beside its picture."""

import numpy as np
import pytest

from envs.state_punishment.scalars import Scalars

HARM = np.array([0, 0, 5, 1, 0, 0, -2.5, 0])
LEVEL, ACCOUNT = np.array([0.25, 0.5]), np.arange(6.0)
VOTING = np.array([True] * 3 + [False] * 3)
RECENT = np.array([2, 1, 0, 2, 2, 1])  # 2: punished with the last action


def scalars(**changes):
    shown = {"level": True, "account": True, "phased": False, "punishment": False, "others": False}
    return Scalars(3, HARM, **shown | changes)


def seen(**changes):
    """Two worlds of three agents."""
    made = scalars(**changes)
    observed = made.observe(LEVEL, ACCOUNT, VOTING if made.phased else None, RECENT)
    assert observed.dtype == np.float32 and observed.shape == (6, *made.space.shape)
    return observed.T.tolist()


def test_level_and_account_come_first():
    assert seen() == [[0.25] * 3 + [0.5] * 3, [0, 1, 2, 3, 4, 5], [0] * 6]


def test_what_is_hidden_reads_zero():
    assert seen(level=False, account=False) == [[0] * 6] * 3


@pytest.mark.parametrize(
    ("changes", "third", "rest"),
    [
        ({"punishment": True}, [1, 0, 0, 1, 1, 0], []),
        ({"phased": True}, [1, 1, 1, 0, 0, 0], []),
        ({"phased": True, "punishment": True}, [1, 1, 1, 0, 0, 0], [[1, 0, 0, 1, 1, 0]]),
    ],
)
def test_the_phase_takes_the_place_of_the_own_punishment(changes, third, rest):
    assert seen(**changes)[2:] == [third, *rest]
    places = {"punishment": 2, "phased": None} | ({"punishment": 3} if rest else {})
    assert scalars(**changes).punishment == (places["punishment"] if "punishment" in changes else None)


def test_the_punishments_of_the_others_come_last_in_the_order_of_the_agents():
    others = [[0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]]  # of agents 0, 1, 2: (1, 2), (0, 2), (0, 1)
    assert seen(others=True)[2:] == [[0] * 6, *others]
    own = [1, 0, 0, 1, 1, 0]
    assert seen(others=True, punishment=True)[2:] == [own, *others]
    assert seen(others=True, punishment=True, phased=True)[2:] == [[1, 1, 1, 0, 0, 0], own, *others]


def test_an_agent_alone_has_no_others():
    alone = Scalars(1, HARM, level=True, account=True, phased=False, punishment=True, others=True)
    assert alone.observe(np.array([0.5]), np.array([0.0]), None, np.array([2])).tolist() == [[0.5, 0, 1]]


def test_the_space_holds_the_greatest_account():
    """Two others take the most harmful kind, or the one that does good."""
    assert (scalars().space.low[1], scalars().space.high[1]) == (-5, 10)
    assert scalars().space.low[[0, 2]].tolist() == [0, 0] and scalars().space.high[[0, 2]].tolist() == [1, 1]
    harmless = Scalars(3, np.zeros(8), level=True, account=True, phased=False, punishment=False, others=False)
    assert (harmless.space.low[1], harmless.space.high[1]) == (0, 1)

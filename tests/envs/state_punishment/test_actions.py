"""The four ways to spell a move and a vote."""

import numpy as np
import pytest
from gymnasium import spaces

from envs.state_punishment.actions import ActionSet

COUNTS = [("dual", 12), ("simple", 7), ("composite", 13), ("factored", 15)]
COUNTS_OF_A_MENU = [("dual", 12), ("simple", 6), ("composite", 10), ("factored", 12)]
MOVES = {"up": 0, "down": 1, "left": 2, "right": 3, "stay": 4, "vote": 4, "noop": 4}
ARMS = {"opt1": 0, "opt2": 1, "opt3": 2, "pick": None, "leave": 3, "vote": 3, "noop": 3}


def decode_all(actions):
    """Codes, moves and votes of all actions of a set, in order."""
    if isinstance(actions.space, spaces.MultiDiscrete):
        every = np.array([divmod(code, 3) for code in range(len(actions.names))])
    else:
        every = np.arange(len(actions.names))
    assert all(action in actions.space for action in every)
    return [array.tolist() for array in actions.decode(every)]


@pytest.mark.parametrize(("kind", "count"), COUNTS)
def test_every_action_means_what_its_name_says(kind, count):
    """Names in the order of decoding (defect 27), for every code."""
    actions = ActionSet(kind, None)
    codes, moves, votes = decode_all(actions)
    assert codes == list(range(count)) and len(set(actions.names)) == count
    for name, move, vote in zip(actions.names, moves, votes, strict=True):
        assert move == MOVES[name.split("_")[0]]
        assert vote == (1 if "increase" in name else 2 if "decrease" in name else 0)


@pytest.mark.parametrize(("kind", "count"), COUNTS_OF_A_MENU)
def test_every_action_of_a_menu_means_what_its_name_says(kind, count):
    actions = ActionSet(kind, 3)
    codes, moves, votes = decode_all(actions)
    assert codes == list(range(count)) and len(set(actions.names)) == count
    for name, move, vote in zip(actions.names, moves, votes, strict=True):
        arm = ARMS[name.split("_")[0]]
        assert move == (int(name[-1]) - 1 if arm is None else arm)
        assert vote == (1 if "increase" in name else 2 if "decrease" in name else 0)


def test_codes_that_others_rely_on():
    assert ActionSet("simple", None).names == (
        *("up", "down", "left", "right"),
        *("vote_increase", "vote_decrease", "noop"),
    )
    composite = ActionSet("composite", None).names
    assert composite[:4] == ("up_no_vote", "up_increase", "up_decrease", "down_no_vote") and composite[12] == "noop"
    assert ActionSet("simple", 2).names == ("pick_1", "pick_2", "noop", "vote_increase", "vote_decrease")


def test_each_set_has_a_space_of_its_own():
    """Composite and simple are no dead flags (defect 26)."""
    made = {kind: ActionSet(kind, None) for kind, _ in COUNTS}
    assert made["dual"].space == spaces.MultiDiscrete([4, 3])
    assert made["factored"].space == spaces.MultiDiscrete([5, 3])
    assert made["simple"].space == spaces.Discrete(7) and made["composite"].space == spaces.Discrete(13)
    menu = {kind: ActionSet(kind, 3).space for kind, _ in COUNTS}
    assert menu["dual"] == menu["factored"] == spaces.MultiDiscrete([4, 3])
    assert menu["simple"] == spaces.Discrete(6) and menu["composite"] == spaces.Discrete(10)
    assert {kind: actions.branch_names for kind, actions in made.items()} == {
        **dict.fromkeys(("dual", "factored"), ("move", "vote")),
        **dict.fromkeys(("simple", "composite")),
    }


@pytest.mark.parametrize("kind", ["dual", "simple", "composite", "factored"])
@pytest.mark.parametrize("num_arms", [None, 3])
def test_moves_without_a_vote_are_encoded(kind, num_arms):
    actions = ActionSet(kind, num_arms)
    moves = np.arange(4 if kind == "dual" else actions.rest + 1)
    _, back, votes = actions.decode(actions.encode(moves))
    assert back.tolist() == moves.tolist() and not votes.any()


def test_dual_agents_in_a_grid_cannot_stay():
    with pytest.raises(ValueError, match="the action set dual has no action for staying in place"):
        ActionSet("dual", None).encode(np.array([1, 4]))


def test_unknown_sets():
    allowed = "'dual', 'simple', 'composite', 'factored'"
    with pytest.raises(ValueError, match=f"^actions='flat': it must be one of {allowed}$"):
        ActionSet("flat", None)

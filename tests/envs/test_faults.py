"""Whose fault it is, and where."""

import pytest

from envs.checks import positive
from envs.faults import UserCodeError, blaming, describe_fault, find_users_frame, is_foreign, is_users, read_message


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("not even this")


def caught(call):
    with pytest.raises(BaseException) as info:
        call()
    return info.value


def test_a_message_is_one_line_and_not_too_long():
    assert read_message(ValueError(" first\n   second ")) == "first second"
    assert read_message(ValueError("x" * 600)) == "x" * 500 + "..."
    assert read_message(MuteError()) == "its message cannot be read"


@pytest.mark.parametrize(
    ("path", "users", "foreign"),
    [
        ("/home/me/my_env.py", True, True),
        ("/venv/lib/python3.11/site-packages/minigrid/core.py", False, True),
        ("/venv/lib/python3.11/site-packages/gymnasium/core.py", False, False),
        ("/usr/lib/python3/dist-packages/torch/nn.py", False, False),
        ("<frozen importlib._bootstrap>", False, False),
        (pytest.importorskip("json").__file__, False, False),
        (pytest.importorskip("envs.guest").__file__, False, False),
    ],
)
def test_whose_a_file_is(path, users, foreign):
    assert (is_users(path), is_foreign(path)) == (users, foreign)


def test_the_place_is_the_innermost_frame_of_the_user():
    """Not that of our own function, nor of the standard library, which it called."""

    def theirs():
        positive(num_envs=0)

    error = caught(theirs)
    line = theirs.__code__.co_firstlineno + 1
    assert describe_fault(error) == (
        f"ValueError: num_envs=0: it must be a whole number of at least 1 (tests/envs/test_faults.py, line {line}, "
        "in theirs)"
    )


def test_a_fault_that_caused_another_one_is_found():
    try:
        raise ValueError("ours") from caught(lambda: {}["x"])
    except ValueError as error:
        assert find_users_frame(error.with_traceback(None)).name == "<lambda>"
        assert find_users_frame(error, causes=False) is None
    assert find_users_frame(ValueError("raised nowhere")) is None
    assert describe_fault(StopIteration()) == "StopIteration"


@pytest.mark.parametrize("kind", [KeyError, SystemExit, GeneratorExit, MuteError])
def test_whatever_code_of_the_user_raises_is_told(kind):
    told = pytest.raises(UserCodeError, match=f"^the thing: {kind.__name__}.*test_faults.py, line")
    with told as info, blaming("the thing"):
        raise kind
    assert type(info.value.__cause__) is kind


def test_an_error_that_is_not_of_the_users_code_stays_what_it_is():
    error = ValueError("a sentence")
    with pytest.raises(ValueError, match=r"^a sentence$"):
        throw(error)
    with pytest.raises(KeyboardInterrupt), blaming("the thing"):
        raise KeyboardInterrupt


def throw(error):
    """Raises it without a frame of this file in its traceback."""
    guard = blaming("the thing")
    guard.__enter__()
    guard.__exit__(type(error), error, None)
    raise error.with_traceback(None)

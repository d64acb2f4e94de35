import numpy as np
import pytest

from envs.popgym_env import make_popgym

pytest.importorskip("popgym", reason="popgym is of the extra `envs`")


def test_a_short_name():
    """The symbol of four steps ago is paid for, in an episode of 52 cards that is worth 1 at most."""
    env = make_popgym("RepeatPreviousEasy", 1)
    obs, _ = env.reset(seed=0)
    seen, paid, ended = [int(obs[0])], 0.0, False
    while not ended:
        action = seen[-4] if len(seen) >= 4 else 0
        obs, rewards, terminated, truncated, _ = env.step(np.array([action]))
        seen.append(int(obs[0]))
        paid, ended = paid + rewards[0], bool(terminated[0] or truncated[0])
    assert paid == pytest.approx(1.0)


def test_keys_of_the_task():
    env = make_popgym("AutoencodeEasy", 3, num_decks=2)
    assert env.num_envs == 3


def test_an_unknown_task():
    with pytest.raises(
        ValueError, match=r"Unknown environment id 'popgym-Repeat-v0'; the nearest known ids are popgym-"
    ):
        make_popgym("Repeat", 1)

import numpy as np
import pytest

from envs.popgym_env import make_popgym

pytest.importorskip("popgym", reason="popgym is of the extra `envs`")


@pytest.mark.parametrize("options", [{}, {"k": 7, "num_decks": 2}])
def test_a_short_name(options):
    """Who names the symbol that was shown k - 1 steps ago is paid 1 in all; keys of the task reach it."""
    env = make_popgym("RepeatPreviousEasy", 1, **options)
    obs, _ = env.reset(seed=0)
    seen, paid, ended, k = [int(obs[0])], 0.0, False, options.get("k", 4)
    while not ended:
        obs, rewards, terminated, truncated, _ = env.step(np.array([seen[-k] if len(seen) >= k else 0]))
        seen.append(int(obs[0]))
        paid, ended = paid + rewards[0], bool(terminated[0] or truncated[0])
    assert paid == pytest.approx(1.0, abs=0.03)
    assert len(seen) >= 51 * options.get("num_decks", 1)


def test_an_unknown_task():
    with pytest.raises(
        ValueError, match=r"Unknown environment id 'popgym-Repeat-v0'; the nearest known ids are popgym-"
    ):
        make_popgym("Repeat", 1)

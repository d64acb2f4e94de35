"""Which episodes an evaluation counts: exactly those asked for, none forever."""

from functools import partial

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import Counter
from envs.single_env import SingleEnv
from rl import cores
from rl.agents import RecurrentPPO
from rl.training.evaluation import Evaluation, evaluate, make_bar, share_episodes


@pytest.fixture
def agent():
    envs = Counter(2)
    options = {"layer_size": 8, "num_steps": 8, "bptt": 4, "num_minibatches": 1, "seed": 0, "num_envs": 3}
    return RecurrentPPO(
        envs.single_observation_space, envs.single_action_space, core=partial(cores.gru, hidden_size=8), **options
    )


def test_the_episodes_of_each_environment_are_fixed_beforehand(agent):
    """Rows of 1 and 4 steps with returns 0 and 0+1+2+3 = 6. Of 5 episodes the first row plays 3, the second 2."""
    envs = Counter(2, [1, 4])
    result = evaluate(agent, envs, 5, seed=0)
    assert result.returns.tolist() == [0, 0, 0, 6, 6]
    assert result.lengths.tolist() == [1, 1, 1, 4, 4]
    assert result.rows.tolist() == [0, 0, 0, 1, 1]
    assert (result.mean, result.cut) == (2.4, 0)
    assert result.stderr == pytest.approx(np.sqrt((3 * 2.4**2 + 2 * 3.6**2) / 4) / np.sqrt(5))


@pytest.mark.parametrize(
    ("episodes", "shares"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (4, [2, 1, 1]), (8, [3, 3, 2])]
)
def test_exactly_the_episodes_asked_for_are_shared_out(episodes, shares):
    assert share_episodes(episodes, 3).tolist() == shares


@pytest.mark.parametrize(("episodes", "steps"), [(1, 1), (3, 4), (4, 8)])
def test_an_evaluation_stops_as_soon_as_all_have_played_their_share(agent, episodes, steps):
    """Rows of 1 and 4 steps."""
    envs, taken = Counter(2, [1, 4]), []
    original = envs.step
    envs.step = lambda actions: taken.append(1) or original(actions)
    assert len(evaluate(agent, envs, episodes, seed=0).returns) == episodes
    assert len(taken) == steps


# ------------------------------------------------------------------------------------------------ episodes without end


@pytest.mark.parametrize(("max_steps", "cut", "lengths"), [(4, 0, [1, 1, 1, 4, 4]), (3, 1, [1, 1, 1, 3])])
def test_an_episode_that_is_too_long_counts_as_it_is(agent, max_steps, cut, lengths):
    """Rows of 1 and 4 steps; the second is cut at 0+1+2 = 3, and plays no further. 4 steps are not too long for it."""
    envs = Counter(2, [1, 4])
    result = evaluate(agent, envs, 5, seed=0, max_steps=max_steps)
    assert result.lengths.tolist() == lengths and result.cut == cut
    assert result.returns[-1] == (3 if cut else 6)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_the_bound_counts_no_step_that_only_resets(agent, mode):
    """Episodes of 1 and 4 steps, with or without a step between them."""
    made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n) for n in (1, 4)]
    envs = SyncVectorEnv(made, autoreset_mode=mode)
    assert evaluate(agent, envs, 6, seed=0, max_steps=4).cut == 0
    assert evaluate(agent, envs, 6, seed=0, max_steps=3).cut == 1


class Survivor(Counter):
    """A world of two agents: the first ends after 2 steps and then only watches the second, who plays forever."""

    def __init__(self):
        super().__init__(2, [2, 10**9])
        self.metadata = {**self.metadata, "ignores_steps": True}
        self.over = False

    def step(self, actions):
        obs, rewards, terminated, truncated, info = super().step(actions)
        ignored = np.array([self.over, False])
        self.over |= bool(terminated[0] or truncated[0])
        return (
            obs,
            np.where(ignored, 0, rewards),
            terminated & ~ignored,
            truncated & ~ignored,
            info | {"ignored": ignored},
        )


def test_an_agent_whose_world_goes_on_without_it_is_not_waited_for(agent):
    result = evaluate(agent, Survivor(), 4, seed=0, max_steps=6)
    assert result.lengths.tolist() == [2, 6] and result.cut == 1


@pytest.mark.parametrize("max_steps", [0, 2.5])
def test_the_bound_is_a_number_of_steps(agent, max_steps):
    envs = Counter(2)
    with pytest.raises(ValueError, match=rf"^max_steps={max_steps}: it must be a whole number of at least 1$"):
        evaluate(agent, envs, 2, max_steps=max_steps)


def test_a_bar_is_shown_where_it_is_asked_for_and_on_a_terminal_only(agent, monkeypatch, capsys):
    assert make_bar(None, 3).disable and make_bar("evaluation", 3).disable  # stderr is no terminal here
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    envs = Counter(2, 2)
    evaluate(agent, envs, 3, seed=0)
    assert capsys.readouterr().err == ""
    evaluate(agent, envs, 3, seed=0, progress="evaluation")
    assert "evaluation:" in capsys.readouterr().err


def test_late_resets_count_neither_as_steps_nor_as_episodes(agent):
    made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n) for n in (1, 4)]
    envs = SyncVectorEnv(made, autoreset_mode=AutoresetMode.NEXT_STEP)
    result = evaluate(agent, envs, 6, seed=0)
    assert sorted(result.returns) == [0, 0, 0, 6, 6, 6]
    assert sorted(result.lengths) == [1, 1, 1, 4, 4, 4]


def test_a_single_episode_has_no_standard_error():
    assert Evaluation(np.array([2.0]), np.array([3]), np.array([0])).stderr == 0.0
    two = Evaluation(np.array([1.0, 3.0]), np.array([3, 3]), np.array([0, 1]))
    assert two.stderr == pytest.approx(np.sqrt(2) / np.sqrt(2))


@pytest.mark.parametrize("episodes", [0, -1, 2.5])
def test_there_must_be_an_episode_to_play(agent, episodes):
    envs = Counter(2)
    with pytest.raises(ValueError, match=rf"^episodes={episodes}: it must be a whole number of at least 1$"):
        evaluate(agent, envs, episodes)

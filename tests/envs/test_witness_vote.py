import numpy as np
import pytest

from envs.witness_vote import WitnessVote

LEFT, STAY, RIGHT = range(3)


class Optimal:
    """Goes left until it has seen the culprit, then right, and votes for the culprit all the way."""

    culprit = None

    def __init__(self, corridor):
        self.corridor = corridor

    def __call__(self, observations, starts):
        if self.culprit is None:
            self.culprit = np.full(len(starts), -1)
        self.culprit[starts] = -1
        seen = observations[:, self.corridor :]
        self.culprit = np.where(seen.any(axis=1), seen.argmax(axis=1), self.culprit)
        return np.stack([np.where(self.culprit < 0, LEFT, RIGHT), np.maximum(self.culprit, 0)], axis=1)


def go_right_and_guess(observations, starts):
    return np.tile([RIGHT, 1], (len(starts), 1))


@pytest.mark.parametrize(("num_suspects", "corridor"), [(4, 5), (2, 2), (3, 8)])
def test_scripted_policies_reach_the_exact_returns(assert_mean_return, num_suspects, corridor):
    env = WitnessVote(2048, num_suspects, corridor)
    assert_mean_return(env, Optimal(corridor), env.optimal_return)
    assert_mean_return(env, go_right_and_guess, env.memoryless_return)


def test_scripted_policies_reach_the_exact_returns_on_a_device(assert_mean_return, device):
    env = WitnessVote(2048, device=device)
    assert_mean_return(env, Optimal(5), env.optimal_return)
    assert_mean_return(env, go_right_and_guess, env.memoryless_return)


def test_visibility_positions_and_the_cell_in_which_the_vote_counts():
    env = WitnessVote(30, num_suspects=3, corridor=4)
    observations, _ = env.reset(seed=0)
    assert (observations[:, :4].sum(axis=0) > 0).all()  # starts in any cell
    assert (observations[:, 4:].any(axis=1) == (observations[:, 0] == 1)).all()  # sees the culprit from cell 0 alone
    env.position[:] = 2
    visible = []
    for step in range(1, 7):
        observations, rewards, *_ = env.step(np.tile([LEFT, 0], (30, 1)))
        visible.append(observations[:, 4:].sum(axis=1).mean())
        assert observations[:, max(0, 2 - step)].all() and not rewards.any()
    assert visible == [0, 1, 1, 0, 0, 0]  # in cell 0 from step 2 on; shown before step 4 only
    culprit = env.culprit.copy()
    env.step(np.stack([np.full(30, LEFT), culprit], axis=1))
    _, rewards, terminated, _, _ = env.step(np.stack([np.full(30, RIGHT), culprit], axis=1))
    assert terminated.all() and (rewards == -0.5).all()  # right, but cast in cell 0


def test_the_move_of_the_last_step_comes_after_the_vote():
    env = WitnessVote(30, num_suspects=3, corridor=2)
    env.reset(seed=0)
    env.position[:] = 1
    for _ in range(3):
        env.step(np.tile([STAY, 0], (30, 1)))
    culprit = env.culprit.copy()
    _, rewards, _, _, info = env.step(np.stack([np.full(30, LEFT), culprit], axis=1))
    assert (rewards == 1).all() and info["final_obs"][:, 0].all()


def test_action_names_match_the_branches():
    assert WitnessVote.action_names == ("move", "vote")
    assert WitnessVote(1, num_suspects=6).single_action_space.nvec.tolist() == [3, 6]


@pytest.mark.parametrize(("name", "value"), [("num_suspects", 1), ("corridor", 1)])
def test_bad_parameters(name, value):
    with pytest.raises(ValueError, match=f"^{name}={value}: it must be a whole number of at least 2$"):
        WitnessVote(2, **{name: value})

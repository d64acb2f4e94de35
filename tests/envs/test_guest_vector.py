"""What a user's class or function made, as a vector environment that can be trained on."""

import re
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from envs.faults import UserCodeError
from envs.guest import Guest
from envs.guest_vector import GuestVector, _of_ended, adapt
from envs.same_step_autoreset import SameStepAutoreset
from envs.t_maze import TMaze


class Tensor(list):
    """Numbers that are no array before they are detached."""

    def detach(self):
        return self

    def cpu(self):
        return np.array(list(self))


class Vector(VectorEnv):
    """Two rows that count to 2 and 3, always in the same array; what ``returns`` holds takes the place of the usual."""

    metadata: ClassVar[dict] = {"autoreset_mode": AutoresetMode.SAME_STEP}
    single_observation_space, single_action_space = spaces.Box(0, 9, (1,), np.float32), spaces.Discrete(2)
    num_envs, lengths = 2, np.array([2, 3])

    def __init__(self, **returns):
        self.returns, self.count = returns, np.zeros((2, 1), np.float32)

    def reset(self, *, seed=None, options=None):
        self.count[:] = 0
        return self.returns.get("obs", self.count), {}

    def step(self, actions):
        self.count += 1
        cut = self.count[:, 0] == self.lengths
        info = (
            {"final_obs": self.count.copy(), "_final_obs": cut, "ignored": np.array([True, True])} if cut.any() else {}
        )
        self.count[cut] = 0
        usual = {"obs": self.count, "rewards": [1.0, 2.0], "terminated": [0, 0], "truncated": cut, "info": info}
        return tuple((usual | self.returns).values())


def play(envs, steps=2):
    envs.reset(seed=0)
    for _ in range(steps):
        result = envs.step(np.zeros(envs.num_envs, int))
    return result


def test_what_is_ours_passes_as_it_is():
    envs = TMaze(2)
    assert adapt(envs, 2, "Own") is envs


def test_one_environment_is_made_a_vector():
    envs = adapt(CartPoleEnv(), 3, "Own", CartPoleEnv)
    assert isinstance(envs, SyncVectorEnv) and envs.num_envs == 3
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert all(isinstance(env, Guest) for env in envs.envs)


def test_copies_of_a_sync_vector_are_put_into_guests():
    envs = SyncVectorEnv([CartPoleEnv] * 2, autoreset_mode="SameStep")
    assert all(isinstance(env, Guest) for env in adapt(envs, 2, "Own").envs)


def test_arrays_are_new_and_of_the_right_types():
    envs = adapt(Vector(terminated=Tensor([0, 0]), rewards=Tensor([1, 2])), 2, "Own")
    first = envs.reset()[0]
    observations, rewards, terminated, truncated, info = play(envs)
    assert first.tolist() == [[0], [0]]
    assert observations.tolist() == [[0], [2]] and observations.dtype == np.float32
    assert rewards.tolist() == [1, 2] and rewards.dtype == np.float64
    assert terminated.tolist() == [False, False] and terminated.dtype == bool
    assert truncated.tolist() == [True, False]
    assert info["final_obs"].tolist() == [[2], [2]] and info.keys() == {"final_obs", "_final_obs"}


def test_only_who_declares_it_marks_steps():
    envs = Vector()
    envs.metadata = {**envs.metadata, "ignores_steps": True}
    assert play(adapt(envs, 2, "Own"))[4]["ignored"].tolist() == [True, True]


def test_final_observations_may_be_given_row_by_row():
    final = play(adapt(Vector(info={"final_obs": [[2.0], None]}), 2, "Own"))[4]["final_obs"]
    assert final[0].tolist() == [2] and final[0].dtype == np.float32 and final[1] is None


@pytest.mark.parametrize("other", [np.nan, np.inf, -5.0])
def test_a_batch_of_final_observations_may_hold_anything_where_nothing_has_ended(other):
    """Row 0 is cut after two steps, when row 1 shows 2."""
    final = play(adapt(Vector(info={"final_obs": np.array([[2.0], [other]])}), 2, "Own"))[4]["final_obs"]
    assert final.tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("nest", [lambda leaf: {"a": leaf, "b": (leaf, leaf)}, lambda leaf: (leaf, {"a": leaf})])
def test_so_may_the_parts_of_composite_ones(nest):
    ended, other = np.array([True, False]), np.array([[2.0], [np.nan]])
    found = _of_ended(ended, nest(other), nest(np.full((2, 1), 5.0)))
    expected = nest(np.array([[2.0], [5.0]]))
    assert str(found) == str(expected)


def test_an_environment_that_never_resets_is_reset():
    class Patient(Vector):
        metadata: ClassVar[dict] = {"autoreset_mode": "Disabled"}

        def reset(self, *, seed=None, options=None):
            self.count[(options or {}).get("reset_mask", [True, True])] = 0
            return self.count, {}

        def step(self, actions):
            self.count += 1
            return self.count, [0, 0], [0, 0], self.count[:, 0] == self.lengths, {}

    envs = adapt(Patient(), 2, "Own")
    assert isinstance(envs, SameStepAutoreset)
    observations, *_, info = play(envs)
    assert observations.tolist() == [[0], [2]] and info["final_obs"].tolist() == [[2], [2]]


def test_a_late_reset_is_left_to_the_training_loop():
    envs = Vector(info={})
    envs.metadata = {"autoreset_mode": "NextStep"}
    envs = adapt(envs, 2, "Own")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert play(envs)[4] == {}


@pytest.mark.parametrize(
    ("returns", "sentence"),
    [
        ({"info": {}}, "an episode was truncated, but info has no 'final_obs', the observation that closed it"),
        ({"info": {"final_obs": [None, None]}}, "the episode of row 0 was truncated, but info['final_obs'] has none"),
        ({"rewards": [1]}, "rewards has shape (1,): it must be (2,), one for each environment"),
        ({"rewards": [1, np.nan]}, "rewards[1]=nan: it must be finite"),
        ({"obs": np.zeros(2)}, "observation has shape (2,): it must be (2, 1), as its space Box(0.0, 9.0, (2, 1), "),
        ({"truncated": None}, "truncated=None: it must be a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_the_call(returns, sentence):
    call = "reset 1" if "obs" in returns else f"step {1 if 'info' not in returns else 2}"
    with pytest.raises(UserCodeError, match=f"^Own, {call}: {re.escape(sentence)}"):
        play(adapt(Vector(**returns), 2, "Own"))


def test_a_final_observation_in_the_array_of_the_observations_is_refused():
    """The reset has overwritten it."""
    count = np.zeros((2, 1), np.float32)
    with pytest.raises(UserCodeError, match=r"info\['final_obs'\] shares its memory with the observations: copy it"):
        play(adapt(Vector(obs=count, info={"final_obs": count[:]}), 2, "Own"))


def test_a_fault_is_told_as_theirs():
    with pytest.raises(
        UserCodeError, match=r"^Own failed in step 1: ZeroDivisionError: .*test_guest_vector.py, line \d+"
    ):
        play(adapt(Failing(), 2, "Own"))


class Failing(Vector):
    def step(self, actions):
        return 1 / 0


def with_mode(mode):
    envs = Vector()
    envs.metadata = {} if mode is None else {"autoreset_mode": mode}
    return envs


@pytest.mark.parametrize(
    ("make", "kind", "sentence"),
    [
        (partial(with_mode, None), ValueError, "Own says autoreset_mode=None: its metadata['autoreset_mode'] must be"),
        (partial(with_mode, "often"), ValueError, "Own says autoreset_mode='often': its metadata"),
        (lambda: TMaze(3), ValueError, "Own made 3 environments, where 2 are needed: let it take num_envs"),
        (lambda: None, TypeError, "Own must be a gymnasium.Env or a gymnasium.vector.VectorEnv: it is a NoneType"),
        (lambda: SimpleNamespace(possible_agents=[]), TypeError,
         "Own must be a gymnasium.Env or a gymnasium.vector.VectorEnv: several agents go with env=pettingzoo"),
    ],
)  # fmt: skip
def test_what_is_no_such_environment_is_refused(make, kind, sentence):
    with pytest.raises(kind, match=f"^{re.escape(sentence)}"):
        adapt(make(), 2, "Own")


def test_a_mask_that_is_not_used_is_told(caplog):
    class Masked(Vector):
        def reset(self, **options):
            return super().reset(**options)[0], {"action_mask": np.ones((2, 2))}

    adapted = adapt(Masked(), 2, "Own")
    assert isinstance(adapted, GuestVector)
    adapted.reset()
    assert caplog.messages == ["Own: info['action_mask'] is not used: make it a leaf of the observation"]

"""One environment as a user wrote it: its faults are told as theirs, and what it returns is brought into form."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit, TransformObservation

from envs.faults import UserCodeError
from envs.guest import Guest


class Reusing(gymnasium.Env):
    """Counts its steps in one array that it uses for ever; episodes are cut after three."""

    observation_space = spaces.Box(-9, 9, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.array = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.array[:] = 0
        return self.array, {}

    def step(self, action):
        self.array += 1
        return self.array, 1.0, False, self.array[0] == 3, {}


class Scripted(Reusing):
    """Returns from ``step`` what it is given, or raises it."""

    def __init__(self, result):
        self.result = result

    def reset(self, *, seed=None, options=None):
        return np.zeros(1), {}

    def step(self, action):
        if isinstance(self.result, type):
            raise self.result("no " * 2)
        return self.result


def step_of(result, wrapper=lambda env: env):
    env = Guest(wrapper(Scripted(result)), "Own-v0", copy=2)
    env.reset()
    return env.step(0)


def test_an_array_that_is_used_again_does_not_change_what_was_observed():
    env = Guest(Reusing(), "Own-v0")
    seen = [env.reset()[0], *(env.step(0)[0] for _ in range(3)), env.reset()[0]]
    assert [observation.item() for observation in seen] == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_the_final_observation_is_the_one_before_the_reset(mode):
    """Without the wrapper Gymnasium shows the first one of the next episode in its place: 0 for 3."""

    def final(wrapper):
        envs = SyncVectorEnv([lambda: wrapper(Reusing())] * 2, autoreset_mode=mode)
        envs.reset()
        for _ in range(3):
            observations, *_, info = envs.step([0, 0])
        return (info["final_obs"][0] if mode == AutoresetMode.SAME_STEP else observations[0]).item()

    assert final(lambda env: Guest(env, "Own-v0")) == 3
    assert final(lambda env: env) == (0 if mode == AutoresetMode.SAME_STEP else 3)


def test_rewards_and_flags_are_plain():
    result = step_of(([0.5], np.array([1.0]), np.array([0]), np.bool_(True), {"lives": 3}))
    assert result == (np.array([0.5], np.float32), 1.0, False, True, {"lives": 3.0})
    assert [type(part) for part in result[1:4]] == [float, bool, bool]


def test_of_an_info_only_numbers_are_handed_on():
    """None that a vector environment would take for one of its own, nor what cannot be batched."""
    info = {
        "a": 1,
        "b": np.float32(2),
        "c": True,
        "final_obs": 3,
        "_a": 1,
        "text": "x",
        "list": [1],
        4: 4,
        "huge": 10**400,
    }
    assert step_of(([0], 0, 0, 0, info))[4] == {"a": 1.0, "b": 2.0, "c": 1.0}
    assert step_of(([0], 0, 0, 0, None))[4] == {}


@pytest.mark.parametrize("kind", [TypeError, KeyError, AssertionError, StopIteration, SystemExit, GeneratorExit])
def test_a_fault_is_told_with_its_place(kind):
    with pytest.raises(UserCodeError) as info:
        step_of(kind)
    line = Scripted.step.__code__.co_firstlineno + 2
    message = repr("no no ") if kind is KeyError else "no no"
    place = f"(tests/envs/test_guest.py, line {line}, in step)"
    assert str(info.value) == f"Own-v0 failed in step 1 of copy 2: {kind.__name__}: {message} {place}"
    assert type(info.value.__cause__) is kind


def test_an_interrupt_is_no_fault():
    with pytest.raises(KeyboardInterrupt):
        step_of(KeyboardInterrupt)


def test_a_fault_in_a_function_of_a_wrapper_is_theirs_too():
    def broken(observation):
        return observation.no_such_name

    with pytest.raises(UserCodeError, match=r"^Own-v0 failed in reset 1 of copy 0: AttributeError: .*in broken\)$"):
        Guest(TransformObservation(Reusing(), broken, Reusing.observation_space), "Own-v0").reset()


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (([0, 0], 0, 0, 0, {}), r"observation has shape \(2,\): it must be \(1,\)"),
        (([0], None, 0, 0, {}), "reward=None: it must be a number"),
        (([0], 0, None, 0, {}), "terminated=None: it must be true or false"),
        (([0], 0, 0, "no", {}), "truncated='no': it must be a number"),
        (
            ([0], 0, 0, {}),
            r"step returned 4 values: reset\(\*, seed=None, options=None\) must .*V21CompatibilityV0",
        ),
        (None, "step returned a NoneType: reset"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_call(result, sentence):
    with pytest.raises(UserCodeError, match=f"^Own-v0, step 1 of copy 2: {sentence}"):
        step_of(result)


def test_the_older_gym_is_told_also_from_inside_a_wrapper_of_gymnasium():
    with pytest.raises(UserCodeError, match=r"not enough values to unpack .*GymV21CompatibilityV0$"):
        step_of(([0], 0, 0, {}), lambda env: TimeLimit(env, 5))

    class Old(Reusing):
        def reset(self):
            return np.zeros(1)

    with pytest.raises(UserCodeError, match=r"^Own-v0, reset 1 of copy 0: .*'seed'.*GymV21CompatibilityV0$"):
        Guest(Old(), "Own-v0").reset()

    class Bare(Reusing):
        def reset(self, *, seed=None, options=None):
            return np.zeros(1)

    with pytest.raises(UserCodeError, match=r"reset returned a ndarray: .*GymV21CompatibilityV0$"):
        Guest(Bare(), "Own-v0").reset()


def test_a_mask_that_is_not_used_is_told_once(caplog):
    class Masked(Reusing):
        def reset(self, **options):
            return super().reset(**options)[0], {"action_mask": np.ones(2)}

    for copy, tells in ((0, True), (1, True), (0, False)):
        env = Guest(Masked(), "Own-v0", copy, tells)
        env.reset()
        env.reset()
    assert [record.getMessage() for record in caplog.records] == [
        "Own-v0: info['action_mask'] is not used: it is for Discrete and MultiDiscrete actions"
    ]


def test_a_mask_that_only_steps_have_is_told_once_too(caplog):
    env = Guest(Scripted((np.zeros(1), 0.0, False, False, {"action_mask": np.ones(2)})), "Own-v0")
    env.reset()
    env.step(0)
    env.step(0)
    assert caplog.messages == ["Own-v0: info['action_mask'] is not used: the info of reset must have one, too"]


def test_a_fault_in_closing_does_no_harm(caplog):
    class Stuck(Reusing):
        def close(self):
            raise SystemExit("the window is gone")

    Guest(Stuck(), "Own-v0").close()
    assert "Own-v0 could not be closed: SystemExit: the window is gone (" in caplog.text

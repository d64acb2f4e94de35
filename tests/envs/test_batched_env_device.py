"""The tasks on a device of torch: they play as in numpy, and no step waits for the device."""

import pickle
import warnings
from copy import deepcopy

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from envs.bernoulli_bandit import BernoulliBandit
from envs.classic_control import CartPoleNoVelocity, MountainCarContinuousNoVelocity, PendulumNoVelocity
from envs.copy_sequence import CopySequence
from envs.delayed_recall import DelayedRecall
from envs.memory_grid import MemoryGrid
from envs.repeat_previous import RepeatPrevious
from envs.t_maze import FORWARD, TMaze
from envs.witness_vote import WitnessVote
from experiments.benchmark.host_reads import HostReads
from rl.checkpoint import as_arrays
from tests.envs.field_tasks import FIELD_STARTS, FIELD_TASKS

TASKS = {
    "t_maze": (TMaze, {"length": 6}),
    "t_maze_active": (TMaze, {"length": 6, "passive": False}),
    "delayed_recall": (DelayedRecall, {}),
    "repeat_previous": (RepeatPrevious, {"k": 2, "episode_length": 12}),
    "copy_sequence": (CopySequence, {}),
    "copy_reverse": (CopySequence, {"reverse": True}),
    "bernoulli_bandit": (BernoulliBandit, {}),
    "cartpole": (CartPoleNoVelocity, {}),
    "pendulum": (PendulumNoVelocity, {}),
    "mountain_car": (MountainCarContinuousNoVelocity, {}),
    "witness_vote": (WitnessVote, {}),
    "memory_grid": (MemoryGrid, {"size": 7}),
    **FIELD_TASKS,
}
DRAWING = "bernoulli_bandit", "delayed_recall", "noisy_position_only_cartpole", "rock_sample"  # in their steps
TOLERANCE = {"cpu": 1e-6, "cuda": 1e-5, "shadow": 1e-4}  # the last one rounds constants to float32
ALL = pytest.mark.parametrize("name", TASKS)


def make(name, num_envs, device=None):
    kind, parameters = TASKS[name]
    return kind(num_envs, **parameters, device=device)


def random_actions(env, num_steps, seed=0):
    """Yields actions of numpy, among them those that get somewhere: they are made when they are asked for."""
    env.action_space.seed(seed)
    for step in range(num_steps):
        actions = env.action_space.sample()
        if isinstance(env, TMaze) and step % 2:
            actions = np.where(actions == 2, FORWARD, actions)
        if isinstance(env, MountainCarContinuousNoVelocity):  # half of the rows push the way they go
            actions[1::2, 0] = np.where(env.velocity[1::2].tolist() >= np.float32(0), 1, -1)
        yield actions


def to_host(values):
    """Arrays of numpy of whatever ``step`` or ``transition`` gave."""
    if isinstance(values, dict):
        return {name: value.cpu().numpy() for name, value in values.items()}
    return tuple(to_host(value) if isinstance(value, dict) else value.cpu().numpy() for value in values)


def tensors_of(env):
    return [value for value in vars(env).values() if isinstance(value, torch.Tensor)]


def check_results(results, device, num_envs, observation_space):
    observations, rewards, terminated, truncated, info = results
    assert info.keys() == {"final_obs", "_final_obs"}
    assert rewards.dtype == torch.float32
    assert {terminated.dtype, truncated.dtype, info["_final_obs"].dtype} == {torch.bool}
    for value in (observations, rewards, terminated, truncated, *info.values()):
        assert value.device.type == device.type and len(value) == num_envs
    for shown in (observations, info["final_obs"]):
        assert shown.cpu().numpy() in observation_space
    assert torch.equal(info["_final_obs"], terminated | truncated)


@ALL
def test_what_is_returned(name, device):
    env = make(name, 5, device)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and env.generator.device.type == device.type
    observations, info = env.reset(seed=0)
    assert observations.cpu().numpy() in env.observation_space and info == {}
    kept, copies = [], []
    for actions in random_actions(env, 30):
        kept.append(env.step(torch.tensor(actions).to(device)))
        copies.append(deepcopy(kept[-1]))
        check_results(kept[-1], device, 5, env.observation_space)
    for (*before, info), (*after, same_info) in zip(copies, kept, strict=True):  # freshly allocated, each time
        for one, other in zip((*before, *info.values()), (*after, *same_info.values()), strict=True):
            assert torch.equal(one, other)


def draw_as_numpy(env, seed):
    """Let an environment of torch draw what one of numpy with this seed draws."""
    rng = seeding.np_random(seed)[0]
    for name in ("integers", "normal", "uniform", "random"):
        setattr(env.xp, name, lambda *size, name=name, **named: env.xp.asarray(getattr(rng, name)(*size, **named)))


@ALL
def test_transitions_are_those_of_numpy(name, device):
    """From the same draws and actions; over restarts, too, where all rows end at once."""
    of_numpy, of_torch = make(name, 64), make(name, 64, device)
    draw_as_numpy(of_torch, 3)
    first, (shown, _) = of_numpy.reset(seed=3)[0], of_torch.reset()
    np.testing.assert_allclose(shown.cpu().numpy(), first, rtol=1e-6, atol=1e-7)
    ends = np.zeros(64, dtype=bool)
    for actions in random_actions(of_numpy, 250):
        expected, found = of_numpy.transition(actions), of_torch.transition(torch.tensor(actions).to(device))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                one.cpu().numpy(), other, rtol=10 * TOLERANCE[device.type], atol=TOLERANCE[device.type]
            )
        for state in ("elapsed_steps", *of_numpy.state_names):
            one, other = getattr(of_torch, state).cpu().numpy(), getattr(of_numpy, state)
            assert one.dtype == other.dtype
            np.testing.assert_allclose(one, other, rtol=10 * TOLERANCE[device.type], atol=TOLERANCE[device.type])
        if device.type == "shadow":  # so that its roundings do not add up
            of_torch.load_state_dict(of_numpy.state_dict())
        over = expected[2] | expected[3]
        ends |= over
        if over.all():
            of_numpy._restart(of_numpy.rows)
            of_torch._restart(of_torch._all_rows)
        elif ends.all():
            break
    assert ends.sum() > 20


@ALL
def test_numpy_is_followed_from_any_state(name, device):
    """What was stored by an environment of numpy; the draws of a step are not those of numpy here."""
    of_numpy, of_torch = make(name, 64), make(name, 64, device)
    of_numpy.reset(seed=0)
    for actions in random_actions(of_numpy, 23):
        of_numpy.step(actions)
    of_torch.load_state_dict(of_numpy.state_dict())
    np.testing.assert_allclose(of_torch._observe().cpu().numpy(), of_numpy._observe(), rtol=1e-6, atol=1e-7)
    actions = next(random_actions(of_numpy, 1, seed=1))
    expected, found = of_numpy.transition(actions), of_torch.transition(torch.tensor(actions).to(device))
    skipped = 2 if name == "bernoulli_bandit" else name in DRAWING  # observations and rewards that are drawn
    for one, other in zip(found[skipped:], expected[skipped:], strict=True):
        np.testing.assert_allclose(
            one.cpu().numpy(), other, rtol=10 * TOLERANCE[device.type], atol=TOLERANCE[device.type]
        )


@ALL
def test_a_row_that_ends_begins_anew_and_shows_what_closed_it(name, device):
    """A step is the transition, which the twin makes, and then new episodes in the rows that ended."""
    env, twin = make(name, 32, device), make(name, 32, device)
    env.reset(seed=0)
    ends = np.zeros(32, dtype=int)
    for actions in random_actions(env, 250):
        twin.load_state_dict(env.state_dict())
        actions = torch.tensor(actions).to(device)
        observations, rewards, terminated, truncated, info = to_host(env.step(actions))
        expected = to_host(twin.transition(actions))
        for one, other in zip((info["final_obs"], rewards, terminated, truncated), expected, strict=True):
            np.testing.assert_array_equal(one, other)
        ended = terminated | truncated
        np.testing.assert_array_equal(observations[~ended], info["final_obs"][~ended])
        np.testing.assert_array_equal(env.elapsed_steps.cpu()[ended], 0)
        np.testing.assert_array_equal(env.elapsed_steps.cpu()[~ended], twin.elapsed_steps.cpu()[~ended])
        np.testing.assert_array_equal(observations, env._observe().cpu())
        ends += ended
        if (ends > 0).sum() > 10:
            break
    assert (ends > 0).sum() > 10


# What a new episode begins with: how many values are drawn, each as often, or between which numbers.
STARTS = {
    "t_maze": {"cue": 2, "position": 1},
    "delayed_recall": {"cue": 4},
    "repeat_previous": {"symbols": 4},
    "copy_sequence": {"shown": 4},
    "bernoulli_bandit": {"probabilities": (0.0, 1.0), "last_outcome": (4, 4)},
    "cartpole": {"state": (-0.05, 0.05)},
    "pendulum": {"angle": (-np.pi, np.pi), "speed": (-1.0, 1.0)},
    "mountain_car": {"position": (-0.6, -0.4), "velocity": (0.0, 0.0)},
    "witness_vote": {"position": 5, "culprit": 4},
    "memory_grid": {"situation": 16},  # 4 layouts in 4 columns
    **FIELD_STARTS,
}


@pytest.mark.parametrize("name", STARTS)
def test_new_episodes_are_drawn_in_the_ended_rows_alone(name, device):
    env = make(name, 4096, device)
    env.reset(seed=0)
    for actions in random_actions(env, 3):
        env.step(torch.tensor(actions).to(device))
    before = {state: getattr(env, state).clone() for state in STARTS[name]}
    ended = env.rows % 2 == 0
    env._restart(ended)
    for state, expected in STARTS[name].items():
        after = getattr(env, state).cpu().numpy()
        if state == "state":
            after, before[state] = after.T, before[state].T
        np.testing.assert_array_equal(after[1::2], before[state].cpu()[1::2])
        drawn = after[::2, :-1] if state == "symbols" else after[::2, :4] if state == "shown" else after[::2]
        if isinstance(expected, int):
            counts = np.unique(drawn, return_counts=True)[1]
            assert len(counts) == expected
            assert (abs(counts / drawn.size - 1 / expected) < 5 * (expected * 2048) ** -0.5).all(), counts
        else:
            low, high = np.float32(expected)
            assert low <= drawn.min() and drawn.max() <= high
            assert abs(drawn.mean() - (low + high) / 2) <= 0.03 * (high - low)
            assert np.ptp(drawn) >= 0.98 * (high - low)


@ALL
def test_a_seed_gives_the_same_episodes_again(name, device):
    env = make(name, 32, device)
    taken = [torch.tensor(actions).to(device) for actions in random_actions(env, 25)]

    def play(seed):
        return [to_host(env.reset(seed=seed)[:1]), *(to_host(env.step(actions)[:4]) for actions in taken)]

    def differ(one, other):
        return any(
            (a != b).any() for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
        )

    first = play(1)
    assert not differ(first, play(1)) and differ(first, play(2))


def test_without_a_seed_the_generator_goes_on(device):
    env = TMaze(64, device=device)
    shown = [env.reset(seed=seed)[0].tolist() for seed in (1, None, None, 1)]
    assert shown[0] == shown[3] and shown[0] != shown[1] != shown[2]


@ALL
def test_a_restored_environment_goes_on_bit_identically(name, device):
    env, restored = make(name, 6, device), make(name, 6, device)
    taken = [torch.tensor(actions).to(device) for actions in random_actions(env, 60)]
    env.reset(seed=0)
    for actions in taken[:20]:
        env.step(actions)
    state = env.state_dict()
    assert {value.device.type for key, value in state.items() if key != "running"} == {"cpu"}
    kept = deepcopy(state)
    expected = [to_host(env.step(actions)[:4]) for actions in taken[20:]]
    for form in (pickle.loads(pickle.dumps(state)), as_arrays(state)):  # the second as a checkpoint gives it
        restored.load_state_dict(form)
        for actions, results in zip(taken[20:], expected, strict=True):
            for one, other in zip(to_host(restored.step(actions)[:4]), results, strict=True):
                np.testing.assert_array_equal(one, other)
    for key, value in state.items():
        assert np.array_equal(value, kept[key]), key


def test_a_state_goes_on_elsewhere_with_a_generator_of_its_own(device, caplog):
    caplog.set_level("INFO")
    of_numpy, of_torch = TMaze(8), TMaze(8, device=device)
    of_torch.reset(seed=0)
    for _ in range(5):
        of_torch.step(torch.zeros(8, dtype=torch.int64).to(device))
    stored = of_torch.state_dict()
    foreign = stored | {"rng": torch.zeros(17, dtype=torch.uint8)}  # as long as no generator's here

    def draw_after(env, state):
        env.reset(seed=5)
        if state is not None:
            env.load_state_dict(state)
        return env.draws.integers(9, size=20).tolist()

    for env, state in ((of_numpy, stored), (of_torch, TMaze(8).state_dict()), (of_torch, foreign)):
        assert draw_after(env, state) == draw_after(env, None)
        assert [line.partition(":")[0] for line in caplog.messages] == ["the state is of another kind of device"]
        caplog.clear()
    of_numpy.load_state_dict(stored)
    assert of_numpy.position.tolist() == [5] * 8 and of_numpy.cue.tolist() == stored["cue"].tolist()
    caplog.clear()
    assert draw_after(of_torch, stored) != draw_after(of_torch, None) and not caplog.messages


def test_a_foreign_state_is_refused(device):
    env = TMaze(4, device=device)
    with pytest.raises(ValueError, match=r"does not belong to this environment: expected arrays .*'position': \(4,\)"):
        env.load_state_dict(TMaze(3, device=device).state_dict())
    with pytest.raises(ResetNeeded):
        env.step(torch.zeros(4, dtype=torch.int64).to(device))
    env.reset(seed=0)
    with pytest.raises(
        ValueError, match=r"^actions are torch.float32 of shape \(4,\) on .*: they must be a tensor of int"
    ):
        env.step(torch.zeros(4).to(device))


class Watch(HostReads):
    """Notes on a CPU also what is made of Python's numbers, which a GPU would have to be sent."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation.overloadpacket.__name__ == "lift_fresh":
            self.others.append("torch.tensor")
        return super().__torch_dispatch__(operation, types, arguments, options)


@pytest.fixture
def watched(device, request):
    """Runs a function; what it read from the device or sent there. A GPU raises an error instead."""

    def watch(function, tensors):
        if device.type == "cpu":
            with Watch(tensors) as watch:
                function()
            return watch.reads + watch.others
        if device.type == "shadow":
            shadow = request.getfixturevalue("shadow")
            function()
            return shadow.reads + shadow.uploads
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns that it is a prototype
                torch.cuda.set_sync_debug_mode("error")
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return []

    return watch


@ALL
def test_no_step_reads_or_sends_anything_and_the_state_stays_in_place(name, device, watched):
    env = make(name, 16, device)
    env.reset(seed=0)
    state = [getattr(env, name) for name in ("elapsed_steps", *env.state_names)]
    taken = [torch.tensor(actions).to(device) for actions in random_actions(env, 60)]
    for actions in taken:
        assert watched(lambda actions=actions: env.step(actions), [*tensors_of(env), actions]) == []
    env.reset()
    env.load_state_dict(env.state_dict())
    for tensor, name_of_state in zip(state, ("elapsed_steps", *env.state_names), strict=True):
        assert getattr(env, name_of_state) is tensor


@pytest.mark.parametrize(
    "act",
    [
        lambda env: bool((env.position > 0).any()),
        lambda env: env.position[env.cue == 1],
        lambda env: torch.tensor([1.0]).to(env.device),
        lambda env: env.position.cpu(),
    ],
)
def test_a_read_is_seen(act, device, watched):
    """Or the test above could not fail."""
    env = TMaze(16, device=device)
    if device.type == "cuda":
        with pytest.raises(RuntimeError, match="synchroni"):
            watched(lambda: act(env), [])
    else:
        assert watched(lambda: act(env), tensors_of(env))


@ALL
def test_a_step_can_be_captured_as_a_graph(name, device):
    """And played again, it goes on from where the state lies."""
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    env = make(name, 16, device)
    env.reset(seed=0)
    actions = torch.tensor(next(random_actions(env, 1))).to(device)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        env.step(actions)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(env.generator)
    with torch.cuda.graph(graph):
        observations, rewards, terminated, truncated, info = env.step(actions)
    twin = make(name, 16, device)
    for again in random_actions(env, 60):
        actions.copy_(torch.tensor(again))
        twin.load_state_dict(env.state_dict())
        graph.replay()
        expected = twin.step(actions)
        ended = (terminated | truncated).cpu()
        if name not in DRAWING:
            for one, other in zip((rewards, terminated, truncated), expected[1:4], strict=True):
                assert torch.equal(one, other)
            assert torch.equal(info["final_obs"], expected[4]["final_obs"])
        assert torch.equal(observations[~ended], info["final_obs"][~ended])
        assert not env.elapsed_steps.cpu()[ended].any()

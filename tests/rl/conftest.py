"""Shared by the tests of rl: closeness relative to the scale, the leaves of a state, rollouts of random play."""

import signal
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.networks import ActorCritic
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.recordings.recording import Recording
from rl.spaces import leaf_arrays, leaf_spaces
from rl.training import signals
from rl.types import Targets


@pytest.fixture
def assert_close():
    """Largest difference at most ``tolerance`` of the largest magnitude (or of 1, if that is larger)."""

    def check(actual, expected, tolerance):
        assert actual.shape == expected.shape
        assert actual.dtype == expected.dtype
        scale = max(1.0, expected.detach().abs().max().item())
        error = (actual - expected).detach().abs().max().item()
        assert error <= tolerance * scale, f"off by {error:.3g} at scale {scale:.3g}"

    return check


@pytest.fixture
def random_state():
    """A state of random numbers; leaves of integers (counters) stay as they are. Its float leaves ask for gradients."""

    def draw(core, batch_size, dtype=torch.float32, device="cpu", seed=0):
        generator = torch.Generator().manual_seed(seed)

        def leaf(fresh):
            if not fresh.is_floating_point():
                return fresh
            return torch.randn(fresh.shape, generator=generator, dtype=dtype).to(device).requires_grad_()

        return {name: leaf(fresh) for name, fresh in core.initial_state(batch_size, device).items()}

    return draw


@pytest.fixture
def step_by_step():
    """``T`` calls of ``step`` of a core or an actor-critic: stacked outputs, and the last state."""

    def play(module, inputs, state, starts):
        outputs = []
        for t in range(starts.shape[0]):
            step_inputs = {name: leaf[t] for name, leaf in inputs.items()} if isinstance(inputs, dict) else inputs[t]
            *output, state = module.step(step_inputs, state, starts[t].to(next(module.parameters()).device))
            outputs.append(output)
        return *(torch.stack(column) for column in zip(*outputs, strict=True)), state

    return play


@pytest.fixture
def make_network(randomise):
    """An actor-critic of random weights, with a policy far from uniform so that a wrong replay shows in the ratio."""

    def make(core, observation_space=None, action_space=None, layer_size=8, **options):
        observation_space = observation_space or spaces.Box(-2.0, 2.0, (3,))
        action_space = action_space or spaces.Discrete(4)
        core = partial(core, hidden_size=8, **options.pop("core_options", {}))
        network = ActorCritic(leaf_spaces(observation_space), action_space, core, layer_size, **options)
        return randomise(network)

    return make


@pytest.fixture
def collect():
    """A rollout of ``num_steps`` steps: random observations and starts, actions sampled as an actor samples them.

    Rewards are zero; the advantages, values and returns to learn from are random.
    """

    def play(network, num_steps, num_envs=4, observation_space=None, start_probability=0.15, device="cpu", **options):
        space = observation_space or spaces.Box(-1.0, 1.0, (3,))
        space.seed(0)
        names = leaf_spaces(space)
        generator = torch.Generator().manual_seed(0)
        state, buffer = network.initial_state(num_envs, device), None
        for t in range(num_steps):
            rows = [leaf_arrays(space, space.sample()) for _ in range(num_envs)]
            obs = {name: torch.stack([torch.as_tensor(row[name]) for row in rows]).to(device) for name in names}
            starts = (torch.rand(num_envs, generator=generator) < start_probability) | (t == 0)
            with torch.no_grad():
                params, values, following = network.step(obs, state, starts.to(device))
                actions = network.head.sample(params, torch.Generator(device).manual_seed(t))
            if buffer is None:
                buffer = RolloutBuffer(num_steps, obs, state, actions, params, device=device, **options)
            buffer.write_step(obs, state, starts.numpy(), params, values, actions)
            never = np.zeros(num_envs, dtype=bool)
            buffer.finish_step(np.zeros(num_envs, np.float32), never, never, never)
            state = following
        old_log_probs = network.head.evaluate(buffer.params, buffer.actions)[0].detach()
        advantages, returns = torch.randn(2, num_steps, num_envs, generator=generator).to(device)
        return buffer, Targets(old_log_probs, buffer.values.clone(), advantages, returns)

    return play


@pytest.fixture
def make_recording():
    """A recording of episodes of the given lengths: numbers of a Box that never repeat, random actions and rewards."""

    def make(lengths, action_space=None, seed=0, **options):
        rng = np.random.default_rng(seed)
        action_space = action_space or spaces.Discrete(3)
        action_space.seed(seed)
        count = int(np.sum(lengths))
        obs = rng.normal(size=(count, 2)).astype(np.float32)
        actions = np.array([action_space.sample() for _ in range(count)])
        rewards = rng.normal(size=count).astype(np.float32)
        bounds = np.cumsum([0, *lengths])
        options = {"groups": np.arange(len(lengths))} | options
        return Recording(spaces.Box(-9, 9, (2,)), action_space, {"obs": obs}, actions, rewards, bounds, **options)

    return make


@pytest.fixture
def collect_steps():
    """Steps of the batched form of an agent, a rollout unless told; what the environments show in the end."""

    def play(agent, stepper, obs, steps=None):
        for _ in range(steps or agent.num_steps):
            after = stepper.step(agent.act(obs))
            agent.observe(after.rewards, after.terminated, after.truncated, after.final_obs, after.ignored)
            obs = after.obs
        return obs

    return play


@pytest.fixture
def assert_same():
    """Two agents have the same of everything that a checkpoint holds, bit by bit, but what constructed them."""

    def leaves(value):
        if isinstance(value, dict):
            return [leaf for key in sorted(value, key=str) if key != "construction" for leaf in leaves(value[key])]
        if isinstance(value, (list, tuple)):
            return [leaf for part in value for leaf in leaves(part)]
        return [value]

    def compare(one, other):
        for mine, theirs in zip(leaves(one.state_dict()), leaves(other.state_dict()), strict=True):
            assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs

    return compare


class Notebook:
    """Metrics that keep everything in lists: ``(step, values)`` each, and the order of calls."""

    def __init__(self):
        self.written, self.bar, self.lines, self.calls = [], [], [], []

    def scalars(self, values, step):
        self.calls.append("scalars")
        self.written.append((step, values))

    def progress(self, step, value, steps_per_second, name="return"):
        self.bar.append((step, value, steps_per_second))

    def say(self, message):
        self.lines.append(message)

    def flush(self):
        self.calls.append("flush")


@pytest.fixture
def notebook():
    return Notebook()


@pytest.fixture
def usual_handlers(monkeypatch):
    """Handlers that note a signal instead of ending the process; the real ones are put back afterwards.

    Signals that follow each other at once are several ones, not echoes.
    """
    monkeypatch.setattr(signals, "ECHO", 0.0)
    noted = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda given, frame: noted.append(given)) for number in numbers}
    mine = {number: signal.getsignal(number) for number in numbers}
    yield noted, mine
    for number, handler in before.items():
        signal.signal(number, handler)

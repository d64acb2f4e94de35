"""Exports one step of a trained policy, memory included, to ONNX, ``torch.export`` or TorchScript."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import create_empty_array
from torch import Tensor, nn

from rl.agents.actor import PREVIOUS_ACTION, PREVIOUS_REWARD
from rl.agents.agent import RecurrentAgent
from rl.agents.player import policy_copy
from rl.checkpoint import atomic_write
from rl.networks import ActorCritic, QuantileNetwork, make_head
from rl.networks.heads import BernoulliHead, CategoricalHead, GaussianHead, Head
from rl.networks.modes import evaluation_mode
from rl.networks.quantile_network import EpsilonGreedyHead
from rl.training.stepping import VectorEnvAdapter
from rl.types import Agent

START, STATE, NEXT = "start", "state.", "next_"
TOLERANCE = 1e-5
NOISY_LOGGERS = "torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir"


class PolicyStep(nn.Module):
    """A step: observation, state -> greedy action, distribution parameters, value, next state; all batch-leading.

    ``input_names``, in the order of the arguments: each leaf of the observation; ``previous_action`` and
    ``previous_reward [B, 1]`` if the agent is fed them; ``state.NAME`` for each leaf of the state; ``start [B]`` bool.
    Where ``start`` is set the state and what is fed of the previous step are cleared, so any numbers will do for them.

    ``output_names``: ``action``, as a vector environment takes it; ``logits`` (Box: ``mean``, quantile networks:
    ``action_values``); ``value [B]``; ``next_state.NAME``; and ``next_previous_action``, which goes into
    ``previous_action`` of the next step, if the agent is fed it.

    The weights are a copy on the CPU. Dropout, which is off in play, has no count among the state.

    Args:
        agent: of one network.

    Raises:
        ValueError: the agent has not one network but several, or an observation leaf has the name of something else.
    """

    def __init__(self, agent: Agent):
        super().__init__()
        agent = check_single_network(agent)
        self.network = policy_copy(agent.network).cpu()
        self.to_environment = ToEnvironment(make_head(agent.action_space))
        empty = create_empty_array(agent.observation_space, 2)
        self.obs = {name: leaf.cpu() for name, leaf in agent.new_actor(2, 0).inputs(empty).items()}
        state = self.network.initial_state(2)
        self.input_names = [*self.obs, *(STATE + name for name in state), START]
        self.example = *self.obs.values(), *state.values(), torch.tensor([True, False])
        self.params_name = name_params(self.network)
        self.output_names = ["action", self.params_name, "value", *(NEXT + STATE + name for name in state)]
        if agent.feed_previous:
            self.output_names.append(NEXT + PREVIOUS_ACTION)
        names = self.input_names + self.output_names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {twice[0]!r} of an observation leaf is taken by another input or output")
        self.eval()

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Take tensors ``[B, ...]`` in the order of ``input_names``; return those of ``output_names``."""
        inputs = dict(zip(self.input_names, given, strict=True))
        start = inputs[START]
        obs = {name: inputs[name] for name in self.obs}
        for name in (PREVIOUS_ACTION, PREVIOUS_REWARD):
            if NEXT + PREVIOUS_ACTION in self.output_names:
                obs[name] = obs[name].masked_fill(start.unsqueeze(1), 0)
        state = {  # here and not in the core, which may ask for the value of the flags
            name: torch.where(start.view(-1, *[1] * (fresh.dim() - 1)), fresh, inputs[STATE + name])
            for name, fresh in self.network.initial_state(1).items()
        }
        params, values, state = self.network.step(obs, state, None)
        actions = self.network.head.mode(params)
        outputs = [self.to_environment(actions), params, values, *state.values()]
        if NEXT + PREVIOUS_ACTION in self.output_names:
            outputs.append(self.network.head.as_previous(actions))
        return tuple(output.clone() for output in outputs)  # an input handed on must not be the output itself


def check_single_network(agent: Agent) -> RecurrentAgent:
    """Check that an agent has one network; return it as such an agent.

    Raises:
        ValueError: it has several.
    """
    if not isinstance(agent, RecurrentAgent):
        raise ValueError(f"{agent.model_name} has several networks: export agent.members[NAME], from Python")
    return agent


def name_params(network: ActorCritic | QuantileNetwork) -> str:
    """Name what the parameters of the policy are."""
    if isinstance(network, QuantileNetwork):
        return "action_values"
    return "mean" if isinstance(network.head, GaussianHead) else "logits"


class ToEnvironment(nn.Module):
    """What ``head.to_environment`` does, in tensors: ``[B, ...]`` -> actions as the environment takes them.

    The numbers of the head are buffers: an exporter may not know what to do with constants that ``forward`` makes.

    Args:
        head: of the policy.

    Raises:
        TypeError: the head is of a kind that is not known here.
    """

    starts: Tensor
    half_width: Tensor
    centre: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, head: Head):
        super().__init__()
        self.head = head
        if isinstance(head, CategoricalHead):
            self.register_buffer("starts", torch.tensor(np.asarray(head.starts, dtype=np.int64)))
        elif isinstance(head, GaussianHead):
            self.dtype = torch.from_numpy(np.zeros(0, head.dtype)).dtype
            numbers = {"half_width": head.half_width, "centre": head.centre, "low": head.low, "high": head.high}
            for name, value in numbers.items():
                self.register_buffer(name, torch.tensor(value))
        elif not isinstance(head, BernoulliHead):
            raise TypeError(f"head={head}: it must be a CategoricalHead, GaussianHead or BernoulliHead")

    def forward(self, actions: Tensor) -> Tensor:
        """Turn actions ``[B, ...]`` into those of the environment."""
        head = self.head
        if isinstance(head, CategoricalHead):
            actions = actions + self.starts
            return actions[:, 0] if head.flat else actions
        if isinstance(head, GaussianHead):
            scaled = torch.minimum(torch.maximum(actions.double() * self.half_width + self.centre, self.low), self.high)
            return scaled.to(self.dtype).reshape(-1, *head.shape)
        assert isinstance(head, BernoulliHead)  # there is no other, see __init__
        return actions.to(torch.int8).reshape(-1, *head.shape)


def write(agent: Agent, path: str | Path) -> PolicyStep:
    """Write the step of ``agent`` as ONNX, with the ending ``.pt2`` for ``torch.export``, with ``.ts`` as TorchScript.

    Raises:
        ImportError: ONNX needs a package that is not installed.
        OSError: the file cannot be written; an older one of that name is untouched.
        ValueError: ``path`` has another ending, or the agent has several networks.
    """
    path = Path(path)
    check_format(path)
    step = PolicyStep(agent)
    if path.suffix == ".ts":
        with atomic_write(path) as file:
            file.write(_trace(step))
        return step
    batch = torch.export.Dim("batch")
    shapes = {"given": tuple({0: batch} for _ in step.example)}
    if path.suffix == ".pt2":
        memory = io.BytesIO()  # torch hides a full disk behind errors of its own
        with torch.no_grad():
            torch.export.save(torch.export.export(step, step.example, dynamic_shapes=shapes), memory)
        with atomic_write(path) as file:
            file.write(memory.getvalue())
        return step
    with torch.no_grad(), _silence_exporter():
        program = torch.onnx.export(
            step,
            step.example,
            dynamo=True,
            input_names=step.input_names,
            output_names=step.output_names,
            dynamic_shapes=shapes,
            verbose=False,
        )
    assert program is not None  # it is with dynamo=False only
    program.model.metadata_props.update(onnx_metadata(agent))
    with atomic_write(path) as file:
        file.write(program.model_proto.SerializeToString())
    return step


def _trace(step: PolicyStep) -> bytes:
    """Return the step as TorchScript; the names of its inputs and outputs lie beside it in ``names.json``."""
    memory = io.BytesIO()
    names = json.dumps({"inputs": step.input_names, "outputs": step.output_names})
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # newer versions of torch prefer torch.export
        warnings.filterwarnings("ignore", category=FutureWarning)
        traced = torch.jit.trace(step, step.example, check_trace=False)
        torch.jit.save(traced, memory, _extra_files={"names.json": names})
    return memory.getvalue()


@contextmanager
def _silence_exporter() -> Iterator[None]:
    """Silence the exporter's deprecation and progress messages."""
    logs = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*shares the same shape constraints", category=UserWarning)
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def onnx_metadata(agent: Agent) -> dict[str, str]:
    """Collect what a reader of the file may want to know, beside the names and shapes of inputs and outputs.

    Raises:
        ValueError: the agent has several networks.
    """
    agent = check_single_network(agent)
    head = agent.network.head
    known = {"agent": agent.model_name, "env_steps": str(agent.env_steps), "action_space": str(agent.action_space)}
    known |= {"observation_space": str(agent.observation_space), "branches": json.dumps(list(head.branches))}
    if isinstance(head, GaussianHead):
        known["log_std"] = json.dumps(head.log_std.tolist())
    return known


def check_format(path: Path) -> None:
    """Check that the ending of ``path`` is that of a format that can be written here.

    Raises:
        ImportError: writing and replaying ONNX needs a package that is not installed.
        ValueError: the ending is another one.
    """
    if path.suffix not in (".onnx", ".pt2", ".ts"):
        raise ValueError(f"output={path}: it must end in .onnx, .pt2 or .ts")
    if path.suffix == ".onnx":
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(f"ONNX needs the package {error.name}: pip install 'recurrent-ppo[export]'") from error


def record(agent: Agent, envs: VectorEnv, steps: int, seed: int, every: int = 20) -> dict[str, np.ndarray]:
    """Play greedily, and note what each step was given and what came out of it.

    Args:
        agent: of one network.
        envs: to play in, B rows.
        steps: to note.
        seed: of the environments.
        every: note the state at every such step, and at the last.

    Returns:
        ``input/NAME`` and ``output/NAME`` ``[steps, B, ...]`` by the names of ``PolicyStep``, without the state;
        ``output/next_state.NAME`` at the steps ``states_at`` only, every ``every``-th and the last; and
        ``decided [steps, B]`` bool: no other action is within rounding of being the best.

    Raises:
        ValueError: the agent has several networks.
    """
    agent = check_single_network(agent)
    player, adapter, head = agent.new_actor(envs.num_envs, seed), VectorEnvAdapter(envs), agent.network.head
    leaves = PolicyStep(agent).network.initial_state(1)
    states_at = [t for t in range(steps) if t % every == every - 1 or t == steps - 1]
    noted: dict[str, list[Any]] = {}
    with evaluation_mode(agent.network):
        obs = adapter.reset(seed)
        for t in range(steps):
            given = player.inputs(obs)
            row = {f"input/{name}": leaf for name, leaf in given.items()} | {f"input/{START}": player.starts}
            params, values, actions = player.step(given, greedy=True)
            taken = head.to_environment(actions.cpu().numpy())
            row |= {"output/action": taken, f"output/{name_params(agent.network)}": params, "output/value": values}
            row["decided"] = is_decision_stable(head, params)
            if agent.feed_previous:
                row[f"output/{NEXT}{PREVIOUS_ACTION}"] = head.as_previous(actions)
            if t in states_at:
                row |= {f"output/{NEXT}{STATE}{name}": player.state[name] for name in leaves}
            for name, value in row.items():
                noted.setdefault(name, []).append(value.cpu().numpy() if isinstance(value, Tensor) else value)
            step = adapter.step(taken)
            player.observe(step.rewards, step.ended)
            obs = step.obs
    return {name: np.stack(values) for name, values in noted.items()} | {"states_at": np.array(states_at)}


def is_decision_stable(head: Head | EpsilonGreedyHead, params: Tensor) -> Tensor:
    """Say for each row whether the greedy action stays if any one parameter moves by twice the tolerance.

    Args:
        head: takes the action.
        params: ``[B, P]``.

    Returns:
        ``[B]`` bool.
    """
    best = head.mode(params)
    if best.is_floating_point():
        return torch.ones(len(params), dtype=torch.bool)
    size = params.shape[1]
    moves = 2 * TOLERANCE * torch.cat([torch.eye(size), -torch.eye(size)]).to(params.device)  # [2P, P]
    moved = head.mode((params.unsqueeze(0) + moves.unsqueeze(1)).flatten(0, 1)).view(2 * size, *best.shape)
    return (moved == best).flatten(2).all(-1).all(0)

"""What the learners of this package share when they are checked: copies that play, and spies on what they unroll."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from rl.agents import Population, RecurrentIQN, RecurrentPPO
from rl.agents.agent import RecurrentAgent
from rl.iqn.sequence_replay import SequenceReplay
from rl.memory_check.network_subject import NetworkSubject
from rl.memory_check.recorder import Recorder, play
from rl.memory_check.subject import Inputs, Trace
from rl.training.stepping import VectorEnvAdapter
from rl.types import Observation, State

LEFT_OUT = "left out"
Kind = TypeVar("Kind", bound=RecurrentAgent | Population)


def copy_agent(agent: Kind) -> Kind:
    """Copy an agent or population; the copy trains, has no open episode and nothing collected.

    What was collected is not copied, for a replay may fill half of the machine's memory.
    """
    collected = [vars(member).get("buffer") for member in list_members(agent)]
    twin = deepcopy(agent, {id(buffer): LEFT_OUT for buffer in collected if buffer is not None})
    for member in list_members(twin):
        link_weights(member)
        replace_buffer(member)
        member.batched = member.training = True
        member.reset()
        member.forget_rollout()
    return twin


def list_members(agent: RecurrentAgent | Population) -> list[RecurrentAgent]:
    """List the agents of this package in a population, or the agent itself."""
    if not isinstance(agent, Population):
        return [agent]
    return [member for member in agent.members.values() if isinstance(member, RecurrentAgent)]


def replace_buffer(agent: RecurrentAgent) -> None:
    """Give an agent without what it has collected a place for what a check collects."""
    if isinstance(agent, RecurrentPPO):
        agent.buffer = None  # the first step makes it
    elif isinstance(agent, RecurrentIQN):
        examples = agent.example_inputs(), agent.actor.state, agent.actor.actions
        entries = 2 * count_steps(agent) * agent.num_envs  # each step may close an episode, too
        sizes = min(agent.iqn.capacity, entries), agent.iqn.length, agent.state_stride
        agent.buffer = SequenceReplay(*sizes, *examples, agent.device)


def count_steps(agent: RecurrentIQN) -> int:
    """Return the steps to be played so that there are whole sequences to replay."""
    return max(agent.num_steps, 2 * agent.iqn.length)


def link_weights(agent: RecurrentAgent) -> None:
    """Make the weights of a copied network views of the vector of its optimiser again: a copy parts them."""
    (vector,) = agent.optimizer.param_groups[0]["params"]
    vector_to_parameters(vector.data, agent.network.parameters())


@contextmanager
def patched(thing: Any, **attributes: Any) -> Iterator[None]:
    """While open, set attributes of an object, each of which it has, or its class.

    Raises:
        AttributeError: there is none of that name, so that nothing would be changed by it.
    """
    for name in attributes:
        getattr(thing, name)
    before = {name: vars(thing).get(name) for name in attributes}
    known = [name for name in attributes if name in vars(thing)]
    vars(thing).update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            if name in known:
                vars(thing)[name] = before[name]
            else:
                del vars(thing)[name]


class UnrollSpy:
    """A spy on what unrolls a network: what entered it with gradients, and what came out, since it was cleared.

    Args:
        subject: whose network is watched.
        outputs: how many results are outputs: those in front of the state, or of what else there is.
    """

    def __init__(self, subject: NetworkSubject, outputs: int):
        self.subject, self.outputs = subject, outputs
        self.calls: list[tuple[State, Tensor, Tensor, Inputs]] = []  # state, starts, outputs, inputs

    def watch(self, unroll: Callable[..., Any]) -> Callable[..., Any]:
        """Return what unrolls the network, noted from now on."""

        def watched(obs: Observation, state: State, starts: Tensor) -> Any:
            results = unroll(obs, state, starts)
            if torch.is_grad_enabled():  # a warm-up is none
                with torch.no_grad():
                    outputs = self.subject.outputs_of([part.detach() for part in results[: self.outputs]], obs)
                    inputs = self.subject.encode(obs)
                self.calls.append((state, starts.cpu(), outputs, inputs))
            return results

        return watched


class OurLearner(NetworkSubject, ABC):
    """What the learners of this package share.

    Args:
        whole: a copy, plays all rows of the environments: the agent itself, or the population that it is in.
        agent: is checked.
        rows: of the environments that it plays.
        envs: to play in.
        seed: of the environments.
    """

    bptt: int | None
    every_step_once: bool
    stride: int

    def __init__(
        self,
        whole: RecurrentAgent | Population,
        agent: RecurrentAgent,
        rows: np.ndarray,
        envs: VectorEnvAdapter,
        seed: int,
    ):
        super().__init__(agent.network, agent.model_name)
        self.whole, self.agent, self.rows, self.envs, self.seed = whole, agent, rows, envs, seed
        self.next_obs: Any = None
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Read how the agent cuts its rollouts."""

    def play(self, steps: int) -> Trace:
        """Play a rollout, once more if the first one corrected the scales of observations."""
        for turn in range(2):
            self.recorder = recorder = Recorder(self.agent, self.stride)
            self.next_obs = play(self.whole, recorder, self.rows, self.envs, steps, self.seed + turn)
            trace = recorder.trace()
            if not self.agent.correct_scales(trace.obs):
                break
            self.after_correction()
            self.whole.reset()
            for member in list_members(self.whole):
                member.forget_rollout()
        return trace

    def after_correction(self) -> None:
        """Do what else belongs to corrected scales."""

    def update(self) -> None:
        """Learn from the rollout, as in training."""
        self.agent.learn(self.next_obs)

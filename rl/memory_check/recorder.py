"""What an agent really plays, noted from outside of it: what enters its network, and what the environments tell."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl.agents import Population, RecurrentIQN
from rl.agents.agent import RecurrentAgent
from rl.memory_check.network_subject import NetworkSubject
from rl.memory_check.subject import Trace
from rl.spaces import take_rows
from rl.training.stepping import StepResult, VectorEnvAdapter
from rl.types import CutEpisodes, Observation, State

Leaves = dict[str, Tensor]


class Recorder:
    """A record of one rollout of an agent.

    Args:
        agent: plays.
        stride: steps between the states that are kept.

    Attributes:
        entries: ``[B]`` of each step, the number that the step has in the replay of an agent that has one.
        kept: ``[T, B]``, the step as it was played of each step of the trace.
    """

    def __init__(self, agent: RecurrentAgent, stride: int):
        self.agent, self.stride = agent, stride
        self.subject = NetworkSubject(agent.network, agent.model_name)
        self.obs: list[Observation] = []
        self.inputs: list[Leaves] = []
        self.states: list[State] = []
        self.outputs: list[Tensor] = []
        self.starts: list[Tensor] = []
        self.entries: list[np.ndarray] = []
        self.kept = torch.zeros(0, dtype=torch.int64)
        self.told: list[tuple[np.ndarray, ...]] = []  # opens, rewards, terminated, truncated, ignored
        self.cuts: list[CutEpisodes] = []
        self.last: CutEpisodes | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While open, note what enters the network and what comes out, each time the agent acts."""
        network = self.agent.network
        whole = network.step

        def step(obs: Observation, state: State, starts: Tensor | None) -> tuple[Tensor, Tensor, State]:
            if len(self.obs) % self.stride == 0:
                self.states.append({name: leaf.clone() for name, leaf in state.items()})
            if isinstance(self.agent, RecurrentIQN):
                self.entries.append(self.agent.buffer.written.cpu().numpy().copy())
            self.obs.append({name: leaf.clone() for name, leaf in obs.items()})
            self.inputs.append({name: leaf.clone() for name, leaf in self.subject.encode(obs).items()})
            params, values, after = whole(obs, state, starts)
            self.outputs.append(self.subject.join(params, values).clone())
            rows = len(values)
            self.starts.append(torch.zeros(rows, dtype=torch.bool) if starts is None else starts.cpu().clone())
            return params, values, after

        vars(network)["step"] = step
        try:
            yield
        finally:
            del vars(network)["step"]

    def note(
        self,
        opens: np.ndarray,
        final_obs: Any,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        ignored: np.ndarray,
    ) -> None:
        """Note where episodes began and what came of a step, each ``[B]``; the agent has been told already."""
        truncated = truncated & ~terminated & ~ignored
        if truncated.any():
            env_ids = np.flatnonzero(truncated)
            self.cuts.append(self.agent.actor.cut_episodes(len(self.told), final_obs, env_ids))
        self.told.append((opens, rewards, terminated, truncated, ignored))

    def close(self, obs: Any) -> None:
        """Note what the environments show at the end."""
        self.last = self.agent.actor.cut_episodes(len(self.told), obs, np.arange(self.agent.num_envs))

    def trace(self) -> Trace:
        """Return the rollout, without steps that were ignored."""
        assert self.last is not None  # it is closed
        opens, rewards, terminated, truncated, ignored = map(np.stack, zip(*self.told, strict=True))
        trace = Trace(
            obs=stack(self.obs),
            inputs=stack(self.inputs),
            outputs=torch.stack(self.outputs),
            states=stack(self.states),
            stride=self.stride,
            opens=torch.from_numpy(opens),
            starts=torch.stack(self.starts),
            rewards=torch.from_numpy(rewards).float(),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            cuts=self.cuts,
            last=self.last,
        )
        flags = torch.from_numpy(ignored)
        size = int((~flags).sum(0).min())
        self.kept = torch.argsort(flags.byte(), dim=0, stable=True)[:size]  # the steps that count, then the others
        return without_ignored(trace, flags) if ignored.any() else trace


def stack(steps: list[Leaves]) -> Leaves:
    """Stack leaves ``[B, ...]`` of T steps as ``[T, B, ...]``."""
    return {name: torch.stack([step[name] for step in steps]) for name in steps[0]}


def without_ignored(trace: Trace, ignored: Tensor) -> Trace:
    """Close the gaps that steps leave that are no transitions, as rollouts do; rows with more steps lose the last ones.

    Args:
        trace: with a state of every step.
        ignored: ``[T, B]`` bool.
    """
    order = torch.argsort(ignored.byte(), dim=0, stable=True)
    counts = (~ignored).sum(0)
    size, env = int(counts.min()), torch.arange(ignored.shape[1])
    kept, place = order[:size], (~ignored).cumsum(0) - 1
    more = counts > size  # rows in which the step after the last kept one is known
    beyond = order[min(size, len(order) - 1)]

    def follow(leaves: Leaves, at_end: Leaves) -> Leaves:
        picked = {name: leaf[beyond, env] for name, leaf in leaves.items()}
        return {
            name: torch.where(more.to(leaf.device).view(-1, *[1] * (leaf.dim() - 1)), picked[name], leaf)
            for name, leaf in at_end.items()
        }

    last = CutEpisodes(
        size, trace.last.env_ids, follow(trace.obs, trace.last.obs), follow(trace.states, trace.last.state)
    )
    cuts = []
    for cut in trace.cuts:
        for row, env_id in enumerate(cut.env_ids.tolist()):
            step = int(place[cut.step, env_id])
            if step < size:
                parts = ({name: leaf[row : row + 1] for name, leaf in part.items()} for part in (cut.obs, cut.state))
                cuts.append(CutEpisodes(step, np.array([env_id]), *parts))
    for group in (trace.obs, trace.inputs, trace.states):
        group.update({name: leaf[kept, env] for name, leaf in group.items()})
    columns = ("outputs", "opens", "starts", "rewards", "terminated", "truncated")
    for name in columns:
        setattr(trace, name, getattr(trace, name)[kept, env])
    trace.cuts, trace.last = cuts, last
    return trace


def play(
    whole: RecurrentAgent | Population,
    recorder: Recorder,
    rows: np.ndarray,
    envs: VectorEnvAdapter,
    steps: int,
    seed: int,
) -> Any:
    """Play a rollout from the beginning of episodes, and note what an agent plays of it.

    Where no episode has been truncated by the middle of it, one is cut there: it goes on as another one, and an earlier
    observation stands for the one that closed it. So it is always seen what becomes of a truncation.

    Args:
        whole: plays all rows.
        recorder: of it, or of a member.
        rows: that the agent of the recorder plays.
        envs: to play in.
        steps: so many.
        seed: of the environments.

    Returns:
        What the environments of ``rows`` show at the end.
    """
    obs, opens = envs.reset(seed), np.ones(envs.envs.num_envs, dtype=bool)
    space, cut = envs.envs.single_observation_space, False
    with recorder.watching():
        for t in range(steps):
            acted = deepcopy(obs) if t >= steps // 2 and not cut else None
            step = envs.step(whole.act(obs))
            cut |= bool((step.truncated & ~step.terminated)[rows].any())
            if acted is not None and not cut and step.final_obs is None:
                cut = cut_one(step, acted, rows)
            whole.observe(step.rewards, step.terminated, step.truncated, step.final_obs, step.ignored)
            final = None if step.final_obs is None else take_rows(space, step.final_obs, rows)
            told = (column[rows].copy() for column in (step.rewards, step.terminated, step.truncated, step.ignored))
            recorder.note(opens[rows], final, *told)
            opens, obs = step.ended.copy(), step.obs
    recorder.close(own_obs := take_rows(space, obs, rows))
    return own_obs


def cut_one(step: StepResult, final_obs: Any, rows: np.ndarray) -> bool:
    """Make the outcome of a step say that the episode of one of ``rows`` was truncated, if it goes on in one."""
    going = rows[~(step.ended[rows])]
    if not len(going):
        return False
    step.truncated = step.truncated.copy()
    step.truncated[going[0]] = True
    step.final_obs = final_obs
    return True

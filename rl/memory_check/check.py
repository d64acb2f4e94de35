"""All checks together: of a memory, of a learner, of an agent in its environments."""

from collections.abc import Iterator

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from rl.agents import Population, RecurrentIQN, RecurrentPPO
from rl.memory_check import encoding, learning, model, reach, rollout
from rl.memory_check.comparing import flatten_steps
from rl.memory_check.iqn_learner import IQNLearner
from rl.memory_check.our_learner import copy_agent
from rl.memory_check.ppo_learner import PPOLearner
from rl.memory_check.subject import Inputs, Learner, Subject
from rl.memory_check.verdicts import Verdict
from rl.training.stepping import VectorEnvAdapter
from rl.types import Agent

SAMPLES = 4096
"""Inputs that sequences are drawn from, at most."""


def check_model(subject: Subject, samples: Inputs, bptt: int | None = None, seed: int = 0) -> list[Verdict]:
    """Make all checks that need no learner.

    Args:
        subject: to be checked.
        samples: inputs as ``subject.encode`` gives them, leaves ``[n, D]``: sequences are drawn from them.
        bptt: steps through which gradients are to flow; None for any.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    verdicts = [
        check(subject, samples, generator) for check in (model.check_unroll, model.check_starts, model.check_rows)
    ]
    verdicts.append(reach.check_gradient_reach(subject, samples, generator, bptt))
    verdicts.append(reach.check_time_scales(subject, samples, generator, bptt))
    return verdicts


def check_learner(learner: Learner, seed: int = 0) -> list[Verdict]:
    """Make all checks of an agent: of its memory, its rollout, its replay, what it learns from and its encoder.

    Args:
        learner: a copy of the agent, which is used up.
        seed: of the draws.
    """
    trace = learner.collect()
    samples = _thin_out(flatten_steps(trace.inputs))
    verdicts = check_model(learner, samples, learner.bptt, seed)
    replayed, again = learner.replay(seed), learner.replay(seed + 1)
    replay = rollout.check_replay(learner, trace, replayed)
    verdicts += [rollout.check_stored_starts(trace), replay]
    verdicts.append(rollout.check_minibatch_order(trace, replayed, again, replay.passed))
    verdicts.append(rollout.check_every_step(learner, trace, replayed))
    verdicts.append(rollout.check_gradient_length(learner, trace, replayed))
    other_features = replay.numbers.get("cause") == rollout.OTHER_FEATURES
    if trace.n_step is None:
        verdicts.append(learning.check_targets(learner, trace, other_features))
    else:
        verdicts.append(learning.check_n_step(trace, replayed))
    verdicts += [encoding.check_scales(trace), encoding.check_features(trace)]
    learner.update()
    verdicts.append(learning.check_staleness(learner, trace))
    return verdicts


def _thin_out(samples: Inputs) -> Inputs:
    """Return every so many samples of leaves ``[n, D]``, so that no more than ``SAMPLES`` are left."""
    stride = -(-len(next(iter(samples.values()))) // SAMPLES)
    return {name: leaf[::stride] for name, leaf in samples.items()}


def check_memory(agent: Agent, envs: VectorEnv | gymnasium.Env, seed: int = 0) -> list[Verdict]:
    """Check that an agent remembers, replays and learns what it should in an environment.

    A copy of the agent plays a rollout or two and learns once; the agent itself stays as it is. The environments are
    reset at the beginning and at the end. Of a population each member is checked; its name stands before the check.

    Args:
        agent: of this package, trained or not.
        envs: as many as it plays, or a single one for an agent that plays one.
        seed: of the environments and of the draws.

    Raises:
        ValueError: the agent is of another package, or plays another number of environments.
    """
    if isinstance(envs, gymnasium.Env):
        single = envs
        envs = SyncVectorEnv([lambda: single], autoreset_mode=AutoresetMode.SAME_STEP)
    if envs.num_envs != agent.num_envs:
        raise ValueError(f"envs={envs}: they must be as many as the agent plays, {agent.num_envs}")
    if not isinstance(agent, (RecurrentPPO, RecurrentIQN, Population)):
        raise ValueError(f"agent={agent}: it must be one of this package; write a rl.memory_check.subject.Learner")
    adapter = VectorEnvAdapter(envs)
    try:
        return list(_check_members(agent, adapter, seed))
    finally:
        adapter.reset(seed)


def _check_members(
    agent: RecurrentPPO | RecurrentIQN | Population, envs: VectorEnvAdapter, seed: int
) -> Iterator[Verdict]:
    """Yield the verdicts of an agent, or those of each member of a population."""
    if not isinstance(agent, Population):
        twin = copy_agent(agent)
        yield from check_learner(_make_learner(twin, twin, np.arange(agent.num_envs), envs, seed), seed)
        return
    for name in agent.members:
        whole = copy_agent(agent)
        member = whole.members[name]
        if not isinstance(member, (RecurrentPPO, RecurrentIQN)):
            what = f"{type(member).__name__} is no agent of this package, so it is not checked"
            yield Verdict(f"{name}/checked", None, what, "write a rl.memory_check.subject.Learner for it", {})
            continue
        learner = _make_learner(whole, member, whole.rows[name], envs, seed)
        for verdict in check_learner(learner, seed):
            yield verdict._replace(check=f"{name}/{verdict.check}")


def _make_learner(
    whole: RecurrentPPO | RecurrentIQN | Population,
    agent: RecurrentPPO | RecurrentIQN,
    rows: np.ndarray,
    envs: VectorEnvAdapter,
    seed: int,
) -> PPOLearner | IQNLearner:
    kind = PPOLearner if isinstance(agent, RecurrentPPO) else IQNLearner
    return kind(whole, agent, rows, envs, seed)

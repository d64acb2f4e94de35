"""What is noted of a rollout: true states, starts and ends, an episode that is cut, steps that are none."""

import numpy as np
import pytest
import torch

from envs.probes import Counter
from rl.agents import RecurrentPPO
from rl.memory_check import Trace
from rl.memory_check.our_learner import copy_agent
from rl.memory_check.recorder import Recorder, play, without_ignored
from rl.training.stepping import VectorEnvAdapter
from rl.types import CutEpisodes


@pytest.fixture
def record():
    """``record(envs, steps, stride, rows)``: the trace of a small agent in a counter of its own steps."""

    def run(envs, steps=8, stride=1):
        spaces = envs.single_observation_space, envs.single_action_space
        agent = RecurrentPPO(*spaces, 4, seed=0, num_envs=envs.num_envs, num_steps=8, bptt=4, num_minibatches=1)
        twin = copy_agent(agent)
        recorder = Recorder(twin, stride)
        play(twin, recorder, np.arange(envs.num_envs), VectorEnvAdapter(envs), steps, seed=0)
        return recorder.trace(), twin

    return run


def test_what_the_environments_tell_is_noted(record):
    trace, agent = record(Counter(2, [3, 5], end="truncated"))
    assert trace.obs["obs"][..., 0].tolist() == [[0, 0], [1, 1], [2, 2], [0, 3], [1, 4], [2, 0], [0, 1], [1, 2]]
    assert torch.nonzero(trace.truncated).tolist() == [[2, 0], [4, 1], [5, 0]] and not trace.terminated.any()
    assert torch.nonzero(trace.opens).tolist() == [[0, 0], [0, 1], [3, 0], [5, 1], [6, 0]]
    assert trace.rewards.tolist() == trace.obs["obs"][..., 0].tolist()
    assert [(cut.step, cut.env_ids.tolist(), cut.obs["obs"][0, 0].item()) for cut in trace.cuts] == [
        *((2, [0], 3), (4, [1], 5), (5, [0], 3))
    ]
    assert trace.last.obs["obs"][:, 0].tolist() == [2, 3]
    assert (trace.opens == agent.buffer.starts[:8]).all()


def test_states_are_those_before_the_steps(record):
    """Played on from each of them, the outputs come again; after the last step stands the last state."""
    trace, agent = record(Counter(2, [3, 5], end="truncated"))
    with torch.no_grad():
        for t in range(8):
            state = {name: leaf[t] for name, leaf in trace.states.items()}
            params, values, after = agent.network.step({"obs": trace.obs["obs"][t]}, state, trace.opens[t])
            assert torch.equal(torch.cat([params, values.unsqueeze(1)], 1), trace.outputs[t])
    assert all(torch.equal(leaf, trace.last.state[name]) for name, leaf in after.items())


def test_states_are_kept_at_every_stride(record):
    every, _ = record(Counter(2, [3, 5]))
    some, _ = record(Counter(2, [3, 5]), stride=4)
    assert all(torch.equal(leaf, every.states[name][::4]) for name, leaf in some.states.items())


def test_one_episode_is_cut_in_the_middle_where_none_is(record):
    """It goes on as another; the observation acted on stands for the one that closed it."""
    trace, agent = record(Counter(2, 100))
    assert torch.nonzero(trace.truncated).tolist() == [[4, 0]]
    assert torch.nonzero(trace.opens).tolist() == [[0, 0], [0, 1], [5, 0]]
    (cut,) = trace.cuts
    assert (cut.step, cut.env_ids.tolist(), cut.obs["obs"].tolist()) == (4, [0], [[4.0, 0.0]])
    assert trace.obs["obs"][:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert agent.buffer.truncated[:8].tolist() == trace.truncated.tolist()


def test_no_episode_is_cut_where_all_end_in_every_step(record):
    trace, _ = record(Counter(2, 1))
    assert not trace.truncated.any() and trace.terminated.all()


def test_steps_that_are_none_are_taken_out():
    """Row 0 has steps 0 and 2, row 1 all three: of both two are left, and what followed them."""
    column = torch.tensor([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0]])
    ignored = torch.tensor([[False, False], [True, False], [False, False]])
    leaf, never = column.unsqueeze(-1), torch.zeros(3, 2, dtype=torch.bool)
    cuts = [CutEpisodes(2, np.array([0, 1]), {"o": torch.tensor([[5.0], [6.0]])}, {"s": torch.tensor([[7.0], [8.0]])})]
    last = CutEpisodes(3, np.arange(2), {"o": torch.tensor([[3.0], [13.0]])}, {"s": torch.tensor([[-3.0], [-13.0]])})
    told = {"opens": never, "starts": never, "terminated": never, "truncated": never, "rewards": column}
    trace = Trace({"o": leaf}, {"x": leaf + 100}, leaf, {"s": -leaf}, 1, cuts=cuts, last=last, **told)
    closed = without_ignored(trace, ignored)
    assert closed.rewards.tolist() == [[0.0, 10.0], [2.0, 11.0]] == closed.obs["o"].squeeze(-1).tolist()
    assert closed.states["s"].squeeze(-1).tolist() == [[0.0, -10.0], [-2.0, -11.0]]
    assert closed.last.obs["o"].flatten().tolist() == [3.0, 12.0]
    assert closed.last.state["s"].flatten().tolist() == [-3.0, -12.0]
    (cut,) = closed.cuts  # that of row 1 lies behind the end
    assert (cut.step, cut.env_ids.tolist(), cut.obs["o"].item(), cut.state["s"].item()) == (1, [0], 5.0, 7.0)

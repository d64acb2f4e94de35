"""skrl as a worker, where it is installed."""

from dataclasses import replace

import pytest
import torch

from experiments.peers import workloads

pytest.importorskip("skrl")


@pytest.mark.parametrize("variant, name", [("documented", "skrl"), ("padded", "skrl padded")])
@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_skrl(tiny_workload, check_worker, core, variant, name):
    from experiments.peers import skrl

    arguments = workloads.make_parser(None).parse_args(["--workload", tiny_workload, "--core", core, "--bptt", "4"])
    arguments.variant = variant
    worker = skrl.build(arguments)
    assert worker.name == name
    check_worker(worker)


def skrl_agent(core, variant, bptt=16, num_envs=4):
    """The agent on small w1, its environments and the workload."""
    from experiments.peers import skrl

    work = replace(workloads.WORKLOADS["w1"], hidden_size=8, num_envs=num_envs, num_steps=64)
    envs = workloads.make_vector_env(work)
    return skrl.make_agent(envs, work, core, bptt, variant), envs, work


@pytest.mark.parametrize("variant", ["documented", "padded"])
@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_skrl_replays_what_it_played(core, variant):
    """Before any update the replayed probabilities are those of the rollout, across the ends of episodes too.

    From the states before each step, that is: the agent stores those after it.
    """
    from experiments.peers import skrl

    agent, envs, work = skrl_agent(core, variant)
    played = {}
    agent.update = lambda **_: played.update({name: tensor.clone() for name, tensor in agent.memory.tensors.items()})
    _, episodes = skrl.Iterations(agent, envs, work.num_steps)()
    rows = agent.memory.all_sequence_indexes
    batch = {name: tensor.flatten(0, 1)[rows] for name, tensor in played.items()}
    fresh = torch.ones(work.num_envs, work.num_steps, dtype=torch.bool)
    fresh[:, 1:] = (batch["terminated"] | batch["truncated"]).view(fresh.shape)[:, :-1]
    after = [batch[f"rnn_policy_{leaf}"].transpose(0, 1) for leaf in range(agent.policy.leaves)]
    state = [leaf.roll(1, 1).masked_fill(fresh.view(1, -1, 1), 0.0) for leaf in after]
    inputs = {name: batch[name] for name in ("observations", "terminated", "truncated")}
    with torch.no_grad():
        _, outputs = agent.policy.act({**inputs, "taken_actions": batch["actions"], "rnn": state}, role="policy")
    assert episodes > 4
    torch.testing.assert_close(outputs["log_prob"], batch["log_prob"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant, calls", [("documented", [(2, 2), (2, 1), (2, 1)]), ("padded", [(4, 4)])])
def test_skrl_calls_of_the_layer(variant, calls):
    """Two sequences of four steps; episodes end at step 1 of the one and at steps 2 and 3 of the other.

    Calls as (sequences, steps).
    """
    agent, _, _ = skrl_agent("lstm", variant, bptt=4)
    model, seen = agent.policy, []
    run = model.run_core

    def spy(x, state):
        seen.append(tuple(x.shape[:2]) if variant == "documented" else tuple(x.shape[1::-1]))
        return run(x, state)

    model.run_core = spy
    terminated = torch.zeros(8, 1, dtype=torch.bool)
    terminated[[1, 6, 7]] = True
    inputs = {"observations": torch.randn(8, 2), "terminated": terminated, "truncated": torch.zeros_like(terminated)}
    model.run_trunk({**inputs, "rnn": [torch.randn(1, 8, 8) for _ in range(2)]})
    assert seen == calls

"""What is measured on a rollout: stale states, the reach of the gradient, features and gates of what was played."""

from functools import partial

import pytest
import torch

from experiments.benchmark.host_reads import HostReads
from rl import cores
from rl.networks.diagnostics import NAMES
from rl.ppo import PPO, diagnostics
from rl.ppo.diagnostics import choose_sequences, diagnose_rollout, measure_staleness, name_remedy, spread

T = 12


@pytest.fixture
def rollout(make_network, collect):
    """A network and a rollout that it has played."""

    def make(core=cores.gru, network_options=None, **options):
        network = make_network(core, **(network_options or {}))
        return network, *collect(network, T, **options)

    return make


@pytest.fixture
def change(randomise):
    """Move the weights of a network a little, as an update does."""

    @torch.no_grad()
    def move(network, share=0.1):
        before = [weight.clone() for weight in network.parameters()]
        for weight, was in zip(randomise(network, seed=1).parameters(), before, strict=True):
            weight.lerp_(was, 1 - share)

    return move


def staleness(network, buffer, last=None, **options):
    return measure_staleness(network, buffer, PPO(**{"bptt": 4} | options), last)["state_staleness"].item()


def diagnose(network, buffer, targets, **options):
    found = diagnose_rollout(network, buffer, targets, PPO(**{"bptt": 4} | options), 0.0)
    return {name: value.item() for name, value in found.items()}


# ----------------------------------------------------------------------------------------------------------- staleness


@pytest.mark.parametrize("core", [cores.gru, cores.lstm, cores.attention], ids=["gru", "lstm", "attention"])
def test_states_are_stale_once_weights_have_changed(core, rollout, change):
    network, buffer, _ = rollout(core)
    assert staleness(network, buffer) < 1e-6
    change(network, 0.01)
    slightly = staleness(network, buffer)
    change(network, 0.2)
    assert 1e-4 < slightly < 0.1 < staleness(network, buffer)


def test_staleness_is_the_relative_difference_of_the_states_that_count(rollout, change, step_by_step):
    """Sequences of 6 steps begin at steps 0 and 6; after step 12 all but the first of four environments go on."""
    network, buffer, _ = rollout(cores.lstm)
    buffer.starts[6] = torch.tensor([False, True, False, False])
    last = network.initial_state(4)
    last = {name: leaf + 0.5 for name, leaf in last.items()}
    change(network)
    obs, first = buffer.observations(), {name: leaf[0] for name, leaf in buffer.state.items()}
    with torch.no_grad():
        *_, middle = step_by_step(network, {name: leaf[:6] for name, leaf in obs.items()}, first, buffer.starts[:6])
        *_, end = step_by_step(network, obs, first, buffer.starts)
    pairs = [(buffer.state[name][6][[0, 2, 3]], middle[name][[0, 2, 3]]) for name in middle]
    pairs += [(last[name][1:], end[name][1:]) for name in end]
    used, right = (torch.cat([leaf.flatten() for leaf in column]) for column in zip(*pairs, strict=True))
    expected = ((used - right).norm() / right.norm()).item()
    starts = torch.tensor([True, False, False, False]).numpy()
    assert staleness(network, buffer, (last, starts), bptt=6) == pytest.approx(expected, rel=1e-5)


def test_the_state_after_the_rollout_is_that_of_the_next_one(rollout, change):
    """With whole rollouts as sequences it is the only one."""
    network, buffer, _ = rollout()
    with torch.no_grad():
        first = {name: leaf[0] for name, leaf in buffer.state.items()}
        *_, last = network.unroll(buffer.observations(), first, buffer.starts)
    never = buffer.starts[0].numpy() & False
    assert staleness(network, buffer, (last, never), bptt=None) < 1e-6
    change(network)
    assert staleness(network, buffer, (last, never), bptt=None) > 0.01
    assert measure_staleness(network, buffer, PPO(bptt=None), None) == {}


def test_renewed_states_are_fresh(rollout, change):
    """Burn-in of a whole sequence helps a memory that forgets; refreshing makes states fresh to the last digit."""
    network, buffer, _ = rollout(start_probability=0.0)
    assert staleness(network, buffer, burn_in=2) < 1e-6
    change(network)
    assert staleness(network, buffer, burn_in=4) < 0.8 * staleness(network, buffer)
    with torch.no_grad():
        buffer.refresh(network.unroll, 4)
    assert staleness(network, buffer) < 1e-6


def test_a_core_without_a_state_has_none_that_is_stale(rollout):
    network, buffer, targets = rollout(cores.mlp)
    assert measure_staleness(network, buffer, PPO(bptt=4), ({}, buffer.starts[0].numpy())) == {}
    assert diagnose(network, buffer, targets).keys() == {"dead_features"}


# -------------------------------------------------------------------------------------------------------------- others


def test_a_few_environments_are_looked_at():
    assert [len(range(count)[spread(count, 8)]) for count in (1, 8, 9, 16, 20, 1000)] == [1, 8, 5, 8, 7, 8]
    assert [*range(20)[spread(20, 8)]] == [0, 3, 6, 9, 12, 15, 18]


def test_the_sequence_with_the_longest_history_is_chosen():
    """Sequences at 0, 3 and 6: histories of 1, 2, 2 steps in the first environment, 2, 1, 0 in the second."""
    starts = torch.zeros(9, 2, dtype=torch.bool)
    starts[1, 0] = starts[4, 1] = starts[6:, 1] = True
    first, length = choose_sequences(starts, [(0, 3), (3, 3), (6, 3)])
    assert (first.tolist(), length) == ([3, 0], 3)


def test_short_sequences_cut_the_gradient(rollout):
    """Over twelve steps without a start it reaches more than eight back, with bptt=4 three."""
    given = rollout(cores.lstm, start_probability=0.0)
    cut, whole = (diagnose(*given, bptt=bptt) for bptt in (4, None))
    assert cut["gradient_share_older_than_8"] == 0.0 < cut["gradient_share_older_than_1"]
    assert 0.0 < whole["gradient_share_older_than_8"] < whole["gradient_share_older_than_1"] < 1.0
    assert diagnose(*given, bptt=1)["gradient_share_older_than_1"] == 0.0


def test_a_memory_that_never_keeps_has_no_old_gradient(rollout):
    """Forget gates shut by a bias of -20 and no weights of h: nothing of a step before."""
    network, buffer, targets = rollout(cores.lstm, start_probability=0.0)
    assert diagnose(network, buffer, targets)["gradient_share_older_than_1"] > 0.01
    (layer,) = network.actor.core.layers
    with torch.no_grad():
        layer.bias_ih[8:16] = -20.0
        layer.weight_hh.zero_()
    assert diagnose(network, buffer, targets)["gradient_share_older_than_1"] < 1e-6


def test_a_separate_critic_has_no_part_in_the_memory_of_the_policy(rollout):
    shared, apart = rollout(), rollout(network_options={"separate_critic": True})
    shares = [
        [diagnose(*given, value_coef=weight)["gradient_share_older_than_1"] for weight in (0.0, 10.0)]
        for given in (shared, apart)
    ]
    assert shares[1][0] == shares[1][1] > 0.0
    assert abs(shares[0][0] - shares[0][1]) > 1e-3


def test_zeroed_rows_of_the_encoder_are_dead_features(rollout):
    network, buffer, targets = rollout()
    assert diagnose(network, buffer, targets)["dead_features"] == 0.0
    with torch.no_grad():
        network.actor.encoder.layer.weight[:6] = 0.0
    assert diagnose(network, buffer, targets)["dead_features"] == 6 / 8


def test_gates_are_looked_at_where_there_are_states(rollout):
    """Stored at every fourth step, they give three steps of four environments; the gates see what was stored."""
    network, buffer, targets = rollout(state_stride=4)
    seen = []
    network.actor.core.gates = lambda *given: seen.append(given) or torch.full((12, 2), 0.01)
    assert diagnose(network, buffer, targets)["gate_saturation"] == 1.0
    ((features, state, starts),) = seen
    with torch.no_grad():
        expected = network.actor.features({"obs": buffer.obs["obs"][::4]}).flatten(0, 1)
    torch.testing.assert_close(features, expected)
    assert torch.equal(state["h"], buffer.state["h"].flatten(0, 1))
    assert torch.equal(starts, buffer.starts[::4].flatten())


@pytest.mark.parametrize("core", [getattr(cores, name) for name in cores.__all__], ids=cores.__all__)
def test_nothing_is_read_and_nothing_is_changed(core, rollout):
    network, buffer, targets = rollout(core, {"separate_critic": True})
    stored = [leaf for leaf in buffer.leaves() if leaf.is_floating_point()]
    before = [leaf.clone() for leaf in [*network.state_dict().values(), *buffer.leaves()]]
    random = torch.get_rng_state()
    last = network.initial_state(4), buffer.starts[0].numpy()
    with HostReads([*network.parameters(), *stored, *vars(targets).values()]) as mode:
        found = diagnose_rollout(network, buffer, targets, PPO(bptt=4), 0.0)
        found |= measure_staleness(network, buffer, PPO(bptt=4), last)
    assert mode.reads == []
    assert {"dead_features"} <= found.keys() <= {*NAMES} and all(torch.isfinite(value) for value in found.values())
    assert all(map(torch.equal, before, [*network.state_dict().values(), *buffer.leaves()]))
    assert torch.equal(random, torch.get_rng_state())


def test_the_remedy_for_stale_states_is_one_that_is_left():
    advice = "set agent.refresh_states=true or agent.burn_in"
    assert name_remedy(PPO(bptt=4), 12) == advice
    for options in ({"bptt": None}, {"bptt": 12}, {"bptt": 4, "burn_in": 2}, {"bptt": 4, "refresh_states": True}):
        assert name_remedy(PPO(**options), 12) == "raise num_steps"


def test_a_burn_in_from_the_first_step_renews_what_was_stored(make_network, collect):
    """That of a sequence which begins just where it fits is measured, as it is used."""
    network = make_network(cores.gru)
    buffer, _ = collect(network, 8, start_probability=0.0)
    buffer.state["h"][4] += 1.0
    found = [measure_staleness(network, buffer, PPO(bptt=4, burn_in=steps), None) for steps in (0, 4)]
    stale, fresh = (each["state_staleness"].item() for each in found)
    assert fresh < 1e-6 < 0.1 < stale


PPO_OF_WHOLE_ROLLOUTS = PPO(bptt=None)


def test_the_memory_is_measured_on_the_environments_that_were_chosen(make_network, collect, monkeypatch):
    network, seen = make_network(cores.gru), []
    buffer, targets = collect(network, 6, num_envs=12)
    monkeypatch.setattr(diagnostics, "measure_memory", lambda core, given, *rest: seen.append(given) or {})
    diagnose_rollout(network, buffer, targets, PPO_OF_WHOLE_ROLLOUTS, 0.0)
    assert torch.equal(seen[0].starts, buffer.starts[:, ::2])
    torch.testing.assert_close(seen[0].features, network.actor.features({"obs": buffer.obs["obs"][:, ::2]}))


def test_states_that_a_start_clears_do_not_count_in_the_environments_that_were_chosen(make_network, collect):
    network = make_network(cores.gru)
    buffer, _ = collect(network, 6, num_envs=12)
    with torch.no_grad():
        *_, state = network.unroll(buffer.obs, buffer.state_before(0), buffer.starts)
    starts = torch.zeros(12, dtype=torch.bool)
    starts[[2, 6]] = True
    state["h"][[2, 6]] += 100.0
    found = measure_staleness(network, buffer, PPO_OF_WHOLE_ROLLOUTS, (state, starts.numpy()))
    assert found["state_staleness"] < 1e-5


def test_a_critic_may_have_another_memory_of_another_size(make_network, collect):
    critic_core = partial(cores.gru, hidden_size=16)
    network = make_network(cores.gru, separate_critic=True, critic_core=critic_core, head_layers=[6])
    rollout = collect(network, 8)
    assert "hidden_norm" in diagnose_rollout(network, *rollout, PPO(bptt=4), 0.0)


@pytest.mark.parametrize("layers", [None, [6]])
def test_the_loss_of_the_value_counts_where_its_memory_is_that_of_the_policy(layers, make_network, collect):
    """Without advantages and entropy the loss is that of the value."""
    network = make_network(cores.gru, head_layers=layers)
    buffer, targets = collect(network, 8)
    targets.advantages.zero_()
    found = diagnose_rollout(network, buffer, targets, PPO(bptt=4, entropy_coef=0.0), 0.0)
    assert torch.isfinite(found["gradient_share_older_than_1"])

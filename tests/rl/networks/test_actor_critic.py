import math
from functools import partial

import pytest
import torch
from gymnasium import spaces
from torch import nn

from rl import cores
from rl.networks import ActorCritic
from rl.spaces import leaf_spaces

T, B = 9, 4
MASKED = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (3,)), "action_mask": spaces.MultiBinary(5)})
every_core = pytest.mark.parametrize("core", [getattr(cores, name) for name in cores.__all__], ids=cores.__all__)


@pytest.fixture
def make_inputs():
    """Observations ``[T, B, 3]`` and ``starts [T, B]``."""

    def make(device="cpu"):
        generator = torch.Generator().manual_seed(0)
        obs = torch.randn(T, B, 3, generator=generator).to(device)
        return {"obs": obs}, torch.rand(T, B, generator=generator) < 0.2

    return make


@every_core
@pytest.mark.parametrize("separate_critic", [False, True])
def test_unroll_equals_step(
    core, separate_critic, device, make_network, make_inputs, random_state, step_by_step, assert_close
):
    network = make_network(core, separate_critic=separate_critic).to(device)
    obs, starts = make_inputs(device)
    state = random_state(network, B, device=device)
    params, values, new = network.unroll(obs, state, starts)
    step_params, step_values, step_new = step_by_step(network, obs, state, starts)
    assert params.shape == (T, B, 4)
    assert values.shape == (T, B)
    assert_close(params, step_params, 1e-5)
    assert_close(values, step_values, 1e-5)
    assert new.keys() == step_new.keys() == state.keys()
    for name in new:
        assert_close(new[name], step_new[name], 1e-5)
    outputs = ((params, values, new), (step_params, step_values, step_new))
    loss, step_loss = ((p**2).sum() + (v**3).sum() + sum((s**2).sum() for s in n.values()) for p, v, n in outputs)
    grads, step_grads = (torch.autograd.grad(which, list(network.parameters())) for which in (loss, step_loss))
    for one, other in zip(grads, step_grads, strict=True):
        assert_close(one, other, 1e-5)


def test_state_of_a_separate_critic_is_stored_apart(make_network):
    network = make_network(cores.lstm, separate_critic=True)
    state = network.initial_state(7)
    assert sorted(state) == ["c", "critic.c", "critic.h", "h"]
    assert all(leaf.shape == (7, 1, 8) for leaf in state.values())
    assert sorted(make_network(cores.lstm).initial_state(7)) == ["c", "h"]


@every_core
def test_a_separate_critic_and_the_policy_share_no_gradient(core, make_network, make_inputs):
    network = make_network(core, separate_critic=True)
    obs, starts = make_inputs()
    params, values, _ = network.unroll(obs, network.initial_state(B), starts)
    of_params, of_values = (
        ((params**2).sum(), "actor.", {"hidden": [1, 0], "heads": [1, 1, 1, 1, 0]}),
        ((values**2).sum(), "critic.", {"hidden": [0, 1], "heads": [0, 0, 0, 0, 1]}),
    )
    for loss, own, used in (of_params, of_values):
        grads = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, retain_graph=True)
        for (name, _), grad in zip(network.named_parameters(), grads, strict=True):
            if rows := used.get(name.split(".")[0]):
                assert (grad.view(len(rows), -1).abs().amax(1) > 0).int().tolist() == rows, name
            else:
                assert (grad is not None and grad.abs().max() > 0) == name.startswith(own), name


@pytest.mark.parametrize("separate_critic", [False, True])
def test_the_last_row_of_the_output_layer_is_the_value(separate_critic, make_network, make_inputs):
    network = make_network(cores.gru, separate_critic=separate_critic)
    obs, starts = make_inputs()
    before, values, _ = network.unroll(obs, network.initial_state(B), starts)
    with torch.no_grad():
        network.heads.bias += torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0])
    after, moved, _ = network.unroll(obs, network.initial_state(B), starts)
    torch.testing.assert_close(after, before)
    torch.testing.assert_close(moved, values + 5.0)


@pytest.mark.parametrize(("prefix", "moves"), [("", (True, False)), ("critic.", (False, True))])
def test_each_half_of_the_state_reaches_its_own_output(prefix, moves, make_network, make_inputs):
    network = make_network(cores.gru, separate_critic=True)
    obs, starts = make_inputs()
    starts[:] = False
    state = network.initial_state(B)
    params, values, _ = network.unroll(obs, state, starts)
    name = prefix + "h"
    other_params, other_values, _ = network.unroll(obs, state | {name: state[name] + 1.0}, starts)
    assert (not torch.equal(params, other_params), not torch.equal(values, other_values)) == moves


def test_a_shared_trunk_serves_both(make_network, make_inputs):
    network = make_network(cores.gru)
    obs, starts = make_inputs()
    params, values, _ = network.unroll(obs, network.initial_state(B), starts)
    assert network.critic is None
    for loss in (params.sum(), values.sum()):
        (grad,) = torch.autograd.grad(loss, [network.actor.core.layers[0].weight_ih], retain_graph=True)
        assert grad.abs().max() > 0


def test_initial_weights_behind_the_memory():
    network = ActorCritic(leaf_spaces(spaces.Box(-1.0, 1.0, (3,))), spaces.Discrete(4), cores.gru, layer_size=8)
    for rows in network.hidden.weight.split(8):  # orthogonal rows of length sqrt(2)
        assert torch.allclose(rows @ rows.t(), 2.0 * torch.eye(8), atol=1e-5)
    assert torch.count_nonzero(network.hidden.bias) == 0
    policy, value = network.heads.weight[:-1], network.heads.weight[-1]
    # orthogonal rows of length 0.01: the first policy is close to uniform; and of length 1
    assert torch.allclose(policy @ policy.t(), 1e-4 * torch.eye(4), atol=1e-8)
    assert value.norm().item() == pytest.approx(1.0, abs=1e-5)
    assert torch.count_nonzero(network.heads.bias) == 0


def test_options_reach_the_parts(make_network):
    space = spaces.Dict({"image": spaces.Box(0, 1, (2, 3, 2)), "x": spaces.Box(-1.0, 1.0, (3,))})
    options = {"layer_size": 7, "image_layout": "flat", "action_names": ["move", "vote"], "separate_critic": True}
    network = make_network(cores.gru, space, spaces.MultiDiscrete([2, 3]), **options)
    assert network.head.branches == ("move", "vote")
    for trunk in (network.actor, network.critic):
        assert trunk.encoder.layer.weight.shape == (7, 2 * 3 * 2 + 3)  # as numbers, not through a CNN
    assert network.hidden.weight.shape == (2 * 7, 8) and network.heads.weight.shape == (5 + 1, 7)


def test_a_state_is_made_on_the_device_that_is_asked_for(make_network):
    for separate_critic in (False, True):
        state = make_network(cores.lstm, separate_critic=separate_critic).initial_state(2, "meta")
        assert {leaf.device.type for leaf in state.values()} == {"meta"}


# -------------------------------------------------------------------------------------------------------- head layers


@pytest.mark.parametrize("separate_critic", [False, True])
def test_head_layers_are_those_of_the_equations(separate_critic, make_network, make_inputs, assert_close):
    """Of policy and value apart, the last layer of each linear."""
    options = {"head_layers": [7, 6], "value_head_layers": [5], "head_activation": "relu"}
    network = make_network(cores.gru, separate_critic=separate_critic, **options)
    assert not hasattr(network, "hidden") and not hasattr(network, "heads")
    obs, starts = make_inputs()
    state = network.initial_state(B)
    params, values, _ = network.unroll(obs, state, starts)
    read = []
    for trunk, prefix in ((network.actor, ""), (network.critic or network.actor, "critic." if separate_critic else "")):
        own = {"h": state[f"{prefix}h"]}
        read.append(trunk.core.unroll(trunk.features(obs), own, starts)[0])
    for found, y, net, widths in (
        (params, read[0], network.head_layers.policy, [7, 6, 4]),
        (values.unsqueeze(-1), read[1], network.head_layers.value, [5, 1]),
    ):
        layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        assert [layer.out_features for layer in layers] == widths
        for layer in layers[:-1]:
            y = (y @ layer.weight.T + layer.bias).clamp_min(0)
        assert_close(found, y @ layers[-1].weight.T + layers[-1].bias, 1e-5)


def test_the_value_has_the_layers_of_the_policy_unless_told(make_network):
    network = make_network(cores.gru, head_layers=[6])
    assert [layer.weight.shape for layer in network.head_layers.value[::2]] == [(6, 8), (1, 6)]
    assert len(make_network(cores.gru, head_layers=[]).head_layers.policy) == 1  # linear


def test_a_critic_may_have_another_memory_or_none(make_network, make_inputs):
    none = partial(cores.mlp, num_layers=0)
    network = make_network(cores.lstm, separate_critic=True, critic_core=none, head_layers=[6])
    assert sorted(network.initial_state(2)) == ["c", "h"]
    obs, starts = make_inputs()
    _, values, _ = network.unroll(obs, network.initial_state(B), starts)
    state = {name: leaf + 1.0 for name, leaf in network.initial_state(B).items()}
    assert torch.equal(network.unroll(obs, state, starts)[1], values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_head_layers": [4]}, r"value_head_layers=\[4\] needs those of the policy"),
        ({"head_activation": "relu"}, "head_activation='relu' needs layers"),
        ({"head_layers": [4], "head_activation": "cube"}, "head_activation='cube'"),
        ({"head_layers": [4, 0]}, r"head_layers\[1\]=0"),
        ({"critic_core": cores.gru}, "critic_core is for a critic with a memory of its own"),
        ({"critic_core": cores.gru, "separate_critic": True}, "critic_core gives 128 features and core 8"),
    ],
)
def test_head_layers_that_cannot_be_are_refused(options, message, make_network):
    with pytest.raises(ValueError, match=message):
        make_network(cores.gru, **options)


# -------------------------------------------------------------------------------------------------------- action mask


@pytest.fixture
def masked(make_network):
    network = make_network(cores.gru, MASKED, spaces.Discrete(5))
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(50, 5, generator=generator) < 0.5
    mask[:, 2] |= ~mask.any(-1)  # something is always allowed
    obs = {"x": torch.randn(50, 3, generator=generator), "action_mask": mask}
    starts = torch.ones(50, dtype=torch.bool)
    return network, obs, network.initial_state(50), starts


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.float32])
def test_forbidden_actions_are_never_taken(masked, dtype):
    network, obs, state, starts = masked
    params, _, _ = network.step(obs | {"action_mask": obs["action_mask"].to(dtype)}, state, starts)
    assert obs["action_mask"].gather(1, network.head.mode(params)).all()
    taken = torch.zeros(50, 5, dtype=torch.bool)
    for seed in range(200):
        taken.scatter_(1, network.head.sample(params, torch.Generator().manual_seed(seed)), True)
    assert not (taken & ~obs["action_mask"]).any()
    assert (taken & obs["action_mask"]).sum() > 0.9 * obs["action_mask"].sum()  # and those allowed are


def test_probabilities_of_the_allowed_actions_add_up_to_one(masked, assert_close):
    network, obs, state, starts = masked
    masked_params, _, _ = network.step(obs, state, starts)
    free, _, _ = network.step(obs | {"action_mask": torch.ones_like(obs["action_mask"])}, state, starts)
    every = torch.arange(5).expand(50, 5).unsqueeze(-1)
    log_probs, entropies = network.head.evaluate(masked_params.unsqueeze(1).expand(-1, 5, -1), every)  # each [50, 5, 1]
    expected = free.softmax(-1) * obs["action_mask"]
    assert_close(log_probs.squeeze(-1).exp(), expected / expected.sum(-1, keepdim=True), 1e-6)
    entropies = entropies[:, 0]
    assert torch.isfinite(entropies).all()
    allowed = obs["action_mask"].sum(-1, keepdim=True)
    assert (entropies <= allowed.log() + 1e-6).all()
    assert (entropies[allowed == 1].abs() < 1e-6).all()


def test_gradients_through_a_mask_are_finite_and_zero_for_the_forbidden(masked):
    network, obs, state, starts = masked
    params, _, _ = network.step(obs, state, starts)
    params.retain_grad()
    log_probs, entropies = network.head.evaluate(params, network.head.mode(params))
    (log_probs.sum() + entropies.sum()).backward()
    assert torch.isfinite(params.grad).all()
    assert torch.count_nonzero(params.grad[~obs["action_mask"]]) == 0
    assert all(math.isfinite(p.grad.sum().item()) for p in network.parameters() if p.grad is not None)


def test_the_mask_is_no_input_of_the_encoder(masked):
    network, obs, state, starts = masked
    assert network.actor.encoder.names == ("x",)
    _, values, _ = network.step(obs, state, starts)
    _, others, _ = network.step(obs | {"action_mask": ~obs["action_mask"]}, state, starts)
    assert torch.equal(values, others)


def test_the_mask_covers_all_branches(make_network):
    space = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (3,)), "action_mask": spaces.MultiBinary(5)})
    network = make_network(cores.mlp, space, spaces.MultiDiscrete([2, 3]))
    mask = torch.tensor([[True, False, False, True, True]])  # move 0, vote 1 or 2
    params, _, _ = network.step({"x": torch.zeros(1, 3), "action_mask": mask}, {}, torch.ones(1, dtype=torch.bool))
    samples = network.head.sample(params.expand(500, -1), torch.Generator().manual_seed(0))
    assert samples.unique(dim=0).tolist() == [[0, 1], [0, 2]]


def test_a_mask_of_a_wrong_size_is_refused(make_network):
    with pytest.raises(ValueError, match=r"action_mask has shape \(5,\), but the policy has 4 logits"):
        make_network(cores.gru, MASKED, spaces.Discrete(4))


def test_a_mask_of_actions_that_are_no_choices_is_refused(make_network):
    with pytest.raises(ValueError, match="action_mask is for Discrete and MultiDiscrete actions"):
        make_network(cores.gru, MASKED, spaces.Box(-1.0, 1.0, (5,)))


def test_a_mask_holds_when_sequences_are_replayed(masked):
    """As in a step, and beside a critic of its own."""
    network, obs, state, starts = masked
    params, _, _ = network.step(obs, state, starts)
    one_step = {name: leaf.unsqueeze(0) for name, leaf in obs.items()}
    replayed, _, _ = network.unroll(one_step, state, starts.unsqueeze(0))
    torch.testing.assert_close(replayed[0], params)
    assert (replayed[0][~obs["action_mask"]] < -1e8).all()


def test_a_mask_beside_a_separate_critic(make_network):
    network = make_network(cores.gru, MASKED, spaces.Discrete(5), separate_critic=True)
    mask = torch.tensor([[True, False, False, True, True]])
    obs = {"x": torch.ones(1, 3), "action_mask": mask}
    params, values, _ = network.step(obs, network.initial_state(1), torch.ones(1, dtype=torch.bool))
    assert ((params < -1e8) == ~mask).all()
    assert values.abs().max() < 1e3


# ------------------------------------------------------------------------------------------------------ normalisation


@pytest.mark.parametrize("separate_critic", [False, True])
def test_moments_of_both_encoders_are_updated(separate_critic, make_network):
    network = make_network(cores.gru, separate_critic=separate_critic, normalise=True)
    network.update_moments({"obs": torch.tensor([[[1.0, 2.0, 3.0]], [[3.0, 2.0, 5.0]]])})
    moments = [module for module in network.modules() if hasattr(module, "mean")]
    assert len(moments) == 1 + separate_critic
    assert all(m.mean.tolist() == [2.0, 2.0, 4.0] and m.var.tolist() == [1.0, 0.0, 1.0] for m in moments)


def test_all_weights_are_parameters_of_the_module(make_network):
    network = make_network(cores.gru, action_space=spaces.Box(-1.0, 1.0, (2,)))
    names = {name for name, _ in network.named_parameters()}
    assert "head.log_std" in names
    assert isinstance(network.heads, nn.Linear)


def test_a_value_without_layers_is_linear_whatever_the_policy_has(make_network):
    network = make_network(cores.gru, head_layers=[6, 5], value_head_layers=[])
    assert [layer.out_features for layer in network.head_layers.policy if isinstance(layer, nn.Linear)] == [6, 5, 4]
    assert [layer.weight.shape for layer in network.head_layers.value] == [(1, 8)]

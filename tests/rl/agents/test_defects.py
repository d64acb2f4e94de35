"""Known ways in which recurrent PPO goes wrong, each as a test of the behaviour that rules it out.

The numbers are those of a list of defects that was found in an older implementation.
"""

import random
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import SpaceProbe
from rl import cores
from rl.agents import DualHeadRecurrentPPO, RecurrentPPO, RecurrentPPOLSTM
from rl.networks.encoders import VectorEncoder
from rl.training.evaluation import evaluate

NAMED = (DualHeadRecurrentPPO, RecurrentPPOLSTM)
BOX = spaces.Box(-np.inf, np.inf, (3,))


@pytest.fixture(params=NAMED, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture
def make_agent(kind):
    """The single form with rollouts of 8 turns in sequences of 4."""

    def make(observation_space=BOX, action_space=None, **options):
        options = {"num_steps": 8, "bptt": 4, "num_minibatches": 1, "epochs": 2, "seed": 0, **options}
        return kind(observation_space, action_space or spaces.MultiDiscrete([4, 3]), 8, **options)

    return make


@pytest.fixture
def play():
    """Some turns of random observations, paid 0, 1, 2 in turn; nothing ends unless ``ends`` names the turn."""

    def run(agent, turns, ends=()):
        generator = np.random.default_rng(0)
        for turn in range(turns):
            agent.take_action(generator.standard_normal(agent.observation_space.shape))
            agent.add_memory_ppo(float(turn % 3), turn in ends)

    return run


def test_the_end_of_a_rollout_is_worth_its_value(make_agent):  # 1
    """Reward 1, V = 5, gamma = 1/2: a rollout of one step returns 1 + 5/2, whether the epoch ends there or goes on."""
    for ends in (True, False):
        agent = make_agent(num_steps=1, gamma=0.5)
        with torch.no_grad():
            agent.network.heads.weight[-1].zero_()
            agent.network.heads.bias[-1].fill_(5.0)
        agent.take_action(np.zeros(3))
        agent.add_memory_ppo(1.0, False)
        if ends:
            agent.end_epoch_action(epoch=0)
        targets, _ = agent._targets(None)
        assert targets.returns.tolist() == [[3.5]]


def test_gradients_flow_back_through_time(make_agent, play):  # 2
    """The loss of the last step of a sequence depends on the input of its first, up to an episode's start."""
    agent = make_agent(bptt=8)
    play(agent, 8, ends=(2,))
    targets, _ = agent._targets(None)
    ((minibatch, _),) = agent.buffer.sequences(targets, 1, 8, agent.shuffle)
    obs = minibatch.obs["obs"].requires_grad_()
    params, values, _ = agent.network.unroll({"obs": obs}, minibatch.state, minibatch.starts)
    (gradient,) = torch.autograd.grad(params[-1].sum() + values[-1].sum(), obs)
    reached = gradient.abs().sum((1, 2)) > 0
    assert reached.tolist() == [False] * 3 + [True] * 5


def test_the_update_teaches_the_memory_what_to_keep(make_agent, play):  # 2
    agent = make_agent()
    name = "actor.core.layers.0.weight_hh"
    before = agent.network.state_dict()[name].clone()
    play(agent, 8)
    agent.train_step()
    assert not torch.equal(agent.network.state_dict()[name], before)


@pytest.mark.parametrize("option", [{"refresh_states": True}, {"burn_in": 4}])
def test_stored_states_can_be_renewed_with_the_current_weights(make_agent, play, option):  # 3
    """In the second epoch the second sequence begins with the state that the current weights reach in 4 steps."""
    agent = make_agent(epochs=2, learning_rate=0.05, **option)
    began, original = [], agent.network.unroll
    weights = []

    def unroll(obs, state, starts):
        if torch.is_grad_enabled():
            began.append({name: leaf.clone() for name, leaf in state.items()})
            weights.append({name: value.clone() for name, value in agent.network.state_dict().items()})
        return original(obs, state, starts)

    agent.network.unroll = unroll
    play(agent, 8)
    obs, starts = agent.buffer.obs["obs"][:4].clone(), agent.buffer.starts[:4].clone()
    stored = {name: leaf[4].clone() for name, leaf in agent.buffer.state.items()}
    agent.train_step()
    twin = make_agent()
    twin.network.load_state_dict(weights[1])
    with torch.no_grad():
        _, _, current = twin.network.unroll({"obs": obs}, twin.network.initial_state(1), starts)
    assert len(began) == 2
    for name, leaf in current.items():
        row = began[1][name].abs().sum((1, 2)).argmax()  # the order is shuffled: the other sequence begins with zeros
        torch.testing.assert_close(began[1][name][row], leaf[0])
        assert not torch.allclose(leaf, stored[name], atol=1e-4)


def test_acting_builds_no_graph(make_agent, play):  # 4
    agent = make_agent(num_steps=100)
    play(agent, 60)
    tensors = [*agent.actor.state.values(), agent.buffer.params, agent.buffer.values, *agent.buffer.state.values()]
    assert all(tensor.grad_fn is None and not tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("turns", [1, 2])
def test_a_rollout_of_one_step_leaves_finite_weights(make_agent, play, turns):  # 5
    agent = make_agent(num_steps=1)
    for _ in range(2):
        play(agent, turns)
        agent.end_epoch_action(epoch=0)
        assert np.isfinite(agent.train_step())
    assert agent.updates == 2
    assert all(torch.isfinite(value).all() for value in agent.network.state_dict().values())


@pytest.mark.parametrize("dims", [(5, 3), (5, 3, 2), (2, 3, 4)])
def test_codes_of_several_branches_are_all_different_and_in_range(kind, dims):  # 6
    agent = kind(BOX, spaces.MultiDiscrete(dims), 8, seed=0)
    agent.training = False
    codes = []
    with torch.no_grad():
        agent.network.heads.weight[:-1].zero_()
        for branches in product(*(range(n) for n in dims)):
            chosen = [torch.eye(n)[branch] for n, branch in zip(dims, branches, strict=True)]
            agent.network.heads.bias[:-1].copy_(50 * torch.cat(chosen))
            codes.append(agent.take_action(np.zeros(3)))
            assert np.unravel_index(codes[-1], dims) == branches
            assert agent.get_dual_action() == branches
    assert sorted(codes) == list(range(np.prod(dims)))


def test_numbers_beside_an_image_are_seen(kind):  # 7
    """The policy of a network with random weights changes with each of the four scalars."""
    agent = kind(49, 7, obs_dim=(5, 3, 3), hidden_size=8, seed=0)
    seen = []
    for index in (None, 45, 46, 47, 48):
        observation = np.zeros(49, dtype=np.float32)
        if index is not None:
            observation[index] = 1.0
        params, _, _ = agent.new_actor(1, 0).act(agent.actor.inputs(observation))
        seen.append(params)
    assert all(not torch.equal(one, other) for i, one in enumerate(seen) for other in seen[:i])


NOOP_MOVE, PLAIN, COMPOSITE = {"n_move_actions": 5}, {}, {"use_composite_actions": True}


@pytest.mark.parametrize(("codes", "options"), [(7, NOOP_MOVE), (6, PLAIN), (12, COMPOSITE)])
def test_every_code_can_be_reached(codes, options):  # 8
    agent = DualHeadRecurrentPPO(3, codes, hidden_size=8, seed=0, rollout_length=1000, **options)
    seen = set()
    for _ in range(400):
        seen.add(agent.take_action(np.zeros(3)))
        agent.add_memory_ppo(0.0, False)
    assert seen == set(range(codes))


def test_only_what_was_executed_is_trained():  # 9
    """Two in three steps vote, so the sampled move is hidden: its gradient must come from the other steps alone."""
    agent = DualHeadRecurrentPPO(3, 7, hidden_size=8, seed=0, rollout_length=64, batch_size=64, bptt=64)
    hidden = 0
    for _ in range(64):
        code = agent.take_action(np.zeros(3))
        hidden += code >= 4
        agent.add_memory_ppo(0.0, False)
    assert 0 < hidden < 64
    targets, _ = agent._targets(None)
    assert ((targets.old_log_probs[..., 0] == 0) == (agent.buffer.actions[:64, :, 0] == -1)).all()
    assert int((targets.old_log_probs[..., 0] == 0).sum()) == hidden
    assert (targets.old_log_probs[..., 1] < 0).all()


@pytest.mark.parametrize("size", [605, 608, 2190])
def test_no_image_is_guessed_from_a_number_of_inputs(kind, capsys, size):  # 10
    agent = kind(size, 7, hidden_size=8)
    assert [type(part) for part in agent.network.actor.encoder.parts] == [VectorEncoder]
    assert agent.memory.current_state().shape == (0, size)
    assert capsys.readouterr().out == ""


def test_widths_and_numbers_of_votes_are_free():  # 11
    agent = DualHeadRecurrentPPO(3, 4 + 6 - 1, n_vote_actions=6, hidden_size=24)
    assert agent.network.head.sizes == [4, 6]
    assert agent.network.actor.core.output_size == 24
    assert agent.actor.state["h"].shape == (1, 1, 24)


def test_a_rollout_is_trained_when_it_is_long_enough_and_may_span_epochs(make_agent, play):  # 12
    agent = make_agent()
    sizes = []
    for epoch in range(6):
        agent.start_epoch_action(epoch=epoch)
        play(agent, 3)
        agent.end_epoch_action(epoch=epoch)
        agent.train_step()
        sizes.append((agent.rollout_size, agent.updates))
    assert sizes == [(3, 0), (6, 0), (0, 1), (3, 1), (6, 1), (0, 2)]


def test_many_environments_are_one_forward_pass(kind):  # 13
    agent = kind(BOX, spaces.Discrete(4), 8, num_envs=32, num_steps=8, bptt=8, num_minibatches=4, seed=0)
    calls, original = [], agent.network.step
    agent.network.step = lambda *args: calls.append(args[0]["obs"].shape) or original(*args)
    assert agent.take_action(np.zeros((32, 3))).shape == (32,)
    agent.add_memory_ppo(np.zeros(32), np.zeros(32, dtype=bool))
    assert calls == [(32, 3)]


def test_done_clears_the_memory_within_an_epoch(make_agent):  # 14
    agent, fresh = make_agent(), make_agent()
    for turn in range(3):
        agent.take_action(np.full(3, float(turn)))
        agent.add_memory_ppo(0.0, turn == 2)
    for other in (agent, fresh):
        other.take_action(np.ones(3))
    assert torch.equal(agent.buffer.params[3], fresh.buffer.params[0])


def test_terminations_and_truncations_are_told_apart(make_agent):  # 14
    """Reward 1, V = 6, gamma = 1/2: 1 + 3 for a truncation, 1 for a termination."""
    for flags, expected in (((False, True), 4.0), ((True, False), 1.0), ((True, True), 1.0)):
        agent = make_agent(num_steps=1, gamma=0.5)
        with torch.no_grad():
            agent.network.heads.weight[-1].zero_()
            agent.network.heads.bias[-1].fill_(6.0)
        agent.take_action(np.zeros(3))
        agent.add_memory_ppo(1.0, *flags, np.zeros(3))
        targets, _ = agent._targets(None)
        assert targets.returns.tolist() == [[expected]]


def test_a_new_epoch_closes_the_unfinished_one(make_agent, play):  # 15
    agent = make_agent()
    play(agent, 3)
    agent.take_action(np.zeros(3))
    agent.start_epoch_action(epoch=1)
    assert agent.get_dual_action() is None
    assert agent.buffer.truncated[:3, 0].tolist() == [False, False, True]
    agent.take_action(np.zeros(3))  # not the second in a row: the first was dropped
    assert agent.buffer.starts[3].all()
    assert agent.rollout_size == 3


def test_a_second_action_before_the_outcome_is_refused(make_agent):  # 16
    agent = make_agent()
    agent.take_action(np.zeros(3))
    state = {name: leaf.clone() for name, leaf in agent.actor.state.items()}
    with pytest.raises(RuntimeError, match="twice"):
        agent.take_action(np.ones(3))
    assert all(torch.equal(leaf, state[name]) for name, leaf in agent.actor.state.items())


def test_models_do_not_touch_global_random_streams(make_agent, play):  # 17
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    agent = make_agent()
    play(agent, 8)
    agent.train_step()
    after = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    assert torch.equal(before[0], after[0])
    np.testing.assert_equal(after[1], before[1])
    assert before[2] == after[2]


def test_shuffling_is_seeded(make_agent, play):  # 17
    def trained():
        agent = make_agent(num_steps=16, num_minibatches=4)
        play(agent, 16)
        np.random.seed(random.randrange(1000))
        torch.manual_seed(random.randrange(1000))
        agent.train_step()
        return agent.network.state_dict()

    one, other = trained(), trained()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_files_need_no_folder_and_keep_the_annealing(make_agent, play, tmp_path, monkeypatch):  # 18
    """16 of 32 steps are over: half of the learning rate is left, also in the agent that was loaded."""
    monkeypatch.chdir(tmp_path)
    options = {"total_steps": 32, "anneal_learning_rate": True, "learning_rate": 0.01, "epsilon": 0.3}
    agent = make_agent(**options)
    for _ in range(2):
        play(agent, 8)
        agent.train_step()
    agent.epsilon_decay(0.5)
    agent.save("model.pt")
    other = make_agent(**options)
    other.load("model.pt")
    play(other, 8)
    other.train_step()
    assert other.last_metrics["learning_rate"] == pytest.approx(0.005)
    assert other.epsilon == pytest.approx(0.15)


def test_running_statistics_are_saved(make_agent, play, tmp_path):  # 19
    options = {"normalise_observations": True, "normalise_returns": True}
    agent = make_agent(**options)
    play(agent, 8)
    agent.train_step()
    agent.save(tmp_path / "model.pt")
    other = make_agent(**options)
    other.load(tmp_path / "model.pt")
    moments = agent.network.actor.encoder.parts[0].moments
    assert moments.mean.abs().max() > 0
    assert torch.equal(other.network.actor.encoder.parts[0].moments.mean, moments.mean)
    for name, value in agent.return_scale.state_dict().items():
        assert torch.equal(other.return_scale.state_dict()[name], value)
        assert value.abs().max() > 0


@pytest.mark.parametrize("action_space", [spaces.Discrete(4), spaces.MultiDiscrete([4, 3]), spaces.Box(-1, 1, (2,))])
@pytest.mark.parametrize("separate_critic", [False, True])
def test_every_parameter_learns(make_agent, play, action_space, separate_critic):  # 20, 21
    """No head, norm or trunk is built, saved and handed to the optimiser without being used."""
    agent = make_agent(action_space=action_space, separate_critic=separate_critic, bptt=8, num_minibatches=1)
    before = {name: value.clone() for name, value in agent.network.named_parameters()}
    play(agent, 8)
    agent.train_step()
    idle = [name for name, value in agent.network.named_parameters() if torch.equal(value, before[name])]
    assert idle == []
    (optimised,) = agent.optimizer.param_groups[0]["params"]  # one vector that holds all of them
    storages = {parameter.untyped_storage().data_ptr() for parameter in agent.network.parameters()}
    assert storages == {optimised.untyped_storage().data_ptr()}
    assert optimised.numel() == agent.num_parameters


def test_a_single_sequence_is_enough_to_learn_from(make_agent, play):  # 22
    agent = make_agent(bptt=None)
    play(agent, 8)
    agent.train_step()
    assert agent.last_metrics["grad_norm"] > 0
    assert agent.last_metrics["policy_loss"] != 0
    assert agent.last_metrics["value_loss"] > 0


def test_an_update_reports_what_can_go_wrong(make_agent, play):  # 23
    agent = make_agent()
    play(agent, 8)
    loss = agent.train_step()
    names = {"approx_kl", "clipfrac", "entropy", "value_loss", "policy_loss", "explained_variance", "grad_norm"}
    assert names | {"ratio_error", "learning_rate", "loss"} <= agent.last_metrics.keys()
    assert all(np.isfinite(value) for value in agent.last_metrics.values())
    assert loss == agent.last_metrics["loss"]
    if isinstance(agent, DualHeadRecurrentPPO):
        assert {"entropy_move", "entropy_vote"} <= agent.last_metrics.keys()


def test_dropout_is_replayed_in_training_and_off_in_evaluation():  # 24
    """The mode is switched where it must be, and switched back."""
    core = partial(cores.lstm, hidden_size=8, num_layers=2, dropout=0.5)
    envs = SpaceProbe(4)
    agent = RecurrentPPO(
        envs.single_observation_space, envs.single_action_space, 8, seed=0, core=core, num_envs=4, num_steps=8, bptt=8,
        num_minibatches=1, epochs=1,
    )  # fmt: skip
    obs, _ = envs.reset(seed=0)
    for _ in range(8):
        obs, rewards, terminated, truncated, _ = envs.step(agent.take_action(obs))
        agent.add_memory_ppo(rewards, terminated, truncated)
    agent.train_step(obs)
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert agent.network.training
    actor = agent.new_actor(4, 0)
    first = {}
    original = agent.network.step

    def step(*args):
        result = original(*args)
        first.setdefault("params", result[0].clone())
        return result

    agent.network.step = step
    evaluate(agent, SpaceProbe(4), 4, seed=0)
    agent.network.step = original
    agent.network.eval()
    params, _, _ = actor.act(actor.inputs(SpaceProbe(4).reset(seed=0)[0]))
    assert torch.equal(first["params"], params)
    agent.network.train()
    params, _, _ = agent.new_actor(4, 0).act(actor.inputs(SpaceProbe(4).reset(seed=0)[0]))
    assert not torch.equal(first["params"], params)


def test_forbidden_actions_are_never_taken_nor_trained(kind):  # 24
    space = spaces.Dict({"numbers": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(3)})
    agent = kind(space, spaces.Discrete(3), 8, seed=0, num_steps=16, bptt=4, num_minibatches=2)
    for _ in range(16):
        action = agent.take_action({"numbers": np.zeros(2), "action_mask": np.array([1, 0, 1])})
        assert action in (0, 2)
        agent.add_memory_ppo(float(action), False)
    agent.train_step()
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert agent.last_metrics["entropy"] <= np.log(2) + 1e-6  # of two actions, not of three

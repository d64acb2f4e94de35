"""The single form as clients of an IQN-style model use it: two epoch loops, and every call on its own."""

import inspect
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import DualHeadRecurrentPPO, RecurrentPPO, RecurrentPPOLSTM, persistence

FEATURES, TURNS = 6, 5
NAMED = (DualHeadRecurrentPPO, RecurrentPPOLSTM)


class World:
    """What a client owns: observations are random but of this epoch, rewards are 1, 2, 3, ... and never repeat."""

    def __init__(self, seed=0):
        self.random = np.random.default_rng(seed)
        self.rewards = 0

    def look(self):
        return self.random.standard_normal((1, FEATURES))

    def act(self, action):
        assert type(action) is int
        self.rewards += 1
        return float(self.rewards)


def memory_loop(model, world, epochs, turns=TURNS):
    """A client that stacks frames, stores through ``memory`` and trains after every epoch; the losses."""
    losses = []
    for epoch in range(epochs):
        model.reset()
        model.start_epoch_action(epoch=epoch)
        for turn in range(turns):
            earlier = model.memory.current_state()
            observed = world.look()
            action = model.take_action(np.vstack((earlier, observed)))
            extra = {"positions": (turn, 0)} if "positions" in model.memory.extra_data else {}
            model.memory.add(observed, action, world.act(action), False, **extra)
        model.end_epoch_action(epoch=epoch)
        losses.append(model.train_step())
        if hasattr(model, "epsilon_decay"):
            model.epsilon_decay(0.1)
    return losses


def rollout_loop(model, world, epochs, turns=TURNS):
    """A client that stores through ``add_memory_ppo`` and trains only what its model says is there; the losses."""
    losses = []
    for epoch in range(epochs):
        model.start_epoch_action(epoch=epoch)
        for _ in range(turns):
            action = model.take_action(world.look())
            model.add_memory_ppo(world.act(action), False)
        if len(model.rollout_memory["states"]) > 0:
            losses.append(model.train_step())
        model.end_epoch_action(epoch=epoch)
    return losses


@pytest.fixture(params=[memory_loop, rollout_loop], ids=lambda loop: loop.__name__)
def loop(request):
    return request.param


@pytest.fixture(params=NAMED, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture
def make_model(kind):
    """A small model for the World above, built from Gymnasium spaces."""

    def make(seed=0, num_steps=TURNS, observation_space=None, action_space=None, **options):
        options = {"num_minibatches": 2, "bptt": 4, "epochs": 2, **options}
        return kind(
            observation_space or spaces.Box(-np.inf, np.inf, (FEATURES,)),
            action_space or spaces.MultiDiscrete([4, 3]),
            8,
            seed=seed,
            num_steps=num_steps,
            **options,
        )

    return make


@pytest.fixture
def watch():
    """Records what each update learns from: rewards, truncations, returns, and each minibatch's observations."""

    def attach(model):
        rows, original = [], model.ppo.update

        def update(network, optimizer, buffer, targets, *rest):
            size = buffer.size
            rows.append(
                {
                    "rewards": buffer.rewards[:size, 0].tolist(),
                    "truncated": buffer.truncated[:size, 0].tolist(),
                    "terminated": buffer.terminated[:size, 0].tolist(),
                    "starts": buffer.starts[:size, 0].tolist(),
                    "values": targets.old_values[:, 0].clone(),
                    "returns": targets.returns[:, 0].clone(),
                }
            )
            return original(network, optimizer, buffer, targets, *rest)

        model.ppo.update = update
        return rows

    return attach


# --------------------------------------------------------------------------------------------------------- both loops


@pytest.mark.parametrize("num_steps", [TURNS, 7, 2 * TURNS])
def test_every_transition_of_a_client_is_trained_exactly_once(make_model, loop, watch, num_steps):
    """12 epochs of 5 turns; updates come at the ends of epochs, once num_steps turns are there."""
    model, world = make_model(num_steps=num_steps), World()
    trained = watch(model)
    losses = loop(model, world, 12)
    epochs = -(-num_steps // TURNS)  # epochs in one rollout
    assert [len(update["rewards"]) for update in trained] == [epochs * TURNS] * (12 // epochs)
    assert [reward for update in trained for reward in update["rewards"]] == list(range(1, 61))
    assert model.updates == 12 // epochs
    assert model.env_steps == 60
    assert all(loss.shape == () and np.isfinite(loss) for loss in losses)
    assert sum(float(loss) != 0.0 for loss in losses) == 12 // epochs
    assert len(losses) == 12


def test_each_pass_over_a_rollout_sees_each_transition_once(make_model, loop):
    """Observations are random reals, so they name their step."""
    model, world = make_model(epochs=3), World()
    seen, original = [], model.ppo._losses

    def loss(network, minibatch, *rest):
        seen.extend(minibatch.obs["obs"].reshape(-1, FEATURES).tolist())
        return original(network, minibatch, *rest)

    model.ppo._losses = loss
    loop(model, world, 1)
    twin = World()
    observed = []
    for _ in range(TURNS):
        observed += twin.look().astype(np.float32).tolist()
    for passed in range(3):
        assert sorted(seen[passed * TURNS : (passed + 1) * TURNS]) == sorted(observed)
    assert len(seen) == 3 * TURNS


def test_the_end_of_an_epoch_is_a_cut_and_not_an_end(make_model, loop, watch):
    """Nobody ever says that the game is done. With v = 10, gamma = 1/2 and lambda = 0 each return is r + 10/2."""
    model, world = make_model(num_steps=2 * TURNS, gamma=0.5, gae_lambda=0.0), World()
    with torch.no_grad():
        model.network.heads.weight[-1].zero_()
        model.network.heads.bias[-1].fill_(10.0)
    trained = watch(model)
    loop(model, world, 2)
    (update,) = trained
    assert not any(update["terminated"])
    assert update["starts"] == [step % TURNS == 0 for step in range(2 * TURNS)]
    assert update["truncated"][TURNS - 1]
    assert sum(update["truncated"]) == (2 if loop is memory_loop else 1)  # the other loop trains before an epoch ends
    assert update["returns"].tolist() == [reward + 5.0 for reward in range(1, 11)]


def test_no_advantage_crosses_the_end_of_an_epoch(make_model, loop, watch):
    """lambda = gamma = 1, v = 10: within an epoch of rewards 1 to 5 the returns are 25, 24, 22, 19, 15."""
    model, world = make_model(num_steps=2 * TURNS, gamma=1.0, gae_lambda=1.0), World()
    with torch.no_grad():
        model.network.heads.weight[-1].zero_()
        model.network.heads.bias[-1].fill_(10.0)
    trained = watch(model)
    loop(model, world, 2)
    # 10 + 5, 10 + 5 + 4, ...; in the second epoch of rewards 6 to 10 likewise: 20, 29, 37, 44, 50 backwards
    assert trained[0]["returns"].tolist() == [25, 24, 22, 19, 15, 50, 44, 37, 29, 20]


@pytest.mark.parametrize("previous", [False, True])
def test_nothing_of_an_epoch_leaks_into_the_next(make_model, loop, previous):
    """Two models of one seed see different first epochs, without training; the second begins alike for both."""
    seen = []
    for seed in (1, 2):
        model = make_model(num_steps=1000, previous_action_reward=previous)
        loop(model, World(seed), 1, turns=4 + seed)
        model.start_epoch_action(epoch=1)
        model.take_action(np.full((1, FEATURES), 0.5))
        row = model.buffer.size
        seen.append((model.buffer.params[row].clone(), model.buffer.values[row].clone()))
        assert model.buffer.starts[row].all()
    assert torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[0][1], seen[1][1])


def test_within_an_epoch_the_past_matters(make_model):
    """Or the test above could not fail."""
    seen = []
    for first in (-1.0, 1.0):
        model = make_model()
        model.take_action(np.full((1, FEATURES), first))
        model.add_memory_ppo(0.0, False)
        model.take_action(np.full((1, FEATURES), 0.5))
        seen.append(model.buffer.params[1].clone())
    assert not torch.equal(seen[0], seen[1])


def test_the_replay_of_a_client_is_exact(make_model, loop):
    """Epochs of 5 and rollouts of 7 turns, in sequences of at most 4: ends within sequences, lengths that differ."""
    model, world, errors = make_model(num_steps=7, epochs=1, num_minibatches=1), World(), []
    for _ in range(4):
        loop(model, world, 2)
        errors.append(model.last_metrics["ratio_error"])
    assert max(errors) <= 1e-5
    assert model.updates == 4


def test_both_loops_lead_to_the_same_weights(kind):
    """What a client calls does not matter, only what happened."""

    def trained(loop):
        space = spaces.Box(-np.inf, np.inf, (FEATURES,))
        model = kind(space, spaces.MultiDiscrete([4, 3]), 8, seed=0, num_steps=TURNS, bptt=None, num_minibatches=1)
        loop(model, World(), 3)
        return model.network.state_dict()

    one, other = trained(memory_loop), trained(rollout_loop)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_epoch_without_turns_trains_nothing(make_model, loop):
    model = make_model()
    losses = loop(model, World(), 2, turns=0)
    assert all(loss == 0.0 and loss.shape == () for loss in losses)
    assert model.updates == 0


def test_done_within_an_epoch_starts_an_episode(make_model):
    model = make_model(num_steps=100)
    world = World()
    model.start_epoch_action(epoch=0)
    for turn in range(6):
        action = model.take_action(world.look())
        model.add_memory_ppo(world.act(action), turn == 2)
    assert model.buffer.starts[:6, 0].tolist() == [True, False, False, True, False, False]
    assert model.buffer.terminated[:6, 0].tolist() == [False, False, True, False, False, False]
    model.end_epoch_action(epoch=0)
    assert model.buffer.truncated[:6, 0].tolist() == [False] * 5 + [True]


def test_an_epoch_that_ended_by_itself_is_not_cut(make_model):
    model, world = make_model(), World()
    action = model.take_action(world.look())
    model.add_memory_ppo(world.act(action), True)
    model.end_epoch_action(epoch=0)
    model.reset()
    assert model.buffer.terminated[0].all()
    assert not model.buffer.truncated[0].any()


def test_an_action_without_outcome_is_dropped_at_the_end_of_an_epoch(make_model):
    model, world = make_model(), World()
    action = model.take_action(world.look())
    model.add_memory_ppo(world.act(action), False)
    model.take_action(world.look())
    model.start_epoch_action(epoch=1)
    assert model.rollout_size == 1
    assert model.get_dual_action() is None
    action = model.take_action(world.look())
    model.add_memory_ppo(world.act(action), False)
    assert model.buffer.rewards[:2, 0].tolist() == [1.0, 2.0]
    assert model.buffer.starts[:2, 0].tolist() == [True, True]


# ------------------------------------------------------------------------------------------------------ single members


def test_observations_of_any_shape_that_holds_their_numbers(make_model):
    numbers = np.linspace(-1, 1, FEATURES)
    seen = []
    for shape in ((FEATURES,), (1, FEATURES), (FEATURES, 1), (2, 3)):
        model = make_model()
        model.take_action(numbers.reshape(shape))
        seen.append(model.buffer.params[0].clone())
    assert all(torch.equal(params, seen[0]) for params in seen)


@pytest.mark.parametrize("given", [np.zeros(FEATURES + 1), np.zeros((2, FEATURES)), np.zeros((0, FEATURES)), 1.0])
def test_observations_of_another_size_are_refused_and_change_nothing(make_model, given):
    model = make_model()
    state = {name: leaf.clone() for name, leaf in model.actor.state.items()}
    with pytest.raises(ValueError, match="is expected"):
        model.take_action(given)
    assert all(torch.equal(leaf, state[name]) for name, leaf in model.actor.state.items())
    assert model.get_dual_action() is None
    model.take_action(np.zeros(FEATURES))


def test_composite_observations_may_be_flat(kind):
    space = spaces.Dict({"image": spaces.Box(-1, 1, (2, 3, 3)), "scalars": spaces.Box(-1, 1, (4,))})
    numbers = np.linspace(-1, 1, 22).astype(np.float32)
    seen = []
    for given in (numbers, numbers[None], {"image": numbers[:18].reshape(2, 3, 3), "scalars": numbers[18:]}):
        model = kind(space, spaces.Discrete(3), 8, seed=0)
        model.take_action(given)
        seen.append(model.buffer.params[0].clone())
        assert model.memory.current_state().shape == (0, 22)
    assert all(torch.equal(params, seen[0]) for params in seen)
    with pytest.raises(ValueError, match="21 numbers was given, but 22 are expected"):
        kind(space, spaces.Discrete(3), 8, seed=0).take_action(numbers[:21])


def test_two_actions_in_a_row_are_refused(make_model):
    model = make_model()
    model.take_action(np.zeros(FEATURES))
    before = {name: leaf.clone() for name, leaf in model.actor.state.items()}
    with pytest.raises(RuntimeError, match="take_action was called twice"):
        model.take_action(np.zeros(FEATURES))
    assert all(torch.equal(leaf, before[name]) for name, leaf in model.actor.state.items())
    model.add_memory_ppo(1.0, False)
    assert model.rollout_size == 1


def test_an_outcome_without_action_is_refused(make_model):
    model = make_model()
    for store in (lambda: model.add_memory_ppo(1.0, False), lambda: model.memory.add(None, 0, 1.0, False)):
        with pytest.raises(RuntimeError, match="without a take_action"):
            store()
    model.take_action(np.zeros(FEATURES))
    model.add_memory_ppo(1.0, False)
    with pytest.raises(RuntimeError, match="without a take_action"):
        model.add_memory_ppo(1.0, False)
    assert model.rollout_size == 1


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf"), None])
def test_rewards_that_are_no_numbers_are_refused_and_may_be_given_again(make_model, reward):
    model = make_model()
    model.take_action(np.zeros(FEATURES))
    with pytest.raises(ValueError, match="is not finite"):
        model.add_memory_ppo(reward, False)
    assert model.rollout_size == 0
    model.add_memory_ppo(2.0, False)
    assert model.buffer.rewards[0].tolist() == [2.0]


def batch_of_three():
    sizes = {"num_envs": 3, "num_steps": 4, "bptt": 4, "num_minibatches": 1}
    return RecurrentPPO(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), **sizes)


def test_the_environment_with_the_bad_reward_is_named():
    agent = batch_of_three()
    agent.take_action(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="environment 2 sent it"):
        agent.add_memory_ppo(np.array([0.0, 1.0, np.nan]), np.zeros(3, dtype=bool))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("reward", (np.zeros(2), np.zeros(3, dtype=bool))),
        ("done", (np.zeros(3), np.zeros(4, dtype=bool))),
        ("truncated", (np.zeros(3), np.zeros(3, dtype=bool), np.zeros(2, dtype=bool))),
        ("ignored", (np.zeros(3), np.zeros(3, dtype=bool), False, None, np.zeros(2, dtype=bool))),
    ],
)
def test_outcomes_of_a_wrong_shape_are_refused(name, arguments):
    agent = batch_of_three()
    agent.take_action(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=rf"{name} has shape .* but \(3,\) is expected"):
        agent.add_memory_ppo(*arguments)
    agent.add_memory_ppo(np.zeros(3), np.zeros(3, dtype=bool))
    assert agent.rollout_size == 3


def test_outcomes_may_be_columns_and_scalars():
    agent = batch_of_three()
    agent.take_action(np.zeros((3, 2)))
    agent.add_memory_ppo(np.array([[1.0], [2.0], [3.0]]), False)
    assert agent.buffer.rewards[0].tolist() == [1.0, 2.0, 3.0]
    assert not agent.buffer.terminated[0].any()


def test_a_final_observation_of_a_wrong_shape_is_refused(make_model):
    model = make_model()
    model.take_action(np.zeros(FEATURES))
    with pytest.raises(ValueError, match="is expected"):
        model.add_memory_ppo(1.0, False, True, np.zeros(FEATURES + 1))


def test_a_refused_final_observation_may_be_given_again(make_model):
    model = make_model()
    model.take_action(np.zeros(FEATURES))
    with pytest.raises(ValueError, match="is expected"):
        model.add_memory_ppo(1.0, False, True, np.zeros(FEATURES + 1))
    model.add_memory_ppo(1.0, False, True, np.zeros(FEATURES))


def test_the_loss_is_a_plain_number(make_model):
    model = make_model()
    nothing = model.train_step()
    assert isinstance(nothing, np.ndarray)
    assert nothing.shape == ()
    assert nothing == 0.0
    memory_loop(model, World(), 1)
    memory_loop(model, World(), 1, turns=TURNS - 1)
    assert model.updates == 1
    assert model.rollout_size == TURNS - 1  # too few: kept for later


def test_the_pair_of_branches_is_read_between_action_and_outcome(make_model):
    """The code of (move, vote) with 3 votes is move * 3 + vote, for codes of all branches."""
    model, world = make_model(), World()
    assert model.get_dual_action() is None
    for _ in range(10):
        code = model.take_action(world.look())
        move, vote = model.get_dual_action()
        assert code == move * 3 + vote
        assert move in range(4)
        assert vote in range(3)
        model.add_memory_ppo(0.0, False)
        assert model.get_dual_action() is None


def test_epsilon_is_kept_for_the_client_and_ignored_by_the_policy(make_model):
    model, other = make_model(epsilon=0.5, epsilon_min=0.4), make_model()
    assert (model.epsilon, other.epsilon) == (0.5, 0.0)
    actions = [[agent.take_action(np.zeros(FEATURES)), agent.add_memory_ppo(0.0, False)] for agent in (model, other)]
    assert actions[0] == actions[1]
    model.epsilon_decay(0.1)
    assert model.epsilon == pytest.approx(0.45)
    model.epsilon_decay(0.5)
    assert model.epsilon == 0.4  # not below the minimum
    model.set_epsilon(0.9)
    assert model.epsilon == 0.9
    with pytest.raises(ValueError, match=r"epsilon=1\.5"):
        model.set_epsilon(1.5)
    assert model.epsilon == 0.9


def test_the_memory_of_a_recurrent_model_stacks_no_frames(make_model):
    model = make_model()
    assert model.memory.n_frames == 1
    assert model.memory.current_state().shape == (0, FEATURES)
    assert "positions" not in model.memory.extra_data
    assert len(model.memory) == 0
    memory_loop(model, World(), 1, turns=3)
    assert len(model.memory) == len(model.rollout_memory["states"]) == 3
    model.memory.add_empty()
    model.memory.clear()
    assert len(model.memory) == 3  # what is not trained yet stays


def test_a_client_may_wait_for_a_batch(make_model):
    """5 turns in 2 minibatches: 2 transitions each, never 0."""
    assert make_model().batch_size == 2
    assert make_model(num_minibatches=50).batch_size == 1


def test_members_that_clients_read(make_model, kind):
    model = make_model()
    assert model.model_name == kind.__name__
    assert isinstance(model, NAMED)
    assert isinstance(model, RecurrentPPO)
    assert not isinstance(model, tuple(other for other in NAMED if other is not kind))
    assert model.layer_size == 8
    assert model.device == torch.device("cpu")
    assert isinstance(model.optimizer, torch.optim.Optimizer)
    assert hasattr(model, "add_memory_ppo")
    assert model.add_memory.__func__ is model.add_memory_ppo.__func__
    assert model.num_parameters == sum(parameter.numel() for parameter in model.network.parameters())


def test_the_signature_shows_every_option(kind):
    names = list(inspect.signature(kind).parameters)
    assert names[:7] == ["observation_space", "action_space", "layer_size", "epsilon", "epsilon_min", "device", "seed"]
    assert {"core", "num_steps", "gamma", "entropy_coef", "action_names"} <= set(names)
    assert not {"options", "update"} & set(names)


def test_unknown_options_are_refused(make_model):
    with pytest.raises(TypeError, match="momentum"):
        make_model(momentum=0.9)


# -------------------------------------------------------------------------------------------- playing without learning


def test_playing_without_learning_stores_nothing(make_model):
    model, world = make_model(), World()
    model.training = False
    weights = {name: value.clone() for name, value in model.network.state_dict().items()}
    for epoch in range(2):
        model.start_epoch_action(epoch=epoch)
        for _ in range(TURNS):
            model.add_memory_ppo(world.act(model.take_action(world.look())), False)
        model.end_epoch_action(epoch=epoch)
        assert model.train_step() == 0.0
    assert model.rollout_size == 0
    assert model.updates == model.env_steps == 0
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())


def test_playing_without_learning_is_greedy_and_needs_no_outcomes(make_model):
    model = make_model(seed=1)
    model.training = False
    with torch.no_grad():
        model.network.heads.weight[:-1].zero_()
        model.network.heads.bias[:-1].copy_(torch.tensor([0.0, 0.0, 0.1, 0.0, 0.0, 0.2, 0.0]))
    assert [model.take_action(np.zeros(FEATURES)) for _ in range(20)] == [2 * 3 + 1] * 20


def test_an_episode_ends_the_memory_also_when_nothing_is_learned(make_model):
    model = make_model()
    model.training = False
    model.take_action(np.ones(FEATURES))
    model.add_memory_ppo(0.0, True)
    assert model.actor.starts.all()


def test_epochs_played_without_learning_do_not_disturb_a_rollout(make_model, watch):
    """Half a rollout, an epoch of evaluation between two ends of epochs, the other half."""
    model, world = make_model(num_steps=2 * TURNS, epochs=1), World()
    trained = watch(model)
    memory_loop(model, world, 1)
    model.training = False
    memory_loop(model, World(3), 1, turns=7)
    model.training = True
    memory_loop(model, world, 1)
    assert trained[0]["rewards"] == list(range(1, 11))
    assert model.last_metrics["ratio_error"] <= 1e-5


def test_an_epoch_of_evaluation_closes_the_epoch_before_it(make_model):
    """A client that evaluates before it has ended the epoch: the last turn stored must be a cut all the same."""
    model, world = make_model(num_steps=100), World()
    model.add_memory_ppo(world.act(model.take_action(world.look())), False)
    model.training = False
    model.start_epoch_action(epoch=1)
    model.take_action(world.look())
    model.end_epoch_action(epoch=1)
    model.training = True
    model.take_action(world.look())
    assert model.buffer.starts[1].all()
    assert model.buffer.truncated[0].all()


def test_learning_goes_on_after_playing_without_outcomes(make_model):
    model = make_model()
    model.training = False
    model.take_action(np.zeros(FEATURES))
    model.training = True
    model.take_action(np.zeros(FEATURES))


def test_the_outcome_of_an_action_played_without_learning_is_not_stored(make_model):
    model = make_model()
    model.training = False
    model.take_action(np.zeros(FEATURES))
    model.training = True
    with pytest.raises(RuntimeError, match="without a take_action"):
        model.add_memory_ppo(1.0, False)
    assert model.rollout_size == 0


def test_turns_played_without_learning_within_an_episode_do_not_spoil_the_replay(make_model):
    model, world = make_model(num_steps=4, epochs=1, num_minibatches=1), World()
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(3)
    for training, turns in ((True, 2), (False, 5), (True, 2)):
        model.training = training
        for _ in range(turns):
            model.add_memory_ppo(world.act(model.take_action(world.look())), False)
    model.train_step()
    assert model.last_metrics["ratio_error"] <= 1e-4


def test_playing_without_learning_switches_dropout_off(kind):
    core = partial(cores.gru, hidden_size=8, num_layers=2, dropout=0.5)
    model = kind(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), 8, seed=0, core=core)
    assert model.training
    assert model.network.training
    model.training = False
    assert not model.network.training
    model.training = True
    assert model.network.training


def test_training_between_an_action_and_its_outcome_is_refused(make_model):
    """The outcome would be stored with an older action. What waits stays, and so does the rollout."""
    model = make_model(num_steps=2)
    for turn in range(2):
        model.take_action(np.full(FEATURES, float(turn)))
        model.add_memory_ppo(float(turn), False)
    model.take_action(np.full(FEATURES, 9.0))
    with pytest.raises(RuntimeError, match="waits for its outcome"):
        model.train_step()
    model.add_memory_ppo(9.0, False)
    assert model.buffer.rewards[:3, 0].tolist() == [0.0, 1.0, 9.0]
    assert model.buffer.obs["obs"][2].tolist() == [[9.0] * FEATURES]
    model.train_step()
    assert model.env_steps == 3


def test_a_client_that_survives_a_bad_rollout_can_go_on(make_model):
    model, world = make_model(), World()
    world.look = lambda: np.full((1, FEATURES), np.nan)
    with pytest.raises(FloatingPointError):
        memory_loop(model, world, 1)
    memory_loop(model, World(), 2)


# ----------------------------------------------------------------------------------------------------------- save, load


@pytest.fixture
def play():
    """The actions of one greedy epoch."""

    def run(model):
        model.training = False
        model.reset()
        world = World(8)
        actions = []
        for _ in range(30):
            actions.append(model.take_action(world.look()))
            model.add_memory_ppo(0.0, False)
        return actions

    return run


@pytest.mark.parametrize("name", ["plain.pt", "folder/that/is/new/model.pt"])
@pytest.mark.parametrize("form", [str, lambda path: path])
def test_save_and_load(make_model, play, tmp_path, monkeypatch, name, form):
    monkeypatch.chdir(tmp_path)
    path = form(Path(name))
    model = make_model(epsilon=0.5)
    memory_loop(model, World(), 3)
    model.save(path)
    other = make_model(seed=7)
    other.load(path)
    assert all(torch.equal(value, model.network.state_dict()[key]) for key, value in other.network.state_dict().items())
    assert (other.env_steps, other.updates, other.epsilon) == (3 * TURNS, 3, model.epsilon)
    assert play(other) == play(model)


def test_a_loaded_model_goes_on_exactly(make_model, tmp_path):
    """Adam's moments, generators and memories included: three epochs more give the same weights."""
    straight = make_model()
    memory_loop(straight, World(), 3)
    memory_loop(straight, World(5), 3)

    first = make_model()
    memory_loop(first, World(), 3)
    first.save(tmp_path / "model.pt")
    second = make_model(seed=7)
    second.load(tmp_path / "model.pt")
    memory_loop(second, World(5), 3)
    expected = straight.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.network.state_dict().items())


def test_a_file_is_read_onto_the_device_of_the_model(make_model, tmp_path, monkeypatch):
    asked, original = [], persistence.load_checkpoint

    def load(path, map_location="cpu"):
        asked.append(torch.device(map_location))
        return original(path, map_location)

    monkeypatch.setattr(persistence, "load_checkpoint", load)
    model = make_model()
    model.save(tmp_path / "model.pt")
    model.load(tmp_path / "model.pt")
    assert asked == [model.device]


def test_an_older_file_is_overwritten(make_model, tmp_path):
    path = tmp_path / "model.pt"
    model = make_model()
    model.save(path)
    memory_loop(model, World(), 1)
    model.save(path)
    other = make_model()
    other.load(path)
    assert other.updates == 1
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_files_that_are_missing_damaged_or_foreign_are_refused(make_model, tmp_path):
    model = make_model()
    weights = {name: value.clone() for name, value in model.network.state_dict().items()}
    model.save(tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("weights, honestly")
    torch.save({"model": model.network.state_dict(), "optimizer": {}}, tmp_path / "foreign.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("half", "empty", "text", "foreign", "list"):
        with pytest.raises(ValueError, match=f"{name}.pt"):
            model.load(tmp_path / f"{name}.pt")
    with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
        model.load(tmp_path / "missing.pt")
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())


@pytest.mark.parametrize("content", [3, [1]])
def test_a_file_with_something_else_for_an_agent_is_refused(make_model, tmp_path, content):
    torch.save({"agent": content}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt|checkpoint"):
        make_model().load(tmp_path / "odd.pt")


def test_a_file_of_another_network_is_refused_and_changes_nothing(make_model, tmp_path):
    make_model(observation_space=spaces.Box(-1, 1, (FEATURES + 1,))).save(tmp_path / "wider.pt")
    make_model(separate_critic=True).save(tmp_path / "critic.pt")
    make_model(normalise_returns=True).save(tmp_path / "scaled.pt")
    model = make_model()
    weights = {name: value.clone() for name, value in model.network.state_dict().items()}
    sentences = {"wider": "of another shape is", "critic": "it has besides", "scaled": "normalise_returns"}
    for name, sentence in sentences.items():
        with pytest.raises(ValueError, match=sentence):
            model.load(tmp_path / f"{name}.pt")
    with pytest.raises(ValueError, match="it lacks"):
        make_model(separate_critic=True).load(tmp_path / "wider.pt")
    assert all(torch.equal(value, weights[name]) for name, value in model.network.state_dict().items())


def test_a_rollout_of_the_weights_before_is_not_trained_with_those_loaded(make_model, tmp_path):
    """What was played before cannot be replayed with other weights: the probability ratio would not be 1."""
    stranger = make_model(seed=3, num_steps=4)
    with torch.no_grad():
        for parameter in stranger.network.parameters():
            parameter.mul_(3)
    stranger.save(tmp_path / "model.pt")
    model, world = make_model(num_steps=4, epochs=1, num_minibatches=1), World()
    for turn in range(7):
        if turn == 3:
            model.load(tmp_path / "model.pt")
        model.add_memory_ppo(world.act(model.take_action(world.look())), False)
    model.train_step()
    assert model.last_metrics["ratio_error"] <= 1e-5


def test_a_copy_of_a_model_goes_its_own_way(make_model):
    """A client that replaces one agent by a copy of another: the other must not change when the copy learns."""
    model = make_model()
    memory_loop(model, World(), 1)
    copy = make_model(seed=1)
    copy.load_state_dict(model.state_dict())
    moments = [leaf.clone() for state in model.optimizer.state.values() for leaf in state.values()]
    memory_loop(copy, World(2), 1)
    after = [leaf for state in model.optimizer.state.values() for leaf in state.values()]
    assert all(torch.equal(one, other) for one, other in zip(moments, after, strict=True))


def test_a_refused_next_observation_may_be_given_again(make_model):
    model = make_model()
    rollout_loop(model, World(), 1, turns=TURNS - 1)
    model.take_action(np.zeros(FEATURES))
    model.add_memory_ppo(1.0, False)
    with pytest.raises(ValueError, match="is expected"):
        model.train_step(np.zeros(FEATURES + 1))
    assert model.rollout_size == TURNS


def test_nothing_is_trained_while_playing_without_learning(make_model):
    model, world = make_model(num_steps=4), World()
    for _ in range(4):
        model.add_memory_ppo(world.act(model.take_action(world.look())), False)
    weights = {name: leaf.clone() for name, leaf in model.network.state_dict().items()}
    model.training = False
    assert model.train_step() == 0.0
    assert all(torch.equal(leaf, weights[name]) for name, leaf in model.network.state_dict().items())
    model.training = True
    assert model.train_step() != 0.0


def test_fractions_for_a_space_of_whole_numbers_are_refused():
    """A picture of 0 ... 1 given to a uint8 space would be stored as black."""
    agent = RecurrentPPO(spaces.Box(0, 255, (3, 8, 8), np.uint8), spaces.Discrete(2), core=cores.gru)
    with pytest.raises(ValueError, match="holds fractions, but its space is uint8"):
        agent.take_action(np.full((3, 8, 8), 0.7))
    agent.take_action(np.full((3, 8, 8), 7.0))


def test_one_reward_in_an_array_is_not_spread_over_all_environments():
    agent = RecurrentPPO(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), num_envs=32, num_steps=32)
    agent.take_action(np.zeros((32, 2)))
    with pytest.raises(ValueError, match=r"reward has shape \(1,\), but \(32,\) is expected"):
        agent.add_memory_ppo(np.ones(1), False)

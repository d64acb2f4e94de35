"""The words of an IQN-style client: two epoch loops, each call on its own, and that they do what the plain words do."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.agents import DualHeadRecurrentPPO, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM
from rl.agents.client import action_code

FEATURES, TURNS = 6, 5
OBS, PAIRS = spaces.Box(-np.inf, np.inf, (FEATURES,)), spaces.MultiDiscrete([4, 3])


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


@pytest.fixture(params=[DualHeadRecurrentPPO, RecurrentPPOLSTM, RecurrentIQN], ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture
def make_model(make_agent):
    """A small model for the World above, built from Gymnasium spaces."""

    def make(kind=RecurrentPPOLSTM, action_space=PAIRS, **options):
        core = "lstm" if kind is RecurrentPPOLSTM else "gru"
        return make_agent((OBS, action_space), kind, core, **{"num_steps": TURNS} | options)

    return make


# ---------------------------------------------------------------------------------------------- one thing by two names


@pytest.mark.parametrize("previous", [False, True])
def test_both_names_of_a_call_do_the_same_thing(make_model, kind, same_weights, previous):
    """Step by step, over epochs with an end in between, a cut and an action that is dropped."""
    client, plain = (make_model(kind, previous_action_reward=previous, epsilon=0.5) for _ in range(2))
    world, losses = World(), []
    for epoch in range(4):
        client.start_epoch_action(epoch=epoch)
        plain.reset()
        for turn in range(TURNS):
            seen, done, cut = world.look(), turn == 1, turn == 2
            action = plain.act(seen)
            assert client.take_action(seen) == 3 * action[0] + action[1]
            assert client.get_dual_action() == tuple(plain.pending_action[0].tolist()) == tuple(action)
            final = world.look()
            store = (client.add_memory_ppo, client.add_memory)[(epoch + turn) % 2]
            store(float(turn), done, cut, final, ignored=turn == 3)
            plain.observe(float(turn), done, cut, final, ignored=turn == 3)
            assert client.actor.starts.tolist() == plain.actor.starts.tolist()
            assert all(torch.equal(leaf, plain.actor.state[name]) for name, leaf in client.actor.state.items())
        if epoch == 2:
            client.take_action(seen)
            plain.act(seen)
        if epoch != 1:  # its successor begins before it is said to have ended
            client.end_epoch_action(epoch=epoch)
            plain.reset()
        assert client.rollout_size == plain.rollout_size
        losses.append(client.train_step(final))
        assert losses[-1] == plain.learn(final)
        assert same_weights(client, plain)
    assert any(losses)
    assert client.updates == plain.updates > 0


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.Discrete(3, start=5), spaces.Box(-1, 1, (2,))], ids=str)
def test_a_single_action_of_another_space_is_what_the_environment_takes(make_model, space):
    client, plain = make_model(action_space=space), make_model(action_space=space)
    action, expected = client.take_action(np.zeros(FEATURES)), plain.act(np.zeros(FEATURES))
    assert np.array_equal(action, expected)
    assert type(action) is type(expected)


def test_actions_of_several_environments_have_no_codes(make_model):
    client, plain = (make_model(num_envs=3, num_steps=8) for _ in range(2))
    assert np.array_equal(client.take_action(np.zeros((3, FEATURES))), plain.act(np.zeros((3, FEATURES))))


@pytest.mark.parametrize(
    ("space", "action", "code"),
    [
        (spaces.Discrete(4), np.int64(3), 3),
        (spaces.MultiDiscrete([4, 3]), np.array([2, 1]), 2 * 3 + 1),
        (spaces.MultiDiscrete([5, 3, 2]), np.array([4, 2, 1]), 4 * 6 + 2 * 2 + 1),
        (spaces.MultiDiscrete([2, 3], start=[1, 4]), np.array([2, 5]), 1 * 3 + 1),  # 1 and 1 without starts
    ],
    ids=str,
)
def test_the_code_of_an_action_is_a_mixed_radix_number(space, action, code):
    assert action_code(action, space) == code
    assert type(action_code(action, space)) is int


# --------------------------------------------------------------------------------------------------------- both loops


@pytest.mark.parametrize("num_steps", [TURNS, 7])
def test_every_transition_of_a_client_is_trained_exactly_once(make_model, loop, watch_updates, num_steps):
    """8 epochs of 5 turns; updates come at the ends of epochs, once num_steps turns are there."""
    model, world = make_model(num_steps=num_steps), World()
    trained = watch_updates(model)
    losses = loop(model, world, 8)
    epochs = -(-num_steps // TURNS)  # epochs in one rollout
    assert [len(update["rewards"]) for update in trained] == [epochs * TURNS] * (8 // epochs)
    assert [reward for update in trained for reward in update["rewards"]] == list(range(1, 41))
    assert (model.updates, model.env_steps) == (8 // epochs, 40)
    assert all(loss.shape == () and np.isfinite(loss) for loss in losses)
    assert sum(float(loss) != 0.0 for loss in losses) == 8 // epochs
    assert len(losses) == 8


def test_the_end_of_an_epoch_is_a_cut_and_not_an_end(make_model, loop, watch_updates, fix_value):
    """Nothing ever says that the game is done. With v = 10, gamma = 1/2 and lambda = 0 each return is r + 10/2."""
    model, world = make_model(num_steps=2 * TURNS, gamma=0.5, gae_lambda=0.0), World()
    fix_value(model, 10.0)
    trained = watch_updates(model)
    loop(model, world, 2)
    (update,) = trained
    assert not any(update["terminated"])
    assert update["starts"] == [step % TURNS == 0 for step in range(2 * TURNS)]
    assert update["truncated"][TURNS - 1]
    assert sum(update["truncated"]) == (2 if loop is memory_loop else 1)  # the other loop trains before an epoch ends
    assert update["returns"] == [reward + 5.0 for reward in range(1, 11)]


def test_no_advantage_crosses_the_end_of_an_epoch(make_model, loop, watch_updates, fix_value):
    """lambda = gamma = 1, v = 10: within an epoch of rewards 1 to 5 the returns are 25, 24, 22, 19, 15."""
    model, world = make_model(num_steps=2 * TURNS, gamma=1.0, gae_lambda=1.0), World()
    fix_value(model, 10.0)
    trained = watch_updates(model)
    loop(model, world, 2)
    # 10 + 5, 10 + 5 + 4, ...; in the second epoch of rewards 6 to 10 likewise: 20, 29, 37, 44, 50 backwards
    assert trained[0]["returns"] == [25, 24, 22, 19, 15, 50, 44, 37, 29, 20]


def test_the_replay_of_a_client_is_exact(make_model, loop):
    """Epochs of 5 and rollouts of 7 turns, in sequences of at most 4: ends within sequences, lengths that differ."""
    model, world, errors = make_model(num_steps=7, epochs=1, num_minibatches=1), World(), []
    for _ in range(4):
        loop(model, world, 2)
        errors.append(model.last_metrics["ratio_error"])
    assert max(errors) <= 1e-5
    assert model.updates == 4


@pytest.mark.parametrize("kind", [DualHeadRecurrentPPO, RecurrentPPOLSTM])
def test_both_loops_lead_to_the_same_weights(make_model, same_weights, kind):
    """What a client calls does not matter, only what happened."""
    models = [make_model(kind, bptt=None, num_minibatches=1) for _ in range(2)]
    for model, loop in zip(models, (memory_loop, rollout_loop), strict=True):
        loop(model, World(), 3)
        assert model.updates == 3
    assert same_weights(*models)


def test_an_epoch_without_turns_trains_nothing(make_model, loop):
    model = make_model()
    losses = loop(model, World(), 2, turns=0)
    assert all(loss == 0.0 and loss.shape == () for loss in losses)
    assert model.updates == 0


@pytest.mark.parametrize("order", [(True, False, True), (False, True, False)])
def test_epochs_played_without_learning_do_not_disturb_a_rollout(make_model, watch_updates, order):
    """Half a rollout, an epoch of evaluation, before or after the end of the epoch is told, the other half."""
    model, world = make_model(num_steps=2 * TURNS, epochs=1), World()
    trained = watch_updates(model)
    for training in order:
        model.training = training
        memory_loop(model, world if training else World(3), 1, turns=TURNS if training else 7)
    model.training = True
    if order[0]:
        assert trained[0]["rewards"] == list(range(1, 11))
        assert model.last_metrics["ratio_error"] <= 1e-5
    else:
        assert trained == []
        assert model.rollout_size == TURNS


# --------------------------------------------------------------------------------------------------- calls on their own


def test_an_outcome_told_to_the_memory_is_the_outcome(make_model, kind):
    model = make_model(kind)
    with pytest.raises(RuntimeError, match="without act"):
        model.memory.add(None, 0, 1.0, False)
    model.take_action(np.zeros(FEATURES))
    model.memory.add(np.zeros(FEATURES), 0, 7.0, True, positions=(0, 0))
    assert model.rollout_size == len(model.memory) == 1
    assert model.actor.starts.tolist() == [True]
    assert float(model.buffer.rewards[0]) == 7.0


def test_the_loss_is_an_array_without_axes(make_model, kind):
    model = make_model(kind, num_steps=8)
    nothing = model.train_step()
    assert isinstance(nothing, np.ndarray)
    assert (nothing.shape, nothing.item()) == ((), 0.0)
    rollout_loop(model, World(), 1, turns=7)
    assert model.updates == 0
    for _ in range(9):
        model.take_action(np.zeros(FEATURES))
        model.add_memory_ppo(0.0, False)
    loss = model.train_step()
    assert isinstance(loss, np.ndarray)
    assert (loss.shape, loss.item()) == ((), model.last_metrics["loss"])
    assert model.updates > 0


def test_the_pair_of_branches_is_read_between_action_and_outcome(make_model, kind):
    """The code of (move, vote) with 3 votes is move * 3 + vote, for codes of all branches."""
    model, world, seen = make_model(kind, num_steps=100), World(), set()
    assert model.get_dual_action() is None
    for _ in range(20):
        code = model.take_action(world.look())
        seen.add(model.get_dual_action())
        move, vote = model.get_dual_action()
        assert code == move * 3 + vote
        assert (type(move), type(vote)) == (int, int)
        model.add_memory_ppo(0.0, False)
        assert model.get_dual_action() is None
    assert len(seen) > 4


def test_epsilon_belongs_to_the_client(make_model, kind):
    model = make_model(kind, epsilon=0.5, epsilon_min=0.4)
    assert model.epsilon == 0.5
    model.epsilon_decay(0.1)
    assert model.epsilon == pytest.approx(0.45)
    model.epsilon_decay(0.5)
    assert model.epsilon == 0.4  # not below the minimum
    for epsilon in (0.0, 0.9, 1.0):
        model.set_epsilon(epsilon)
        assert model.epsilon == epsilon
    for epsilon in (1.5, -0.1):
        with pytest.raises(ValueError, match=f"epsilon={epsilon}"):
            model.set_epsilon(epsilon)
    assert model.epsilon == 1.0


def test_a_policy_that_samples_ignores_epsilon(make_model, play_turns):
    actions = [play_turns(make_model(epsilon=epsilon), 5) for epsilon in (0.0, 1.0)]
    assert np.array_equal(*actions)


def test_the_memory_of_a_recurrent_model_stacks_no_frames(make_model, kind):
    model = make_model(kind)
    assert model.memory.n_frames == 1
    assert model.memory.current_state().shape == (0, FEATURES)
    assert model.memory.current_state().dtype == np.float32
    assert "positions" not in model.memory.extra_data
    assert len(model.memory) == len(model.rollout_memory["states"]) == 0
    rollout_loop(model, World(), 1, turns=3)
    assert len(model.memory) == len(model.rollout_memory["states"]) == 3
    model.memory.add_empty()
    model.memory.clear()
    assert len(model.memory) == 3  # what is not trained yet stays


def test_frames_count_the_numbers_of_all_parts_of_an_observation(make_agent):
    space = spaces.Dict({"image": spaces.Box(-1, 1, (2, 3, 3)), "scalars": spaces.Box(-1, 1, (4,)), "n": PAIRS})
    assert make_agent((space, PAIRS)).memory.current_state().shape == (0, 18 + 4 + 2)


def test_members_that_clients_read(make_model, kind):
    model = make_model(kind)
    assert model.model_name == kind.__name__
    assert isinstance(model, RecurrentPPO) != (kind is RecurrentIQN)
    assert not isinstance(
        model, tuple(other for other in (DualHeadRecurrentPPO, RecurrentPPOLSTM) if other is not kind)
    )
    assert model.layer_size == 8
    assert model.device == torch.device("cpu")
    assert isinstance(model.optimizer, torch.optim.Optimizer)
    assert all(callable(getattr(model, name)) for name in ("save", "load", "reset", "add_memory_ppo"))


def test_a_client_that_survives_a_bad_rollout_can_go_on(make_model, kind):
    model, world = make_model(kind), World()
    world.look = lambda: np.full((1, FEATURES), np.nan)
    with pytest.raises(FloatingPointError):
        memory_loop(model, world, 3)
    assert model.rollout_size == 0
    memory_loop(model, World(), 3)
    assert model.updates > 0

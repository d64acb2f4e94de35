"""Acting with memories: what goes into the network, what is remembered, and what is forgotten."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents.actor import Actor, check_outcome, previous_spaces
from rl.networks import make_head
from rl.spaces import leaf_spaces

OBS, FOUR = spaces.Box(-1.0, 1.0, (6,)), spaces.Discrete(4)
NEVER = np.zeros(3, dtype=bool)
IMAGE_AND_NUMBERS = spaces.Dict({"image": spaces.Box(-1, 1, (2, 3, 3)), "numbers": spaces.Box(-1, 1, (4,))})


@pytest.fixture
def make_actor(make_network):
    """An actor with random weights in three environments."""

    def make(observation_space=OBS, action_space=FOUR, num_envs=3, core=cores.gru, feed_previous=False, **options):
        fed = previous_spaces(make_head(action_space).previous_space) if feed_previous else {}
        network = make_network(core, spaces.Dict(leaf_spaces(observation_space) | fed), action_space)
        return Actor(network, observation_space, num_envs, seed=0, feed_previous=feed_previous, **options)

    return make


@pytest.fixture
def make_counting_actor(make_actor):
    """The same with a network whose memory is the number of steps since a start, kept beside the real one."""

    def make(**options):
        actor = make_actor(**options)
        seen = []

        def step(obs, state, starts):
            begins = torch.zeros(actor.num_envs, dtype=torch.bool) if starts is None else starts
            seen.append(begins.tolist())
            count = state["count"].masked_fill(begins.unsqueeze(1), 0) + 1
            params = torch.zeros(actor.num_envs, actor.network.head.num_params)
            return params, count.squeeze(1).float(), {"count": count}

        actor.network.step = step
        actor.state = actor.before = {"count": torch.zeros(actor.num_envs, 1, dtype=torch.int64)}
        return actor, seen

    return make


# -------------------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("shape", [(6,), (1, 6), (6, 1), (2, 3)])
def test_an_observation_may_have_any_shape_that_holds_its_numbers(make_actor, shape):
    numbers = np.linspace(-1, 1, 6)
    inputs = make_actor(num_envs=1).inputs(numbers.reshape(shape))
    assert inputs["obs"].tolist() == torch.tensor(numbers, dtype=torch.float32).unsqueeze(0).tolist()


@pytest.mark.parametrize("shape", [(7,), (2, 6), (0, 6), ()])
def test_an_observation_of_another_size_is_refused(make_actor, shape):
    with pytest.raises(ValueError, match=r"observation 'obs' has shape .*, but \(1, 6\) is expected"):
        make_actor(num_envs=1).inputs(np.zeros(shape))


@pytest.mark.parametrize(
    ("space", "given", "dtype"),
    [
        (spaces.Box(-1, 1, (2,), np.float64), np.zeros((3, 2)), torch.float32),
        (spaces.Box(-1, 1, (2,)), np.zeros((3, 2), dtype=np.int64), torch.float32),
        (spaces.Box(0, 255, (3, 8, 8), np.uint8), np.zeros((3, 3, 8, 8)), torch.uint8),
        (spaces.Discrete(5), [1, 2, 3], torch.int64),
        (spaces.MultiBinary(2), np.zeros((3, 2), dtype=bool), torch.int8),
    ],
    ids=str,
)
def test_inputs_keep_the_dtype_of_their_space_but_have_no_doubles(make_actor, space, given, dtype):
    assert make_actor(space).inputs(given)["obs"].dtype == dtype


def test_fractions_for_a_space_of_whole_numbers_are_refused(make_actor):
    """A picture of 0 ... 1 given to a uint8 space would be stored as black."""
    actor = make_actor(spaces.Box(0, 255, (3, 8, 8), np.uint8), num_envs=1)
    with pytest.raises(ValueError, match="observation 'obs' holds fractions, but its space is uint8"):
        actor.inputs(np.full((3, 8, 8), 0.7))
    assert actor.inputs(np.full((3, 8, 8), 7.0))["obs"].unique().tolist() == [7]


def test_composite_observations_may_be_flat(make_actor):
    """The numbers of each leaf stand in the order of the space."""
    actor, numbers = make_actor(IMAGE_AND_NUMBERS, num_envs=2), np.linspace(-1, 1, 44, dtype=np.float32).reshape(2, 22)
    whole = actor.inputs({"image": numbers[:, :18].reshape(2, 2, 3, 3), "numbers": numbers[:, 18:]})
    flat = actor.inputs(numbers)
    assert whole.keys() == flat.keys() == {"image", "numbers"}
    assert all(torch.equal(whole[name], flat[name]) for name in whole)
    assert flat["image"][1].flatten().tolist() == numbers[1, :18].tolist()
    with pytest.raises(ValueError, match="21 numbers was given, but 22 are expected"):
        actor.inputs(numbers[:, :21])


def test_the_parts_of_a_tuple_are_leaves(make_actor):
    actor = make_actor(spaces.Tuple([spaces.Box(-1, 1, (2,)), spaces.Discrete(3)]))
    inputs = actor.inputs((np.ones((3, 2)), np.array([0, 1, 2])))
    assert {name: leaf.tolist() for name, leaf in inputs.items()} == {"0": [[1.0, 1.0]] * 3, "1": [0, 1, 2]}


def test_inputs_of_a_view_into_a_larger_array_are_right(make_actor):
    whole = np.arange(36, dtype=np.float32).reshape(6, 6)
    assert make_actor().inputs(whole.T[::2])["obs"].tolist() == whole.T[::2].tolist()


# -------------------------------------------------------------------------------------------------- the step before


@pytest.mark.parametrize(
    "space", [FOUR, spaces.MultiDiscrete([4, 3]), spaces.MultiBinary(2), spaces.Box(-1, 1, (2,))], ids=str
)
def test_the_previous_action_and_reward_are_fed_but_not_across_a_start(make_actor, space):
    """None at first; then those of the last step, except where an episode ended."""
    actor = make_actor(action_space=space, feed_previous=True)
    inputs = actor.inputs(np.zeros((3, 6)))
    assert not inputs["previous_action"].any()
    assert not inputs["previous_reward"].any()
    actor.act(np.ones((3, 6)))
    actor.observe(np.array([1.0, 2.0, 3.0], dtype=np.float32), np.array([False, True, False]))
    inputs, fed = actor.inputs(np.zeros((3, 6))), actor.network.head.as_previous(actor.actions)
    assert inputs["previous_reward"].tolist() == [[1.0], [0.0], [3.0]]
    assert inputs["previous_action"][[0, 2]].tolist() == fed[[0, 2]].tolist()
    assert not inputs["previous_action"][1].any()
    assert fed.any(dim=1).all()
    actor.reset()
    assert not any(leaf.any() for leaf in actor.inputs(np.zeros((3, 6))).values())


def test_cut_episodes_are_noted_as_if_they_had_gone_on(make_actor):
    """Those of the environments asked for, in their order, also where an episode starts next; a reset forgets."""
    actor = make_actor(feed_previous=True)
    actor.act(np.arange(18).reshape(3, 6))
    actor.observe(rewards := np.array([1.0, 2.0, 3.0], dtype=np.float32), np.array([False, True, True]))
    rewards[:] = 9.0  # its owner uses it again
    final = np.arange(18, dtype=np.float32).reshape(3, 6)
    cut = actor.cut_episodes(5, final, np.array([2, 1]))
    assert (cut.step, cut.env_ids.tolist()) == (5, [2, 1])
    assert cut.obs["obs"].tolist() == final[[2, 1]].tolist()
    assert cut.obs["previous_reward"].tolist() == [[3.0], [2.0]]
    assert cut.obs["previous_action"].tolist() == (actor.actions[[2, 1]] + 1).tolist()
    assert torch.equal(cut.state["h"], actor.state["h"][[2, 1]])
    assert len({tuple(row) for row in actor.state["h"].flatten(1).tolist()}) == 3
    actor.reset()
    assert not actor.cut_episodes(5, final, np.array([2, 1])).obs["previous_reward"].any()


def test_a_final_observation_of_another_size_is_refused(make_actor):
    actor = make_actor()
    with pytest.raises(ValueError, match=r"observation 'obs' has shape .*, but \(3, 6\) is expected"):
        actor.cut_episodes(0, np.zeros((3, 7)), np.array([1]))


def test_nothing_of_the_step_before_is_fed_unless_asked_for(make_actor):
    actor = make_actor()
    assert actor.inputs(np.zeros((3, 6))).keys() == {"obs"}
    assert actor.cut_episodes(0, np.zeros((3, 6)), np.array([1])).obs.keys() == {"obs"}


def test_the_spaces_of_what_is_fed():
    fed = previous_spaces(spaces.MultiDiscrete([5]))
    assert fed["previous_action"] == spaces.MultiDiscrete([5])
    assert fed["previous_reward"].shape == (1,)


# ------------------------------------------------------------------------------------------------------------ memories


def test_memories_are_cleared_where_an_episode_starts(make_counting_actor):
    actor, starts = make_counting_actor()
    ends = [NEVER, np.array([False, True, False]), NEVER, np.array([True, False, True])]
    counts = []
    for ended in ends:
        counts.append(actor.step(actor.inputs(np.zeros((3, 6))))[1].tolist())
        actor.observe(np.zeros(3), ended)
    assert counts == [[1, 1, 1], [2, 2, 2], [3, 1, 3], [4, 2, 4]]
    assert starts == [[True] * 3, [False] * 3, [False, True, False], [False] * 3]
    assert actor.starts.tolist() == [True, False, True]


def test_where_no_episode_starts_the_network_is_told_so(make_actor):
    """None instead of flags, so that a core may skip the clearing."""
    actor, seen = make_actor(), []
    step = actor.network.step
    actor.network.step = lambda *args: seen.append(args[2]) or step(*args)
    for _ in range(2):
        actor.act(np.zeros((3, 6)))
        actor.observe(np.zeros(3), NEVER)
    assert seen[0].tolist() == [True] * 3
    assert seen[1] is None


def test_ends_of_episodes_are_copied(make_actor):
    """An environment may write its flags into the same array again."""
    actor, ended = make_actor(), np.array([True, False, False])
    actor.act(np.zeros((3, 6)))
    actor.observe(np.zeros(3), ended)
    ended[:] = False
    assert actor.starts.tolist() == [True, False, False]


def test_memories_of_ignored_steps_are_put_back(make_counting_actor):
    """Their count stays, which matters to what goes on beyond starts; the others go on."""
    actor, _ = make_counting_actor()
    for _ in range(2):
        actor.act(np.zeros((3, 6)))
        actor.observe(np.zeros(3), NEVER)
    actor.act(np.zeros((3, 6)))
    actor.observe(np.zeros(3), np.array([False, True, False]), np.array([False, True, False]))
    assert actor.state["count"].flatten().tolist() == [3, 2, 3]
    assert actor.starts.tolist() == [False, True, False]


def test_a_step_that_is_undone_leaves_the_memories_where_they_were(make_counting_actor):
    actor, _ = make_counting_actor()
    for _ in range(2):
        actor.act(np.zeros((3, 6)))
        actor.observe(np.zeros(3), NEVER)
    actor.act(np.zeros((3, 6)))
    actor.undo_step()
    assert actor.state["count"].flatten().tolist() == [2, 2, 2]
    assert actor.act(np.zeros((3, 6))) is not None
    assert actor.state["count"].flatten().tolist() == [3, 3, 3]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_memories_that_are_no_numbers_begin_anew_and_the_others_go_on(make_actor, number):
    """Both leaves of one that is broken in one of them."""
    actor = make_actor(core=cores.lstm)
    actor.act(np.ones((3, 6)))
    actor.observe(np.zeros(3), NEVER)
    whole = {name: leaf.clone() for name, leaf in actor.state.items()}
    actor.state = {"h": whole["h"].clone(), "c": whole["c"].clone()}
    actor.state["c"][1, 0, 3] = number
    actor.clear_broken_memories()
    for name, leaf in actor.state.items():
        assert not leaf[1].any()
        assert torch.equal(leaf[[0, 2]], whole[name][[0, 2]])
        assert leaf[[0, 2]].any()


def test_a_reset_marks_starts_and_leaves_the_clearing_to_the_next_step(make_counting_actor):
    actor, starts = make_counting_actor()
    for _ in range(2):
        actor.act(np.zeros((3, 6)))
        actor.observe(np.zeros(3), NEVER)
    actor.reset()
    assert actor.starts.tolist() == [True] * 3
    assert actor.state["count"].flatten().tolist() == [2, 2, 2]
    actor.act(np.zeros((3, 6)))
    assert starts[-1] == [True] * 3
    assert actor.before["count"].flatten().tolist() == [2, 2, 2]
    assert actor.state["count"].flatten().tolist() == [1, 1, 1]


def test_where_no_outcome_is_told_the_memories_go_on_until_a_reset(make_counting_actor):
    actor, starts = make_counting_actor()
    for _ in range(3):
        actor.act(np.zeros((3, 6)))
    assert actor.state["count"].flatten().tolist() == [3, 3, 3]
    actor.reset()
    for _ in range(2):
        actor.act(np.zeros((3, 6)))
    assert actor.state["count"].flatten().tolist() == [2, 2, 2]
    assert [all(flags) for flags in starts] == [True, False, False, True, False]


def test_without_memory_every_step_is_a_start_though_no_outcome_is_told(make_counting_actor):
    actor, starts = make_counting_actor(memory=False, feed_previous=True)
    for _ in range(3):
        actor.act(np.zeros((3, 6)))
    assert starts == [[True] * 3] * 3


def test_a_step_that_is_undone_opens_the_episode_again(make_counting_actor):
    actor, starts = make_counting_actor()
    for _ in range(2):
        actor.act(np.zeros((3, 6)))
        actor.undo_step()
    assert starts == [[True] * 3] * 2


def test_the_state_before_a_step_whose_outcome_is_not_known(make_counting_actor):
    """That of a checkpoint that is written while an action waits."""
    actor, _ = make_counting_actor()
    actor.act(np.zeros((3, 6)))
    actor.observe(np.zeros(3), np.array([True, False, False]))
    actor.act(np.zeros((3, 6)))
    now, before = actor.state_dict(), actor.state_dict(undone=True)
    assert (now["state"]["count"].tolist(), now["starts"].tolist()) == ([[1], [2], [2]], [False] * 3)
    assert (before["state"]["count"].tolist(), before["starts"].tolist()) == ([[1]] * 3, [True, False, False])


def test_a_reward_that_is_fed_must_be_told_but_not_after_a_reset(make_actor):
    """The action is known, the reward is not: nothing is guessed, and nothing changes."""
    actor = make_actor(feed_previous=True)
    actor.act(np.ones((3, 6)))
    state = actor.state
    with pytest.raises(
        RuntimeError, match=r"fed the reward of its previous action .* observe .add_memory_ppo., or call reset"
    ):
        actor.act(np.ones((3, 6)))
    assert actor.state is state
    actor.observe(np.ones(3), NEVER)
    actor.act(np.ones((3, 6)))
    actor.reset()
    actor.act(np.ones((3, 6)))


def test_without_memory_every_step_is_a_start(make_counting_actor):
    actor, starts = make_counting_actor(memory=False)
    for _ in range(3):
        actor.act(np.zeros((3, 6)))
        actor.observe(np.zeros(3), NEVER)
    assert starts == [[True] * 3] * 3


def test_without_memory_nothing_of_the_step_before_is_fed(make_actor):
    actor = make_actor(feed_previous=True, memory=False)
    actor.act(np.ones((3, 6)))
    actor.observe(np.ones(3, dtype=np.float32), NEVER)
    inputs = actor.inputs(np.zeros((3, 6)))
    assert not inputs["previous_action"].any()
    assert not inputs["previous_reward"].any()


def test_an_actor_goes_on_from_stored_memories(make_actor):
    """In mid-episode of two environments, at a start of the third; what was fed of the step before, too."""
    actor, other = make_actor(feed_previous=True), make_actor(feed_previous=True)
    for turn in range(3):
        actor.act(np.full((3, 6), turn / 3))
        actor.observe(np.array([1.0, 2.0, 3.0], dtype=np.float32), np.array([False, turn == 2, False]))
    other.load_state_dict(actor.state_dict())
    assert other.starts.tolist() == [False, True, False]
    outputs = [player.step(player.inputs(np.ones((3, 6))), greedy=True)[0] for player in (actor, other)]
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0][0], outputs[0][1])


# ------------------------------------------------------------------------------------------------------------- actions


def test_greedy_actions_are_the_likeliest(make_actor):
    actor = make_actor(num_envs=64)
    params, _, actions = actor.step(actor.inputs(np.zeros((64, 6))), greedy=True)
    assert actions.squeeze(1).tolist() == params.argmax(-1).tolist()
    actor.reset()
    assert actor.act(np.zeros((64, 6)), greedy=True).tolist() == params.argmax(-1).tolist()
    actor.reset()
    assert len(set(actor.act(np.zeros((64, 6))).tolist())) > 1


@pytest.mark.parametrize("space", [spaces.Discrete(3, start=5), spaces.MultiDiscrete([2, 3], start=[1, 4])], ids=str)
def test_actions_are_those_of_the_environment(make_actor, space):
    actor = make_actor(action_space=space)
    actions = actor.act(np.zeros((3, 6)))
    assert all(space.contains(action) for action in actions)
    assert (actor.actions.numpy().reshape(actions.shape) + space.start == actions).all()


def test_acting_leaves_no_graph_and_changes_no_weights(make_actor):
    actor = make_actor()
    params, values, actions = actor.step(actor.inputs(np.zeros((3, 6))))
    assert not any(tensor.requires_grad for tensor in (params, values, *actor.state.values()))
    assert (params.shape, values.shape, actions.shape) == ((3, 4), (3,), (3, 1))


# ------------------------------------------------------------------------------------------------------------ outcomes


def test_outcomes_are_arrays_of_all_environments():
    outcome = check_outcome(3, [[1], [2], [3]], False, [True, False, True], np.array([0, 0, 1]))
    assert outcome.rewards.tolist() == [1.0, 2.0, 3.0]
    assert outcome.rewards.dtype == np.float32
    assert outcome.terminated.tolist() == [False] * 3
    assert outcome.truncated.tolist() == [True, False, True]
    assert outcome.ignored.tolist() == [False, False, True]
    assert {flags.dtype for flags in outcome[1:]} == {np.dtype(bool)}


def test_termination_wins_over_truncation():
    outcome = check_outcome(4, 0.0, [True, False, True, False], [True, True, False, False], False)
    assert outcome.terminated.tolist() == [True, False, True, False]
    assert outcome.truncated.tolist() == [False, True, False, False]


def test_a_scalar_goes_to_all_environments():
    """Each has an entry of its own; what is given is not changed by what is made of it."""
    rewards = check_outcome(3, 2.5, False, False, False).rewards
    rewards[0] = 0.0
    assert rewards.tolist() == [0.0, 2.5, 2.5]
    assert check_outcome(1, np.array([[7.0]]), True, False, False).rewards.tolist() == [7.0]

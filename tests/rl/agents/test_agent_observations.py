"""What agents make of observations whose space is wrong, holds what no network takes, or has an unusual dtype."""

import logging
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.agents import Population, RecurrentIQN, RecurrentPPO
from rl.export import PolicyStep
from rl.spaces import stack_rows

FOUR, ROWS = spaces.Discrete(4), 3
LYING = spaces.Box(0, 255, (6, 6, 3), np.float32)  # in truth 0 to 1
PARTLY_TEXT = spaces.Dict({"goal": spaces.Text(9), "a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Discrete(3)})


@pytest.fixture
def play():
    """Rollouts of random observations of the first space, drawn from the second, and what is learned from them."""

    def rollouts(agent, truth, count=1, seed=0):
        truth.seed(seed)

        def draw():
            return np.stack([truth.sample() for _ in range(ROWS)])

        losses = []
        for _ in range(count):
            for step in range(agent.num_steps):
                agent.act(draw())
                agent.observe(np.full(ROWS, step % 2), step == 5)
            losses.append(agent.learn(draw()))
        return losses

    return rollouts


TRUTH = spaces.Box(0.0, 1.0, (6, 6, 3))


@pytest.mark.parametrize("separate_critic", [False, True])
def test_the_rollout_that_shows_a_wrong_bound_is_not_learned_from(make_agent, play, caplog, separate_critic):
    agent = make_agent((LYING, FOUR), num_envs=ROWS, separate_critic=separate_critic)
    weights = [parameter.clone() for parameter in agent.network.parameters()]
    with caplog.at_level(logging.WARNING):
        assert play(agent, TRUTH) == [0.0]
    assert len(caplog.records) == 1
    assert "'obs': its space declares 0 to 255, but its numbers went from " in caplog.text
    assert (agent.env_steps, agent.updates, agent.rollout_size) == (8 * ROWS, 0, 0)
    assert all(map(torch.equal, weights, agent.network.parameters()))
    picture = {"obs": torch.full((1, 6, 6, 3), 0.5)}
    for trunk in (agent.network.actor, agent.network.critic or agent.network.actor):
        assert trunk.encoder.parts[0].scale(picture["obs"]).unique().tolist() == [0.5]

    (loss,) = play(agent, TRUTH, seed=1)
    assert loss != 0.0
    assert agent.last_metrics["ratio_error"] <= 1e-5  # the replay of what was played with the new scale is exact
    assert (agent.env_steps, agent.updates) == (2 * 8 * ROWS, 1)
    assert len(caplog.records) == 1


def test_observations_within_their_bounds_lose_no_rollout(make_agent, play, caplog):
    agent = make_agent((LYING, FOUR), num_envs=ROWS)
    assert play(agent, LYING)[0] != 0.0
    assert agent.updates == 1
    assert not caplog.records
    play(agent, TRUTH)  # too late to be sure
    assert agent.updates == 2
    assert not caplog.records


@pytest.mark.parametrize("done", [1, 2])
def test_a_corrected_run_goes_on_exactly(make_agent, play, assert_same, done):
    """From before its first update, too."""
    whole, first, second = (make_agent((LYING, FOUR), num_envs=ROWS, seed=4) for _ in range(3))
    for rollout in range(4):
        play(whole, TRUTH, seed=rollout)
    for rollout in range(done):
        play(first, TRUTH, seed=rollout)
    second.load_state_dict(first.state_dict())
    for rollout in range(done, 4):
        play(second, TRUTH, seed=rollout)
    assert second.updates == 3
    assert_same(second, whole)


@pytest.mark.parametrize("normalise", [False, True])
def test_a_quantile_agent_corrects_both_networks_and_keeps_its_replay(make_agent, play, caplog, normalise):
    agent = make_agent((LYING, FOUR), RecurrentIQN, num_envs=ROWS, normalise_observations=normalise)
    while not agent.updates:
        play(agent, TRUTH)
    assert len(caplog.records) == 1
    for network in (agent.network, agent.target):
        (part,) = network.trunk.encoder.parts
        assert part.scale(torch.tensor(0.5)).item() == 0.5
        if normalise:
            assert part.moments.mean.flatten().tolist() == pytest.approx([0.5] * 3, abs=0.1)  # of what is scaled anew
    assert agent.rollout_size > 0


def test_a_network_that_was_trained_elsewhere_keeps_its_scale(make_agent, play, tmp_path, caplog):
    teacher, agent = (make_agent((LYING, FOUR), num_envs=ROWS, seed=seed) for seed in (0, 1))
    play(teacher, LYING)
    teacher.save(tmp_path / "teacher.pt")
    agent.load_network(tmp_path / "teacher.pt")
    assert play(agent, TRUTH)[0] != 0.0
    assert not caplog.records


# ------------------------------------------------------------------------------------------------------ left out


def partly_text(rows):
    """A batch as Gymnasium makes it."""
    return {"goal": ("go",) * rows, "a": np.full((rows, 2), 0.5, np.float32), "b": np.arange(rows) % 3}


@pytest.mark.parametrize("ignored", [["goal"], ["goal", "b"]])
def test_leaves_are_left_out_of_all_that_is_stored(make_agent, learner, ignored):
    agent = make_agent((PARTLY_TEXT, FOUR), learner, num_envs=ROWS, ignore_leaves=ignored)
    kept = [name for name in ("a", "b") if name not in ignored]
    for _ in range(8):
        agent.act(partly_text(ROWS))
        agent.observe(np.ones(ROWS), False, [True, False, False], final_observation=partly_text(ROWS))
    assert list(agent.buffer.obs) == list(agent.leaves) == kept
    agent.learn(partly_text(ROWS))
    assert agent.updates > 0
    assert agent.new_actor(2).act(partly_text(2), greedy=True).shape == (2,)
    assert PolicyStep(agent).input_names[: len(kept) + 1] == [*kept, "state.h"]
    lines = agent.describe()
    assert {line for line in lines if "ignored" in line} == {f"observation {name!r}: ignored" for name in ignored}
    assert lines[0] == "observation 'a': vector of 2, as it is"


def test_members_of_a_population_leave_out_what_each_of_them_ignores(make_agent):
    def member(ignored):
        def make(observation_space, action_space, **options):
            del options["action_names"]
            return make_agent((observation_space, action_space), RecurrentPPO, ignore_leaves=ignored, **options)

        return make

    members = {"one": member(["goal"]), "two": member(["goal", "b"])}
    population = Population(PARTLY_TEXT, FOUR, members, ["one", "two"], num_envs=4, num_steps=8, seed=0)
    for _ in range(8):
        assert population.act(partly_text(4)).shape == (4,)
        population.observe(np.ones(4), False, [True, False, False, True], final_observation=partly_text(4))
    population.learn(partly_text(4))
    assert [member.updates for member in population.members.values()] == [1, 1]
    assert population.new_actor(2).act(partly_text(2)).shape == (2,)
    assert "one: observation 'b': one of 3, one-hot" in population.describe()
    assert "two: observation 'b': ignored" in population.describe()


def test_a_text_has_to_be_left_out(make_agent, learner):
    with pytest.raises(ValueError, match=r"'goal' is Text, .* agent.ignore_leaves=\[goal\]"):
        make_agent((PARTLY_TEXT, FOUR), learner)


# ------------------------------------------------------------------------------------------------------ dtypes


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 65535, (40, 40), np.uint16),
        spaces.Box(0, 2**32 - 1, (2,), np.uint32),
        spaces.Box(0, 2**64 - 1, (2,), np.uint64),
        spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64),
        spaces.Box(-128, 127, (2, 3), np.int8),
        spaces.Box(0, 1, (2,), bool),
        spaces.Box(-1, 1, (2,), np.float16),
        spaces.Box(-1, 1, (), np.float32),
        spaces.Discrete(3, start=-2),
    ],
    ids=str,
)
def test_unusual_dtypes_and_shapes_are_learned_from(make_agent, learner, play, space):
    agent = make_agent((space, FOUR), learner, num_envs=ROWS)
    play(agent, space, count=2)
    assert agent.updates > 0
    if isinstance(space, spaces.Box):
        (part,) = (agent.network.actor if learner is RecurrentPPO else agent.network.trunk).encoder.parts
        samples = torch.as_tensor(np.stack([space.sample() for _ in range(9)]).astype(np.float32)).reshape(9, -1)
        assert part.scale(samples).abs().max() <= 1.0  # nothing that saturates the tanh


@pytest.mark.parametrize("composite", [False, True])
def test_final_observations_may_be_an_array_of_objects(make_agent, learner, same_weights, composite):
    """As Gymnasium's own vectors give them in SAME_STEP mode: None where no episode has ended."""
    box = spaces.Box(-1.0, 1.0, (2,))
    space = spaces.Dict({"a": box, "b": spaces.Discrete(3)}) if composite else box
    batched, uncut, objects = (make_agent((space, FOUR), num_envs=ROWS, kind=learner) for _ in range(3))
    for agent in (batched, uncut, objects):
        space.seed(0)
        for step in range(2 * agent.num_steps):
            rows = [space.sample() for _ in range(ROWS + 1)]
            final = [None, rows[-1], None]
            agent.act(stack_rows(rows[:-1], space))
            given = np.array([*final, 0], dtype=object)[:-1] if agent is objects else stack_rows(final, space)
            cut = step % 4 == 2 and agent is not uncut
            agent.observe(np.full(ROWS, 0.5), False, [False, cut, False], given)
            agent.learn(stack_rows(rows[:-1], space))
    assert batched.updates > 0 and same_weights(batched, objects) and not same_weights(batched, uncut)


def test_what_an_agent_is_fed_may_not_hide_a_leaf_of_that_name(make_agent, learner):
    space = spaces.Dict({"previous_action": spaces.Box(-1.0, 1.0, (2,)), "seen": spaces.Discrete(3)})
    assert make_agent((space, FOUR), kind=learner).leaves.keys() == space.spaces.keys()
    with pytest.raises(ValueError, match=r"the observation has leaves called \['previous_action'\]"):
        make_agent((space, FOUR), kind=learner, previous_action_reward=True)


def test_a_picture_of_another_layout_is_refused(make_agent):
    """It has as many numbers, but reshaped they would be another picture; other axes of length 1 do no harm."""
    space = spaces.Box(0, 255, (36, 40, 3), np.uint8)
    agent, picture = make_agent((space, FOUR), num_envs=1), np.zeros((36, 40, 3), dtype=np.uint8)
    for given in (picture, picture[None], picture.ravel(), picture.reshape(1, -1)):
        agent.act(given)
        agent.observe(0.0, False)
    with pytest.raises(ValueError, match=r"has shape \(1, 3, 36, 40\), but \(1, 36, 40, 3\) is expected"):
        agent.act(np.moveaxis(picture[None], -1, 1))


class KeepsInput(torch.nn.Module):
    """A memory of its last input, as it was given."""

    def __init__(self, input_size, layers_first=False, frozen=False):
        super().__init__()
        self.output_size, self.layers_first = input_size, layers_first
        self.scale = torch.nn.Parameter(torch.ones(input_size), requires_grad=not frozen)

    def initial_state(self, batch_size, device=None):
        shape = (1, batch_size) if self.layers_first else (batch_size,)
        return {"last": torch.zeros(*shape, self.output_size, device=device)}

    def step(self, x, state, starts):
        return x * self.scale, {"last": x}

    def unroll(self, x, state, starts):
        return x * self.scale, {"last": x[-1]}


def test_a_memory_may_keep_what_it_was_shown():
    """The environment may write its next observation into the same array."""
    agent = RecurrentPPO(spaces.Box(-1.0, 1.0, (2,)), FOUR, 8, core=KeepsInput, num_envs=ROWS)
    shown = np.zeros((ROWS, 2), dtype=np.float32)
    for step in range(4):
        shown[:] = step / 10
        agent.act(shown)
        shown[:] = 0.9
        assert torch.equal(agent.actor.state["last"], torch.full((ROWS, 2), step / 10))
        agent.observe(0.0, False)


def test_a_core_that_cannot_be_trained_is_refused_when_the_agent_is_made():
    box = spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(ValueError, match=r"state 'last' has shape \(1, 3, \d+\): its first axis must be B=3"):
        RecurrentPPO(box, FOUR, 8, core=partial(KeepsInput, layers_first=True), num_envs=ROWS)
    with pytest.raises(ValueError, match=r"scale of the network is a parameter that does not learn"):
        RecurrentPPO(box, FOUR, 8, core=partial(KeepsInput, frozen=True), num_envs=ROWS)


@pytest.mark.parametrize("kind", [list, np.int64, bool])
def test_an_actor_takes_flags_of_any_kind(make_agent, kind):
    """Beside training, the loop is the user's own."""
    actor = make_agent((spaces.Box(-1.0, 1.0, (2,)), FOUR), num_envs=2).new_actor(2)
    ended = {list: [True, False], np.int64: np.array([1, 0]), bool: True}[kind]
    for _ in range(2):
        actor.act(np.zeros((2, 2)))
        actor.observe(np.zeros(2), ended)
    assert actor.starts.tolist() == [True, kind is bool]

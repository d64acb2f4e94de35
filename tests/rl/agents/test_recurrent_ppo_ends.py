"""Rollouts of recurrent PPO and what comes after their steps: alignment, ends of episodes, cuts, late resets."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import Counter
from envs.same_step_autoreset import SameStepAutoreset
from envs.single_env import SingleEnv
from rl.training.stepping import VectorEnvAdapter

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)


@pytest.fixture
def returns_of_ones():
    """The returns of a rollout in which every step is paid 1, and the agent's targets of it."""

    def play(agent, envs):
        stepper = VectorEnvAdapter(envs)
        obs = stepper.reset(0)
        for _ in range(agent.num_steps):
            after = stepper.step(agent.act(obs))
            agent.observe(1.0, after.terminated, after.truncated, after.final_obs)
            obs = after.obs
        return agent.targets(obs)[0]

    return play


@pytest.fixture
def bootstraps_of():
    """With gamma = 1 and lambda = 0: what each step adds to its reward for the steps that follow."""

    def read(agent, next_observation):
        targets, _ = agent.targets(next_observation)
        return targets.returns - agent.buffer.rewards[: agent.buffer.size], targets

    return read


# ----------------------------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize(("core", "separate_critic"), [("gru", False), ("lstm", True)])
def test_rows_of_the_rollout_hold_what_belongs_together(make_agent, collect_steps, core, separate_critic):
    """Row b counts 0, 1, ... length[b] - 1 and begins anew; the reward of a step is the count it was taken at."""
    lengths = np.array([2, 3, 5])
    envs = Counter(3, lengths)
    agent = make_agent(envs, core=core, num_envs=3, separate_critic=separate_critic)
    stepper = VectorEnvAdapter(envs)
    collect_steps(agent, stepper, stepper.reset(0))
    buffer, counts = agent.buffer, np.arange(8)[:, None] % lengths  # [8, 3]
    assert np.array_equal(buffer.obs["obs"][..., 0], counts)
    assert np.array_equal(buffer.obs["obs"][..., 1], np.tile([0, 1, 2], (8, 1)))
    assert np.array_equal(buffer.starts, counts == 0)
    assert np.array_equal(buffer.terminated, counts == lengths - 1)
    assert np.array_equal(buffer.rewards, counts)
    assert not buffer.truncated.any()
    assert not buffer.ignored.any()

    state = agent.network.initial_state(3)
    for t in range(8):  # the stored state is the one before the step, and before the clearing that starts[t] asks for
        for name, leaf in state.items():
            torch.testing.assert_close(buffer.state[name][t], leaf)
        with torch.no_grad():
            obs = {name: leaf[t] for name, leaf in buffer.obs.items()}
            params, values, state = agent.network.step(obs, state, buffer.starts[t])
        torch.testing.assert_close(buffer.params[t], params)
        torch.testing.assert_close(buffer.values[t], values)


def test_memories_go_on_from_one_rollout_to_the_next(make_agent, collect_steps):
    """Episodes of 5 steps, rollouts of 8: the second rollout begins at count 3 with the state after count 2."""
    envs = Counter(2, 5)
    agent = make_agent(envs, num_envs=2, learning_rate=1e-12)
    stepper = VectorEnvAdapter(envs)
    obs = collect_steps(agent, stepper, stepper.reset(0))
    carried = agent.actor.state["h"].clone()
    agent.learn(obs)
    collect_steps(agent, stepper, obs)
    assert agent.buffer.obs["obs"][:, 0, 0].tolist() == [3, 4, 0, 1, 2, 3, 4, 0]
    assert agent.buffer.starts[:, 0].tolist() == [False, False, True, False, False, False, False, True]
    assert carried.abs().max() > 1e-3
    assert torch.equal(agent.buffer.state["h"][0], carried)


def test_a_reset_cuts_what_has_not_ended_by_itself(make_agent, play_turns):
    """The last step stored, and only if nothing is said of it already; twice is as good as once."""
    agent = make_agent((OBS, FOUR), num_steps=100)
    play_turns(agent, 3, terminated=[2])
    agent.reset()
    play_turns(agent, 2)
    agent.reset()
    agent.reset()
    play_turns(agent, 1)
    assert agent.buffer.terminated[:6, 0].tolist() == [False, False, True, False, False, False]
    assert agent.buffer.truncated[:6, 0].tolist() == [False, False, False, False, True, False]
    assert agent.buffer.starts[:6, 0].tolist() == [True, False, False, True, False, True]


# ---------------------------------------------------------------------------------------------------- what comes after


@pytest.mark.parametrize(
    ("end", "one_episode"),
    [
        # v = 4, gamma = 1/2, reward 1, lambda = 1: before a cut 1 + 4/2 = 3, then 1 + 3/2 = 2.5, then 1 + 2.5/2 = 2.25
        ("truncated", [2.25, 2.5, 3.0]),
        # before a termination 1, then 1 + 1/2 = 1.5, then 1 + 1.5/2 = 1.75; termination wins where both are set
        ("terminated", [1.75, 1.5, 1.0]),
        ("both", [1.75, 1.5, 1.0]),
    ],
)
def test_returns_equal_those_worked_out_by_hand(make_agent, returns_of_ones, fix_value, end, one_episode):
    envs = Counter(2, 3, end)
    agent = make_agent(envs, num_envs=2, gamma=0.5, gae_lambda=1.0)
    fix_value(agent, 4.0)
    last = [2.5, 3.0]  # the rollout ends within the third episode: 1 + 4/2 = 3, 1 + 3/2 = 2.5
    expected = torch.tensor(one_episode * 2 + last)
    torch.testing.assert_close(returns_of_ones(agent, envs).returns, expected.unsqueeze(1).expand(8, 2))


def test_lambda_and_advantages_by_hand(make_agent, returns_of_ones, fix_value):
    """v = 4, gamma = 1/2, lambda = 1/4, reward 1, three steps, then a cut.

    All deltas are 1 + 2 - 4 = -1; each step back adds 1/8 of the advantage after it: -1, -1.125, -1.140625.
    """
    envs = Counter(1, 3, "truncated")
    options = {"num_steps": 3, "bptt": 3, "num_minibatches": 1, "normalise_advantages": False}
    agent = make_agent(envs, num_envs=1, gamma=0.5, gae_lambda=0.25, **options)
    fix_value(agent, 4.0)
    targets = returns_of_ones(agent, envs)
    assert targets.advantages[:, 0].tolist() == pytest.approx([-1.140625, -1.125, -1.0])
    assert targets.returns[:, 0].tolist() == pytest.approx([2.859375, 2.875, 3.0])


def test_termination_beside_truncation_in_one_step(make_agent, fix_value):
    """Rows: terminated, truncated, both, neither. v = 4, gamma = 1/2, reward 1: 1, 3, 1, 3."""
    agent = make_agent(Counter(4), num_envs=4, gamma=0.5, num_steps=1, bptt=1)
    fix_value(agent, 4.0)
    obs = np.zeros((4, 2), dtype=np.float32)
    agent.act(obs)
    agent.observe(1.0, np.array([True, False, True, False]), np.array([False, True, True, False]), obs)
    assert agent.actor.starts.tolist() == [True, True, True, False]
    assert agent.targets(obs)[0].returns[0].tolist() == [1.0, 3.0, 1.0, 3.0]


@pytest.mark.parametrize(("core", "previous"), [("gru", True), ("lstm", False), ("mlp", True)])
def test_final_observations_are_valued_under_the_state_that_followed_the_episode(
    make_agent, collect_steps, sharpen, bootstraps_of, core, previous
):
    """Also where rows end at other times.

    The final observation of a Counter is [length, row], the reward before it length - 1.
    """
    envs = Counter(3, [2, 3, 5], "truncated")
    agent = make_agent(envs, core=core, num_envs=3, gamma=1.0, gae_lambda=0.0, previous_action_reward=previous)
    sharpen(agent)
    stepper = VectorEnvAdapter(envs)
    bootstraps, _ = bootstraps_of(agent, collect_steps(agent, stepper, stepper.reset(0)))
    buffer = agent.buffer
    state, going_on = agent.network.initial_state(3), torch.zeros(3, dtype=torch.bool)
    for t in range(8):
        obs = {name: leaf[t] for name, leaf in buffer.obs.items()}
        with torch.no_grad():
            _, _, state = agent.network.step(obs, state, buffer.starts[t])
            following = {"obs": obs["obs"] + torch.tensor([1.0, 0.0])}  # had every episode gone on
            if previous:
                following["previous_action"] = buffer.actions[t] + 1
                following["previous_reward"] = buffer.rewards[t].unsqueeze(1)
            _, values, _ = agent.network.step(following, state, going_on)
        torch.testing.assert_close(bootstraps[t], values, rtol=1e-4, atol=1e-4)
    assert buffer.truncated.sum() == 4 + 2 + 1


def test_a_truncation_without_final_observation_takes_the_last_value_known(make_agent, sharpen, bootstraps_of):
    envs = Counter(2, 3, "truncated")
    agent = make_agent(envs, num_envs=2, gamma=1.0, gae_lambda=0.0)
    sharpen(agent)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for _ in range(8):
        after = stepper.step(agent.act(obs))
        agent.observe(after.rewards, after.terminated, after.truncated)
        obs = after.obs
    bootstraps, targets = bootstraps_of(agent, None)
    for t in (2, 5, 7):  # two truncations, and the end of the rollout, for which nothing was shown either
        torch.testing.assert_close(bootstraps[t], targets.old_values[t])
    torch.testing.assert_close(bootstraps[3], targets.old_values[4])


@pytest.mark.parametrize("forget", ["learn", "load"])
def test_cuts_of_a_rollout_are_forgotten_with_it(make_agent, sharpen, bootstraps_of, forget):
    """The first rollout is cut at its fourth step, the second, too, but without final observation.

    So there V of the last observation stands in, not V of what was seen at the first cut.
    """
    agent = make_agent((OBS, FOUR), num_steps=4, gamma=1.0, gae_lambda=0.0)
    for final in (np.full(2, 0.5), None):
        sharpen(agent)
        for turn in range(4):
            agent.act(np.full(2, 0.1 * turn))
            agent.observe(0.0, False, turn == 3, final)
        if final is not None:
            agent.learn() if forget == "learn" else agent.load_state_dict(agent.state_dict())
    bootstraps, targets = bootstraps_of(agent, None)
    assert bootstraps[3] == targets.old_values[3]


@pytest.mark.parametrize("reset", [True, False])
def test_the_end_of_a_rollout_is_worth_its_value(make_agent, fix_value, reset):
    """Reward 1, V = 5, gamma = 1/2: a rollout of one step returns 1 + 5/2, whether the episode is cut there or not."""
    agent = make_agent((OBS, FOUR), num_steps=1, gamma=0.5)
    fix_value(agent, 5.0)
    agent.act(np.zeros(2))
    agent.observe(1.0, False)
    if reset:
        agent.reset()
    assert agent.targets(None)[0].returns.tolist() == [[3.5]]


# ------------------------------------------------------------------------------------------- NEXT_STEP environments


class FixedStarts:
    """In place of a generator: first B different states, then always the same one, in whatever order rows are reset."""

    def __init__(self):
        self.first = True

    def uniform(self, low, high, size):
        columns = np.linspace(low, high, size[1]) if self.first else np.full(size[1], 0.01)
        self.first = False
        return np.tile(columns, (size[0], 1))


def cart_poles(max_episode_steps):
    envs = CartPoleVectorEnv(3, max_episode_steps=max_episode_steps)
    envs._np_random = FixedStarts()
    return envs


def counters(end, mode):
    """Rows that end after 2, 3 and 5 steps, in Gymnasium's own vector form of single environments."""
    made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n, end=end) for n in (2, 3, 5)]
    return SyncVectorEnv(made, autoreset_mode=mode)


LATE_AND_PROMPT = {
    "cart pole that falls": lambda: (cart_poles(500), SameStepAutoreset(cart_poles(500))),
    "cart pole that is cut": lambda: (cart_poles(7), SameStepAutoreset(cart_poles(7))),
    "counter that is cut": lambda: [
        counters("truncated", mode) for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    ],
    "counter that terminates": lambda: [
        counters("terminated", mode) for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    ],
}


@pytest.mark.parametrize(
    ("pair", "previous"), [*((pair, True) for pair in LATE_AND_PROMPT), ("counter that is cut", False)]
)
def test_late_resets_leave_no_trace_in_the_rollout(make_agent, collect_steps, sharpen, pair, previous):
    """Row for row what the same environment gives when it resets at once; the one with most resets limits the size."""
    late, prompt = LATE_AND_PROMPT[pair]()
    options = {"num_envs": 3, "bptt": None, "num_minibatches": 1, "previous_action_reward": previous, "gamma": 0.9}
    agent = make_agent(late, num_steps=40, **options)
    sharpen(agent)
    stepper = VectorEnvAdapter(late)
    shown = collect_steps(agent, stepper, stepper.reset(None))
    assert agent.buffer.ignored.any()
    resets = agent.buffer.ignored.sum(0)
    targets, _ = agent.targets(shown)
    size = agent.buffer.size
    assert size == 40 - resets.max()
    if not pair.startswith("cart"):
        assert resets.min() < resets.max()  # the rows have a different number of gaps

    twin = make_agent(prompt, num_steps=size, **options)
    sharpen(twin)
    stepper = VectorEnvAdapter(prompt)
    expected, _ = twin.targets(collect_steps(twin, stepper, stepper.reset(None)))
    mine, theirs = agent.buffer, twin.buffer
    for name in mine.obs:
        assert torch.equal(mine.obs[name][:size], theirs.obs[name])
    for name in ("actions", "rewards", "starts", "terminated", "truncated", "ignored"):
        assert torch.equal(getattr(mine, name)[:size], getattr(theirs, name)), name
    counts = ~theirs.starts  # where an episode starts, the state is cleared before use
    for name in mine.state:
        torch.testing.assert_close(mine.state[name][:size][counts], theirs.state[name][counts])
    for name in ("returns", "old_values", "old_log_probs"):
        torch.testing.assert_close(getattr(targets, name), getattr(expected, name), rtol=1e-4, atol=1e-4)


def test_late_resets_train_with_an_exact_replay_and_count_transitions_only(make_agent, train_batched):
    envs = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point", max_episode_steps=6)
    agent = make_agent(envs, num_envs=4, num_steps=16, epochs=1)
    metrics = train_batched(agent, envs, 3)
    assert max(row["ratio_error"] for row in metrics) <= 1e-5
    # episodes of 6 steps, each followed by an ignored one: the 7th, 14th, 21st, 28th, 35th and 42nd step, so 2 of the
    # 16 in each of the three rollouts
    assert agent.env_steps == 4 * 3 * (16 - 2)


def test_a_rollout_is_not_learned_from_before_each_environment_has_a_transition(make_agent, same_weights, copy_weights):
    """It grows until then; the step that was ignored is left out, and so is one of the other environment."""
    agent = make_agent(Counter(2), num_envs=2, num_steps=1, bptt=None, num_minibatches=1)
    before = copy_weights(agent)
    agent.act(np.zeros((2, 2)))
    agent.observe(1.0, False, ignored=np.array([True, False]))
    assert agent.learn(np.ones((2, 2))) == 0.0
    assert (agent.updates, agent.env_steps, agent.buffer.size) == (0, 0, 1)
    assert same_weights(agent, before)
    agent.act(np.ones((2, 2)))
    agent.observe(1.0, False)
    assert agent.learn(np.ones((2, 2))) != 0.0
    assert (agent.updates, agent.env_steps, agent.buffer.size) == (1, 2, 0)


@pytest.mark.parametrize("gaps", [False, True])
def test_an_update_that_was_interrupted_may_be_repeated_unless_its_gaps_are_closed(make_agent, monkeypatch, gaps):
    """Cuts are noted at the steps of before, so a rollout that has been closed up is of no use."""
    agent = make_agent(Counter(2), num_envs=2, num_steps=4, bptt=None, num_minibatches=1)
    for step in range(4):
        agent.act(np.zeros((2, 2)))
        agent.observe(1.0, False, step == 3, np.ones((2, 2)), ignored=gaps and step == 1)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(agent.ppo), "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            agent.learn(np.ones((2, 2)))
    assert (agent.updates, agent.env_steps, agent.rollout_size) == (0, 0, 0 if gaps else 8)
    agent.learn(np.ones((2, 2)))
    assert agent.env_steps == (0 if gaps else 8)

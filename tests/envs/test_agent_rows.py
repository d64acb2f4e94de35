"""Rows of agents that come and go. Worlds are written by hand here, so most of it needs no PettingZoo."""

from functools import partial

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from envs.agent_rows import AgentRows
from rl.agents import RecurrentPPO
from rl.training.evaluation import evaluate
from rl.training.stepping import Episodes, VectorEnvAdapter

# Of each agent the step after which it appears, its last step, and what ends it.
LIVES = {"a": (0, 2, "terminated"), "b": (0, 4, "truncated"), "c": (1, 3, "terminated")}
BOX = spaces.Box(-100, 100, (1,), np.float32)


class Colony:
    """A parallel environment. Agent i observes 1 + step + 10 i and earns step + 100 i, or 1 for action 1 if `paid`."""

    def __init__(self, lives=LIVES, paid=False, observation_spaces=None, action_spaces=None):
        self.lives, self.paid = lives, paid
        self.possible_agents = list(lives)
        self.agents = []
        self.seeds, self.options, self.received, self.closed = [], [], [], False
        self.spaces = {"observation": observation_spaces or {}, "action": action_spaces or {}}

    def observation_space(self, agent):
        return self.spaces["observation"].get(agent, BOX)

    def action_space(self, agent):
        return self.spaces["action"].get(agent, spaces.Discrete(3))

    def observe(self, agent):
        number = 1 + self.time + 10 * self.possible_agents.index(agent)
        return np.array([number], dtype=np.float32)

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.options.append(options)
        self.time = 0
        self.agents = [agent for agent, (born, *_) in self.lives.items() if born == 0]
        return {agent: self.observe(agent) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        self.received.append(actions)
        self.time += 1
        rewards = {
            agent: float(action == 1) if self.paid else self.time + 100.0 * self.possible_agents.index(agent)
            for agent, action in actions.items()
        }
        flags = {
            kind: {agent: self.lives[agent][1:] == (self.time, kind) for agent in actions}
            for kind in ("terminated", "truncated")
        }
        born = [agent for agent, (begin, *_) in self.lives.items() if begin == self.time]
        self.agents = [agent for agent in self.agents if self.lives[agent][1] > self.time] + born
        observed = {agent: self.observe(agent) for agent in [*actions, *born]}
        return observed, rewards, flags["terminated"], flags["truncated"], {}

    def close(self):
        self.closed = True


@pytest.fixture
def colony():
    """One world of three rows."""
    return AgentRows(Colony, 3)


def nothing(envs):
    return np.zeros(envs.num_envs, dtype=np.int64)


def test_every_row_lives_its_life(colony):
    """a dies at step 2, b is cut at step 4 and ends the world; c appears after step 1 and dies at step 3."""
    stepper = VectorEnvAdapter(colony)
    assert stepper.reset(0)[:, 0].tolist() == [1, 11, 0]
    expected = [
        # obs, rewards, terminated, truncated, ignored
        ([2, 12, 22], [1, 101, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]),
        ([0, 13, 23], [2, 102, 202], [1, 0, 0], [0, 0, 0], [0, 0, 0]),
        ([0, 14, 0], [0, 103, 203], [0, 0, 1], [0, 0, 0], [1, 0, 0]),
        ([1, 11, 0], [0, 104, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1]),
    ]
    for obs, rewards, terminated, truncated, ignored in expected * 2:
        after = stepper.step(nothing(colony))
        assert after.obs[:, 0].tolist() == obs
        assert after.rewards.tolist() == rewards
        assert after.terminated.tolist() == terminated
        assert after.truncated.tolist() == truncated
        assert after.ignored.tolist() == ignored
        assert after.ended.tolist() == [any(flags) for flags in zip(terminated, truncated, ignored, strict=True)]


def test_final_observations(colony):
    colony.reset(seed=0)
    infos = [colony.step(nothing(colony))[-1] for _ in range(4)]
    assert set(infos[0]) == {"ignored"} and set(infos[1]) == {"final_obs", "_final_obs"}
    for info, valid, number in zip(infos[1:], (0, 2, 1), (3, 24, 15), strict=True):
        assert np.flatnonzero(info["_final_obs"]).tolist() == [valid]
        assert info["final_obs"][valid].tolist() == [number]
        assert colony.observation_space.contains(info["final_obs"])


def test_only_the_living_act(colony):
    """A Colony refuses actions of anyone else; row r sends action r here."""
    colony.reset(seed=0)
    for _ in range(4):
        colony.step(np.arange(3))
    assert colony.worlds[0].received == [{"a": 0, "b": 1}, {"a": 0, "b": 1, "c": 2}, {"b": 1, "c": 2}, {"b": 1}]


class Chatty(Colony):
    """Shows everybody something, whether they live or not."""

    def step(self, actions):
        observed, *rest = super().step(actions)
        return {agent: self.observe(agent) for agent in self.possible_agents} | observed, *rest


def test_idle_rows_show_zero_whatever_their_world_tells():
    envs = AgentRows(Chatty, 3)
    envs.reset(seed=0)
    steps = [envs.step(nothing(envs))[0][:, 0].tolist() for _ in range(4)]
    assert steps == [[2, 12, 22], [0, 13, 23], [0, 14, 0], [1, 11, 0]]


def test_a_reset_in_mid_episode(colony):
    """c has appeared by then, and is not there again at the first observation."""
    colony.reset(seed=0)
    for _ in range(2):
        colony.step(nothing(colony))
    assert colony.reset(seed=0)[0][:, 0].tolist() == [1, 11, 0]
    assert colony.step(nothing(colony))[-1]["ignored"].tolist() == [False, False, True]


def test_worlds_restart_apart():
    """Two worlds of two agents; the first lasts 2 steps, the second 3."""
    made = iter([Colony({n: (0, steps, "terminated") for n in "ab"}) for steps in (2, 3)])
    envs = AgentRows(lambda: next(made), 4)
    assert (envs.num_agents, envs.num_envs, len(envs.worlds)) == (2, 4, 2)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert envs.reset(seed=0)[0][:, 0].tolist() == [1, 11, 1, 11]
    steps = [envs.step(nothing(envs)) for _ in range(4)]
    assert [obs[:, 0].tolist() for obs, *_ in steps] == [
        [2, 12, 2, 12], [1, 11, 3, 13], [2, 12, 1, 11], [1, 11, 2, 12]
    ]  # fmt: skip
    assert [terminated.tolist() for _, _, terminated, _, _ in steps] == [
        [False] * 4, [True, True, False, False], [False, False, True, True], [True, True, False, False]
    ]  # fmt: skip
    assert all("ignored" not in info for *_, info in steps)


def test_what_is_returned_may_be_kept(colony):
    first, _ = colony.reset(seed=0)
    second, rewards, terminated, _, info = colony.step(nothing(colony))
    kept = [array.copy() for array in (first, second, rewards, terminated, info["ignored"])]
    for _ in range(5):
        colony.step(nothing(colony))
    for array, copy in zip((first, second, rewards, terminated, info["ignored"]), kept, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_seeds():
    """World w begins with seed + w; its later episodes, which take 4 steps, get seeds of its own."""

    def seeds(number, **again):
        envs = AgentRows(Colony, 6)
        envs.reset(seed=number)
        for _ in range(8):
            envs.step(nothing(envs))
        envs.reset(**again)
        return [world.seeds for world in envs.worlds]

    first, second = seeds(7)
    assert (first[0], second[0]) == (7, 8)
    assert len(first) == len(second) == 4 and len({*first, *second}) == 8
    assert seeds(7) == [first, second]
    assert seeds(8)[0] == second  # whatever runs beside it
    assert seeds(7, seed=7) == [[*first[:3], 7], [*second[:3], 8]]
    assert seeds(None)[0] != seeds(None)[0]


def test_options_reach_every_world():
    envs = AgentRows(Colony, 6)
    envs.reset(seed=0, options={"level": 2})
    assert [world.options for world in envs.worlds] == [[{"level": 2}]] * 2


def test_close():
    envs = AgentRows(Colony, 6)
    envs.close()
    assert [world.closed for world in envs.worlds] == [True, True]


def test_a_step_needs_a_reset(colony):
    with pytest.raises(ResetNeeded, match=r"Call reset\(\) before step\(\)"):
        colony.step(nothing(colony))


class Careless(Colony):
    """Drops `a` without a flag at step 2, and keeps `b` in its list after its end."""

    def step(self, actions):
        observed, rewards, terminated, truncated, infos = super().step(actions)
        del terminated["a"], observed["a"]
        return observed, rewards, terminated, truncated, infos


def test_an_agent_that_vanishes_without_a_flag_has_terminated():
    envs = AgentRows(partial(Careless, {"a": (0, 2, "terminated"), "b": (0, 3, "truncated")}), 2)
    envs.reset(seed=0)
    envs.step(nothing(envs))
    obs, rewards, terminated, truncated, _ = envs.step(nothing(envs))
    assert terminated.tolist() == [True, False] and not truncated.any()
    assert rewards.tolist() == [2, 102] and obs[0] == 0


class Lingering(Colony):
    """Never takes anybody out of its list."""

    def step(self, actions):
        self.agents = list(actions)
        results = super().step(actions)
        self.agents = list(self.possible_agents)
        return results


def test_an_agent_with_a_flag_is_gone_though_listed():
    envs = AgentRows(partial(Lingering, {"a": (0, 2, "terminated"), "b": (0, 2, "truncated")}), 2)
    envs.reset(seed=0)
    envs.step(nothing(envs))
    obs, _, terminated, truncated, info = envs.step(nothing(envs))
    assert terminated.tolist() == [True, False] and truncated.tolist() == [False, True]
    assert obs[:, 0].tolist() == [1, 11] and info["final_obs"][:, 0].tolist() == [3, 13]


class Twofold(Colony):
    """Ends its agents in both ways at once."""

    def step(self, actions):
        observed, rewards, ended, _, infos = super().step(actions)
        return observed, rewards, ended, ended, infos


def test_an_agent_may_end_in_both_ways():
    envs = AgentRows(partial(Twofold, {"a": (0, 1, "terminated"), "b": (0, 2, "terminated")}), 2)
    envs.reset(seed=0)
    terminated, truncated = envs.step(nothing(envs))[2:4]
    assert terminated.tolist() == truncated.tolist() == [True, False]


SPACES = {
    "image": spaces.Box(0, 255, (4, 3, 2), np.uint8),
    "discrete": spaces.Discrete(5, start=2),
    "dict": spaces.Dict(place=spaces.Box(-1, 1, (2,)), kind=spaces.Discrete(3)),
    "tuple": spaces.Tuple([spaces.MultiBinary(3), spaces.Box(0, 1, (1, 2), np.float64)]),
}


class Sampling(Colony):
    """Observes samples of the space."""

    def observe(self, agent):
        return self.observation_space(agent).sample()


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize(
    "action", [spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4)], ids=lambda s: str(s)[:6]
)
def test_spaces(kind, action):
    """Batches have the batched space's form, and every agent gets an action of its space."""
    envs = AgentRows(
        partial(Sampling, LIVES, False, dict.fromkeys(LIVES, SPACES[kind]), dict.fromkeys(LIVES, action)), 6
    )
    for world in envs.worlds:
        for agent in world.possible_agents:
            world.observation_space(agent).seed(0)
    assert envs.single_observation_space == SPACES[kind] and envs.single_action_space == action
    like = envs.observation_space.sample()

    def shapes(value):
        if isinstance(value, dict):
            return {key: shapes(part) for key, part in value.items()}
        return tuple(map(shapes, value)) if isinstance(value, tuple) else (value.shape, value.dtype)

    observed, _ = envs.reset(seed=0)
    assert shapes(observed) == shapes(like)
    for _ in range(4):
        observed, *_, info = envs.step(envs.action_space.sample())
        assert shapes(observed) == shapes(like)
        assert shapes(info.get("final_obs", like)) == shapes(like)
    sent = [taken for world in envs.worlds for actions in world.received for taken in actions.values()]
    assert len(sent) == 16 and all(action.contains(taken) for taken in sent)


@pytest.mark.parametrize("num_envs", [1, 16])
def test_num_envs_must_be_a_multiple(num_envs):
    with pytest.raises(
        ValueError, match=f"^num_envs={num_envs}: it must be a multiple of 3, the number of agents of ants: every"
    ):
        AgentRows(Colony, num_envs, "ants")


@pytest.mark.parametrize("num_envs", [0, -3, 2.5])
def test_num_envs_must_be_a_count(num_envs):
    with pytest.raises(ValueError, match=f"^num_envs={num_envs}: it must be a whole number of at least 1$"):
        AgentRows(Colony, num_envs)


@pytest.mark.parametrize(
    ("kind", "space", "sentence"),
    [
        ("observation_spaces", spaces.Discrete(2), r"equal observation spaces, but a has Box.* and b Discrete\(2\): "),
        ("action_spaces", spaces.Discrete(4), r"equal action spaces, but a has Discrete\(3\) and b Discrete\(4\): "),
    ],
)
def test_agents_must_be_alike(kind, space, sentence):
    made = []

    def make():
        made.append(Colony(**{kind: {"b": space}}))
        return made[-1]

    with pytest.raises(
        ValueError, match=f"the agents of ants must have {sentence}pad them with wrappers=.supersuit.pad_"
    ):
        AgentRows(make, 3, "ants")
    assert len(made) == 1 and made[0].closed


def test_agents_that_their_world_takes_out_of_its_list_keep_their_rows(colony):
    colony.worlds[0].possible_agents.remove("c")
    assert colony.possible_agents == ("a", "b", "c")


def test_agents_must_be_known_beforehand():
    with pytest.raises(ValueError, match="ants has no possible_agents"):
        AgentRows(partial(Colony, {}), 2, "ants")


@pytest.fixture
def agent():
    """``agent(envs, num_steps)``: small, for rows of a Colony."""

    def make(envs, num_steps, **update):
        given = {"num_envs": envs.num_envs, "num_steps": num_steps, "bptt": None, "num_minibatches": 1, **update}
        return RecurrentPPO(envs.single_observation_space, envs.single_action_space, layer_size=8, seed=0, **given)

    return make


def test_rollouts_hold_the_steps_of_the_living_only(colony, agent):
    """Twelve steps: three episodes of 2, 4 and 2 steps in the rows, so 6 steps of each are kept."""
    made, stepper = agent(colony, 12), VectorEnvAdapter(colony)
    obs = stepper.reset(0)
    for _ in range(12):
        after = stepper.step(made.act(obs))
        made.observe(after.rewards, after.terminated, after.truncated, after.final_obs, after.ignored)
        obs = after.obs
    buffer = made.buffer
    _, size = buffer.drop_ignored(buffer.whole_steps, buffer.values[11]), buffer.size
    rows = {
        "obs": [[1, 2, 1, 2, 1, 2], [11, 12, 13, 14, 11, 12], [22, 23, 22, 23, 22, 23]],
        "rewards": [[1, 2, 1, 2, 1, 2], [101, 102, 103, 104, 101, 102], [202, 203, 202, 203, 202, 203]],
        "starts": [[1, 0, 1, 0, 1, 0], [1, 0, 0, 0, 1, 0], [1, 0, 1, 0, 1, 0]],
        "terminated": [[0, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1]],
        "truncated": [[0] * 6, [0, 0, 0, 1, 0, 0], [0] * 6],
    }
    assert size == 6
    assert buffer.obs["obs"][:6, :, 0].T.tolist() == rows.pop("obs")
    for name, numbers in rows.items():
        assert getattr(buffer, name)[:6].T.tolist() == numbers, name


@pytest.mark.slow
def test_training_and_evaluation_of_the_mortal(agent):
    """Action 1 pays 1 in each living step, so the best returns are the lengths of the lives."""
    envs = AgentRows(partial(Colony, paid=True), 6)
    made, stepper, episodes = agent(envs, 16, learning_rate=0.01), VectorEnvAdapter(envs), Episodes(6)
    obs = stepper.reset(0)
    for _ in range(15):
        for _ in range(16):
            after = stepper.step(made.act(obs))
            made.observe(after.rewards, after.terminated, after.truncated, after.final_obs, after.ignored)
            episodes.add(after)
            obs = after.obs
        made.learn(obs)
        assert made.last_metrics["ratio_error"] < 1e-4
    assert made.updates == 15 and made.env_steps == 15 * 8 * 6  # 2 of 4 steps are lived by a and c
    assert {length for _, length in episodes.new} == {2, 4} and len(episodes.new) == 15 * 4 * 6
    played = evaluate(made, AgentRows(partial(Colony, paid=True), 6), 12, seed=1)
    assert sorted(played.lengths.tolist()) == [2] * 8 + [4] * 4
    assert played.returns.tolist() == played.lengths.tolist()

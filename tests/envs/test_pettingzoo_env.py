"""Worlds by their names: modules, ids of the registry, wrappers, and what is said of unknown or missing ones."""

import sys
import types

import numpy as np
import pytest
from gymnasium import spaces

from envs.pettingzoo_env import make_pettingzoo


class Ants:
    """A parallel environment of three ants, that never ends; action 1 pays one."""

    possible_agents = agents = ("a", "b", "c")

    def __init__(self, pay=1):
        self.pay = pay

    def observation_space(self, agent):
        return spaces.Discrete(2)

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        return dict.fromkeys(self.agents, 0), {}

    def step(self, actions):
        rewards = {agent: self.pay * int(action) for agent, action in actions.items()}
        return dict.fromkeys(self.agents, 1), rewards, {}, {}, {}

    def close(self):
        pass


@pytest.fixture
def ants(monkeypatch):
    """A module `ants` that holds a parallel environment."""
    module = types.ModuleType("ants")
    module.parallel_env = Ants
    monkeypatch.setitem(sys.modules, "ants", module)
    return module


class Louder:
    """A wrapper that changes the rewards: times ``factor``, and ``more``."""

    def __init__(self, world, factor=2, more=0):
        self.world, self.factor, self.more = world, factor, more

    def __getattr__(self, name):
        return getattr(self.world, name)

    def step(self, actions):
        observed, rewards, *rest = self.world.step(actions)
        return observed, {agent: self.factor * reward + self.more for agent, reward in rewards.items()}, *rest


def test_a_module_with_keywords_and_wrappers_in_order(ants):
    """((3 * 2) * 2) * 5 + 1 for an action 1, and 1 for an action 0."""
    ants.Louder = Louder
    wrappers = [Louder, "ants.Louder", {"path": "ants.Louder", "factor": 5, "more": 1}]
    envs = make_pettingzoo("ants", 6, wrappers, pay=3)
    envs.reset(seed=0)
    assert envs.step(np.array([1, 1, 0, 0, 1, 1]))[1].tolist() == [61, 61, 1, 1, 61, 61]
    assert len(envs.worlds) == 2 and envs.worlds[0] is not envs.worlds[1]
    with pytest.raises(ValueError, match=r"No wrapper can be imported from 'ants\.Quieter'"):
        make_pettingzoo("ants", 3, ["ants.Quieter"])


def test_what_does_not_fit_is_told_of_the_environment_by_its_name(ants):
    with pytest.raises(ValueError, match=r"^num_envs=4: it must be a multiple of 3, the number of agents of ants: "):
        make_pettingzoo("ants", 4)


@pytest.fixture
def registry(monkeypatch, ants):
    """PettingZoo's registry, as a module that stands for it."""
    zoo = types.ModuleType("pettingzoo")
    entries = {"zoo/ants-v0": "ants:parallel_env", "zoo/bees-v0": "pymunk.bees:parallel_env", "zoo/wasps-v0": Ants}
    zoo.parallel_registry = {id: types.SimpleNamespace(entry_point=point) for id, point in entries.items()}
    zoo.make = lambda kind, id, **kwargs: Ants(**kwargs) if (kind, id[:3]) == ("parallel", "zoo") else None
    monkeypatch.setitem(sys.modules, "pettingzoo", zoo)
    monkeypatch.setattr(sys, "meta_path", [Without("pymunk"), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "pymunk", raising=False)


@pytest.mark.parametrize("id", ["zoo/ants-v0", "zoo/wasps-v0"])
def test_an_id_of_the_registry(registry, id):
    envs = make_pettingzoo(id, 6, pay=4)
    envs.reset(seed=0)
    assert envs.step(np.ones(6, dtype=np.int64))[1].tolist() == [4] * 6


def test_an_id_that_the_registry_does_not_know(registry):
    sentence = r"^PettingZoo has no parallel environment 'zoo/ant-v0'; the nearest known are zoo/ants-v0"
    with pytest.raises(ValueError, match=sentence):
        make_pettingzoo("zoo/ant-v0", 3)


def test_an_id_of_the_registry_whose_package_is_missing(registry):
    with pytest.raises(ModuleNotFoundError, match=r"^zoo/bees-v0 needs the package pymunk, .*multiagent") as caught:
        make_pettingzoo("zoo/bees-v0", 3)
    assert caught.value.name == "pymunk"


def test_a_module_that_needs_a_part_of_a_missing_package(tmp_path, monkeypatch):
    raising = "raise ModuleNotFoundError(\"No module named 'pymunk.space'\", name='pymunk.space')"
    (tmp_path / "module_of_bees.py").write_text(raising)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^module_of_bees needs the package pymunk, ") as caught:
        make_pettingzoo("module_of_bees", 3)
    assert caught.value.name == "pymunk.space"


def test_a_module_without_a_parallel_environment(ants):
    del ants.parallel_env
    with pytest.raises(ValueError, match="ants has no parallel_env: only environments in which all agents act at once"):
        make_pettingzoo("ants", 3)


def test_an_unknown_module():
    with pytest.raises(ValueError, match=r"no module envs\.t_mase; the nearest known are t_maze\."):
        make_pettingzoo("envs.t_mase", 3)
    with pytest.raises(ValueError, match=r"no module envs\.qqqqqq\."):
        make_pettingzoo("envs.qqqqqq.v1", 3)


class Without:
    """A finder of modules to which a package does not exist."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize("id", ["pettingzoo.butterfly.pistonball_v6", "butterfly/pistonball-v6"])
def test_a_missing_package_names_the_extra(id, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pettingzoo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without("pettingzoo"), *sys.meta_path])
    sentence = (
        rf'^{id} needs the package pettingzoo, which is not installed: pip install "recurrent-ppo\[multiagent\]"\.$'
    )
    with pytest.raises(ModuleNotFoundError, match=sentence):
        make_pettingzoo(id, 20)


def test_a_missing_package_that_no_extra_brings():
    with pytest.raises(
        ModuleNotFoundError, match=r"^no_such_package\.v1 needs the package no_such_package, .*installed\.$"
    ):
        make_pettingzoo("no_such_package.v1", 2)


@pytest.mark.parametrize("seed", [0, 5])
def test_rows_equal_the_plain_environment(seed):
    """Two worlds of simple_spread against two of PettingZoo's own stepped by hand, over three episodes."""
    pytest.importorskip("mpe2")
    from mpe2 import simple_spread_v3

    envs = make_pettingzoo("mpe2.simple_spread_v3", 6, max_cycles=10)
    plain = [simple_spread_v3.parallel_env(max_cycles=10) for _ in range(2)]
    compare(envs, plain, seed, 30)
    envs.close()


def test_rows_equal_a_plain_environment_in_which_agents_die():
    pytest.importorskip("pymunk")
    pettingzoo = pytest.importorskip("pettingzoo")
    id, options = "butterfly/knights_archers_zombies-v11", {"spawn_delay": 2, "max_cycles": 300}
    envs = make_pettingzoo(id, 8, **options)
    ignored = compare(envs, [pettingzoo.make("parallel", id, **options) for _ in range(2)], 3, 400)
    assert ignored > 0
    envs.close()


def compare(envs, plain, seed, steps):
    """Steps both with random actions; how many steps of rows were ignored."""
    agents, drawn, ignored, episodes = envs.possible_agents, [], 0, 0
    envs.action_space.seed(seed)
    observed, _ = envs.reset(seed=seed)
    for index, world in enumerate(plain):
        drawn.append(np.random.default_rng(seed + index))
        own, _ = world.reset(seed=seed + index)
        for row, agent in enumerate(agents, index * len(agents)):
            np.testing.assert_array_equal(observed[row], own[agent])
    for _ in range(steps):
        actions = envs.action_space.sample()
        observed, rewards, terminated, truncated, info = envs.step(actions)
        idle = info.get("ignored", np.zeros(envs.num_envs, bool))
        ignored += idle.sum()
        for index, world in enumerate(plain):
            rows = {agent: row for row, agent in enumerate(agents, index * len(agents))}
            alive = list(world.agents)
            assert [agent for agent in agents if not idle[rows[agent]]] == [agent for agent in agents if agent in alive]
            own, earned, ends, cuts, _ = world.step({agent: actions[rows[agent]] for agent in alive})
            over = not world.agents
            episodes += over
            fresh = world.reset(seed=int(drawn[index].integers(2**31)))[0] if over else own
            for agent, row in rows.items():
                assert rewards[row] == (earned[agent] if agent in alive else 0)
                assert terminated[row] == (agent in alive and ends[agent])
                assert truncated[row] == (agent in alive and cuts[agent])
                ended = terminated[row] or truncated[row]
                assert bool(info["_final_obs"][row] if "_final_obs" in info else False) == ended
                if ended:
                    np.testing.assert_array_equal(info["final_obs"][row], own[agent])
                shown = fresh[agent] if over or agent in world.agents else np.zeros_like(observed[row])
                np.testing.assert_array_equal(observed[row], shown)
    assert episodes >= 2
    return ignored


def test_supersuit_pads_what_differs():
    pytest.importorskip("mpe2")
    pytest.importorskip("supersuit")
    id = "mpe2.simple_speaker_listener_v4"
    with pytest.raises(ValueError, match=r"equal observation spaces, but speaker_0 has Box.*listener_0 Box"):
        make_pettingzoo(id, 2)
    with pytest.raises(ValueError, match=r"equal action spaces, but speaker_0 has Discrete\(3\) and listener_0"):
        make_pettingzoo(id, 2, ["supersuit.pad_observations_v0"])
    envs = make_pettingzoo(id, 4, ["supersuit.pad_observations_v0", "supersuit.pad_action_space_v0"])
    assert envs.reset(seed=0)[0].shape == (4, 11) and envs.single_action_space == spaces.Discrete(5)
    envs.step(np.full(4, 4))


def test_unknown_ids_of_the_registry():
    pytest.importorskip("pettingzoo")
    with pytest.raises(
        ValueError, match=r"no parallel environment 'butterfly/pistonbal-v6'; the nearest known are but"
    ):
        make_pettingzoo("butterfly/pistonbal-v6", 20)
    with pytest.raises(ValueError, match=r"no parallel environment 'classic/chess-v6'"):  # its agents take turns
        make_pettingzoo("classic/chess-v6", 2)

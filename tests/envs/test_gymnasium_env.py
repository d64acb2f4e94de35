import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeAwareObservation

from envs import gymnasium_env
from envs.batched_env import BatchedEnv
from envs.gymnasium_env import DropObservation, complete_id, make_gymnasium
from envs.same_step_autoreset import SameStepAutoreset
from envs.single_env import SingleEnv


@pytest.mark.parametrize(("mode", "cls"), [("sync", SyncVectorEnv), ("async", AsyncVectorEnv)])
def test_same_step_autoreset_in_either_mode(mode, cls):
    env = make_gymnasium("CartPole-v1", 2, vectorization_mode=mode, max_episode_steps=3)
    assert isinstance(env, cls) and env.num_envs == 2
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    env.reset(seed=0)
    for _ in range(3):
        observations, rewards, _, truncated, info = env.step(np.array([0, 1]))
        assert (rewards == 1).all()
    assert truncated.all() and info["_final_obs"].all() and (np.abs(observations) <= 0.05).all()
    env.close()


def test_the_vector_entry_point():
    cartpole = make_gymnasium("CartPole-v1", 4, vectorization_mode="vector_entry_point")
    assert isinstance(cartpole, SameStepAutoreset)
    own = make_gymnasium("envs:RecurrentPPO/TMaze-v0", 4, vectorization_mode="vector_entry_point", length=3)
    assert isinstance(own, BatchedEnv) and own.length == 3
    with pytest.raises(
        ValueError, match=r"^vectorization_mode='vector_entry_point': it must be 'sync', 'async' or 'auto' where"
    ):
        make_gymnasium("CartPole-v1", 4, [TimeAwareObservation], vectorization_mode="vector_entry_point")


def test_wrappers_as_callable_path_and_mapping():
    drop = {"path": "envs.gymnasium_env.DropObservation", "indices": [1, 3]}
    env = make_gymnasium("CartPole-v1", 3, [drop, "gymnasium.wrappers.TimeAwareObservation"])
    assert env.single_observation_space.shape == (3,)
    target = {"_target_": "gymnasium.wrappers.TimeAwareObservation", "flatten": False}
    env = make_gymnasium("CartPole-v1", 3, [target])
    assert set(env.single_observation_space) == {"obs", "time"}
    env = make_gymnasium("CartPole-v1", 3, [TimeAwareObservation])
    assert env.single_observation_space.shape == (5,)
    last = {"path": "envs.gymnasium_env.DropObservation", "indices": [4]}
    env = make_gymnasium("CartPole-v1", 3, [TimeAwareObservation, last])  # in this order there is a fifth number
    assert env.single_observation_space.shape == (4,)


@pytest.mark.parametrize(
    ("wrapper", "sentence"),
    [
        ("gymnasium.wrappers.NoSuchWrapper", "No wrapper can be imported from 'gymnasium.wrappers.NoSuchWrapper'"),
        ("no_such_module.Wrapper", "No wrapper can be imported from 'no_such_module.Wrapper'"),
        ("Wrapper", "^wrapper='Wrapper': it must be a callable, a dotted path or a mapping with a 'path'$"),
        ({"indices": [1]}, r"^wrapper={'indices': \[1\]}: it must be a callable, a dotted path or a mapping with"),
        (3, "^wrapper=3: it must be a callable"),
        (
            "builtins.print",
            r"^wrappers\[0\]=builtins.print made a NoneType: it must make a gymnasium.Env of ",
        ),
    ],
)
def test_bad_wrappers(wrapper, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        make_gymnasium("CartPole-v1", 2, [wrapper])


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("CartPol-v1", r"Unknown environment id 'CartPol-v1'; the nearest known ids are CartPole-v1, "),
        ("Pendulum-v9", r"Unknown environment id 'Pendulum-v9'; the nearest known ids are Pendulum-v1"),
        ("envs:RecurrentPPO/TMaz-v0", r"the nearest known ids are RecurrentPPO/TMaze-v0"),
        ("mpe2.simple_spread_v3", r"'mpe2.simple_spread_v3'; those of PettingZoo go with env=pettingzoo\.$"),
        ("%%%%", r"Unknown environment id '%%%%'; no known id is similar"),
    ],
)
def test_unknown_ids(id, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_gymnasium(id, 2)


def test_a_missing_side_package_names_its_extra(monkeypatch):
    package = ("MiniGrid-", "BabyAI-"), "no_such_package", '"recurrent-ppo[envs]"'
    monkeypatch.setattr(gymnasium_env, "SIDE_PACKAGES", (package,))
    with pytest.raises(ModuleNotFoundError, match=r'no_such_package.*pip install "recurrent-ppo\[envs\]"\.$'):
        make_gymnasium("BabyAI-X-v0", 2)


def test_every_task_of_mujoco_is_known_by_the_beginning_of_its_id():
    """And nothing else of Gymnasium's own is."""
    own = [id for id, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("gymnasium.envs.")]
    of_mujoco = {id for id in own if gymnasium.registry[id].entry_point.startswith("gymnasium.envs.mujoco")}
    assert len(of_mujoco) >= 22
    assert {id for id in own if id.startswith(gymnasium_env.MUJOCO)} == of_mujoco


@pytest.mark.parametrize(
    ("id", "whole"), [("Pong", "ALE/Pong-v5"), ("ALE/Pong-v4", "ALE/Pong-v4"), ("my:Game-v0", "my:Game-v0")]
)
def test_a_short_id(id, whole):
    assert complete_id(id, "ALE/", "-v5") == whole


def test_minigrid_is_imported_on_demand():
    pytest.importorskip("minigrid")
    env = make_gymnasium("MiniGrid-MemoryS7-v0", 2, ["minigrid.wrappers.ImgObsWrapper"], agent_view_size=3)
    assert env.reset(seed=0)[0].shape == (2, 3, 3, 3)


def test_bad_vectorization_mode():
    allowed = "'sync', 'async', 'auto', 'vector_entry_point'"
    with pytest.raises(ValueError, match=f"^vectorization_mode='x': it must be one of {allowed}$"):
        make_gymnasium("CartPole-v1", 2, vectorization_mode="x")


def test_drop_observation():
    env = DropObservation(gymnasium.make("CartPole-v1"), [1, 3])
    full, _ = env.env.reset(seed=0)
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation, full[[0, 2]])
    assert observation in env.observation_space
    np.testing.assert_array_equal(env.observation_space.high, env.env.observation_space.high[[0, 2]])
    assert env.spec.make().observation_space.shape == (2,)


@pytest.mark.parametrize("indices", [[7], [-1], [0, 1, 2, 3]])
def test_drop_observation_refuses_bad_indices(indices):
    with pytest.raises(ValueError, match=r"^indices=\[.*\]: it must be some, but not all, of 0 to 3$"):
        DropObservation(gymnasium.make("CartPole-v1"), indices)


def test_a_module_before_the_id_is_imported_first(tmp_path, monkeypatch):
    lines = "import gymnasium", "gymnasium.register('Own-v0', 'gymnasium.envs.classic_control:CartPoleEnv')"
    (tmp_path / "module_of_one_task.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)
    with pytest.raises(ValueError, match="Unknown environment id 'Own-v0'"):
        make_gymnasium("Own-v0", 2)
    assert make_gymnasium("module_of_one_task:Own-v0", 2).num_envs == 2


def test_a_module_that_is_not_there(tmp_path, monkeypatch):
    """The id is named where its own module is missing, and nothing is said of it where another one is."""
    (tmp_path / "module_with_a_need.py").write_text("import no_such_need")
    monkeypatch.syspath_prepend(tmp_path)
    sentence = r"^'no_such.module:Own-v0': there is no module no_such; it is looked for on the Python path"
    with pytest.raises(ModuleNotFoundError, match=sentence):
        make_gymnasium("no_such.module:Own-v0", 2)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_need'$"):
        make_gymnasium("module_with_a_need:Own-v0", 2)


def test_drop_observation_refuses_other_spaces():
    with pytest.raises(ValueError, match=r"^observation_space=Box\(0, 255, \(3, 12, 12\), uint8\): it must be a one-"):
        DropObservation(SingleEnv("envs.probes:SpaceProbe", observation="image"), [0])
    with pytest.raises(ValueError, match=r"^observation_space=Discrete\(16\): it must be a one-dimensional Box$"):
        DropObservation(gymnasium.make("FrozenLake-v1"), [0])

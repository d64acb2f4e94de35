"""Environments of Brax and MuJoCo Playground as tensors: with their packages, and what is said without them."""

import importlib.util

import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from envs.brax_env import VELOCITIES, BraxEnv, find_environment

BRAX = "brax is of the extra `brax`"
B, LIMIT = 4, 5


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize(("suite", "package"), [("brax", "brax"), ("playground", "mujoco_playground")])
def test_a_missing_package_is_told_with_its_extra(nothing_installed, suite, package):
    said = rf"ant needs the package {package}, .*: pip install \"recurrent-ppo\[{suite}\]\"\."
    with pytest.raises(ModuleNotFoundError, match=said):
        BraxEnv("ant", suite=suite)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"suite": "gym"}, "suite='gym': it must be one of 'brax', 'playground'"),
        ({"num_envs": 0}, "num_envs=0"),
        ({"max_episode_steps": 0}, "max_episode_steps=0"),
    ],
)
def test_bad_arguments_are_told_without_any_package(nothing_installed, arguments, said):
    with pytest.raises(ValueError, match=said):
        BraxEnv(**arguments)


@pytest.fixture(scope="module")
def made():
    """``made(**arguments)``: the light environments of this module, each compiled once."""
    pytest.importorskip("brax", reason=BRAX)
    known = {}

    def make(id="reacher", hide=()):
        key = (id, tuple(hide))
        if key not in known:
            known[key] = BraxEnv(id, B, max_episode_steps=LIMIT, hide=hide, backend="spring")
        return known[key]

    return make


def idle(env):
    return torch.zeros(env.action_space.shape)


def test_tensors_in_the_form_of_this_project(made):
    env = made()
    assert env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP and env.device == torch.device("cpu")
    assert env.action_space.shape == (B, 2) and env.single_action_space.high.tolist() == [1, 1]
    obs, info = env.reset(seed=0)
    assert obs.shape == env.observation_space.shape == (B, 11) and obs.dtype == torch.float32 and info == {}
    obs, rewards, terminated, truncated, info = env.step(idle(env))
    assert rewards.shape == terminated.shape == truncated.shape == (B,)
    assert (rewards.dtype, terminated.dtype, truncated.dtype) == (torch.float32, torch.bool, torch.bool)
    assert info["final_obs"].shape == obs.shape and info["final_obs"].equal(obs)
    assert all(tensor.device == env.device for tensor in (obs, rewards, terminated, truncated, info["final_obs"]))


def test_no_copy_either_way(made, monkeypatch):
    """Torch reads the memory that JAX wrote, and JAX the actions of torch."""
    env = made()
    env.reset(seed=0)
    advance, seen = env._advance, []

    def spy(carry, actions):
        carry, outcome = advance(carry, actions)
        seen.append((actions.unsafe_buffer_pointer(), [part.unsafe_buffer_pointer() for part in outcome]))
        return carry, outcome

    monkeypatch.setattr(env, "_advance", spy)
    actions = idle(env)
    obs, rewards, terminated, truncated, info = env.step(actions)
    written = [tensor.data_ptr() for tensor in (obs, info["final_obs"], rewards, terminated, truncated)]
    assert seen == [(actions.data_ptr(), written)]


def test_what_was_handed_out_stays(made):
    env = made()
    first, _ = env.reset(seed=0)
    kept = first.clone()
    actions = torch.ones(env.action_space.shape)
    second = env.step(actions)[0]
    actions.zero_()  # an agent may use its actions again
    copy = second.clone()
    for _ in range(2 * LIMIT):
        env.step(actions)
    assert first.equal(kept) and second.equal(copy) and not first.equal(second)


def test_the_limit_truncates_and_every_episode_has_a_goal_of_its_own(made):
    """Components 4 and 5 of the reacher are where its target lies, for one episode."""
    env = made()
    obs, _ = env.reset(seed=0)
    goals = [obs[:, 4:6]]
    for step in range(1, 3 * LIMIT + 1):
        obs, _, terminated, truncated, info = env.step(idle(env))
        assert not terminated.any() and truncated.tolist() == [step % LIMIT == 0] * B
        torch.testing.assert_close(info["final_obs"][:, 4:6], goals[-1], atol=1e-4, rtol=0)  # the target trembles
        if step % LIMIT == 0:
            goals.append(obs[:, 4:6])
        assert info["final_obs"].equal(obs) == (step % LIMIT != 0)
    assert len(torch.cat(goals).unique(dim=0)) == 4 * B


def test_an_end_is_no_truncation(made):
    """Under full thrust the pole falls, by chance of its start sooner or later, but before the limit of 1000."""
    env = BraxEnv("inverted_pendulum", B, backend="spring")
    env.reset(seed=0)
    for _ in range(200):
        obs, _, terminated, truncated, info = env.step(torch.ones(B, 1))
        assert not truncated.any()
        assert (info["final_obs"][:, 1].abs() > 0.2).equal(terminated)
        assert (obs[:, 1].abs() <= 0.2).all()
        if terminated.any():
            break
    assert terminated.any()


def test_seeds_and_episodes_without_one(made):
    env = made()
    seeded = [env.reset(seed=seed)[0] for seed in (3, 3, 4)]
    assert seeded[0].equal(seeded[1]) and not seeded[0].equal(seeded[2])
    env.reset(seed=3)
    after = [env.reset()[0] for _ in range(2)]
    assert not after[0].equal(seeded[0]) and not after[0].equal(after[1])


@pytest.mark.parametrize("actions", [torch.zeros(B), np.zeros((B, 3)), torch.zeros(B + 1, 2)])
def test_actions_of_another_shape_are_refused(made, actions):
    made().reset(seed=0)
    with pytest.raises(ValueError, match=r"actions.shape=\(.*\): it must be \(4, 2\)"):
        made().step(actions)


def test_a_step_needs_a_reset(made):
    with pytest.raises(ResetNeeded):
        BraxEnv("fast", B).step(np.zeros((B, 1)))


def test_going_on_exactly(made):
    env = made()
    env.reset(seed=1)
    state = env.state_dict()
    played = [env.step(idle(env)) for _ in range(LIMIT + 2)]
    begun = env.reset()[0]
    env.reset(seed=2)
    env.load_state_dict(state)
    for step in played:
        assert all(then.equal(now) for then, now in zip(step[:4], env.step(idle(env))[:4], strict=True))
    assert env.reset()[0].equal(begun)
    for arrays in ({}, {name: array[:1] for name, array in state["arrays"].items()}):
        with pytest.raises(ValueError, match="The state does not belong to 4 copies of reacher"):
            env.load_state_dict(state | {"arrays": arrays})


def test_hidden_velocities_are_left_out(made):
    """Under hidden velocities a state and one with other velocities look the same; both still move apart."""
    whole, hidden = made(), made(hide="velocities")
    assert hidden.single_observation_space.shape == (9,)
    seen, partly = whole.reset(seed=2)[0], hidden.reset(seed=2)[0]
    assert partly.equal(seen[:, [0, 1, 2, 3, 4, 5, 8, 9, 10]])
    seen, partly = whole.step(idle(whole))[4]["final_obs"], hidden.step(idle(hidden))[4]["final_obs"]
    torch.testing.assert_close(partly, seen[:, [0, 1, 2, 3, 4, 5, 8, 9, 10]])


@pytest.mark.parametrize("id", sorted(id for suite, id in VELOCITIES if suite == "brax" and id != "fast"))
def test_the_velocities_are_those(id):
    """Other velocities change the components that are said to be velocities, and these alone."""
    pytest.importorskip("brax", reason=BRAX)
    import jax

    env = find_environment(id, "brax")()
    show = jax.jit(lambda qd: env._get_obs(env.pipeline_init(env.sys.init_q + 0.1, qd)))
    slow = np.zeros(env.sys.qd_size(), np.float32)
    changed = abs(np.array(show(slow)) - np.array(show(slow + 0.5))) > 1e-6
    assert np.flatnonzero(changed).tolist() == list(VELOCITIES["brax", id])


def test_unknown_names(made):
    with pytest.raises(ValueError, match=r"Unknown environment id 'inverted_pendlum' of brax; .* inverted_pendulum"):
        BraxEnv("inverted_pendlum")
    with pytest.raises(ValueError, match=r"hide='velocities' is known of ant, .*: for humanoid it must be"):
        BraxEnv("humanoid", hide="velocities")
    with pytest.raises(ValueError, match="device=meta: JAX cannot use it here"):
        BraxEnv("fast", device="meta")


def test_playground():
    pytest.importorskip("mujoco_playground", reason="MuJoCo Playground is of the extra `playground`")
    env = BraxEnv("PendulumSwingup", B, "playground", max_episode_steps=LIMIT, hide="velocities")
    first, _ = env.reset(seed=0)
    for _ in range(LIMIT):
        obs, rewards, _, truncated, info = env.step(idle(env))
    assert first.shape == obs.shape == info["final_obs"].shape == (B, 2) and rewards.dtype == torch.float32
    assert truncated.all() and not obs.equal(info["final_obs"])
    assert len(torch.cat([first, obs]).unique(dim=0)) == 2 * B

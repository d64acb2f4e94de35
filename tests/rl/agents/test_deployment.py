"""A trained agent plays the same in every way: evaluation, player, client without outcomes, the exported file."""

from functools import partial

import numpy as np
import pytest

from envs.t_maze import TMaze
from envs.witness_vote import WitnessVote
from rl import Player, cores, load_agent
from rl.agents import DualHeadRecurrentPPO, RecurrentIQN, RecurrentPPOLSTM
from rl.export import write
from rl.training.evaluation import evaluate
from rl.training.stepping import VectorEnvAdapter

PPO = {"num_steps": 32, "bptt": 16, "num_minibatches": 4}
AGENTS = {
    "ppo": (RecurrentPPOLSTM, partial(TMaze, length=5), PPO),
    "iqn": (RecurrentIQN, partial(TMaze, length=5), {"bptt": 8, "learning_starts": 2_000, "learning_rate": 1e-3}),
    "dual_head": (
        DualHeadRecurrentPPO,
        partial(WitnessVote, num_suspects=2, corridor=3),
        PPO | {"learning_rate": 3e-3},
    ),
}


class OnnxPolicy:
    """One step of the exported file, with a state of its own that goes on until ``reset``."""

    def __init__(self, path):
        self.session = pytest.importorskip("onnxruntime").InferenceSession(path)
        self.names = [leaf.name for leaf in self.session.get_outputs()]
        self.reset()

    def reset(self):
        leaves = [leaf for leaf in self.session.get_inputs() if leaf.name.startswith("state.")]
        self.state = {leaf.name: np.zeros((1, *leaf.shape[1:]), np.float32) for leaf in leaves}
        self.start = np.ones(1, dtype=bool)

    def act(self, obs):
        given = {"obs": obs, "start": self.start} | self.state
        out = dict(zip(self.names, self.session.run(None, given), strict=True))
        self.state, self.start = {name: out[f"next_{name}"] for name in self.state}, np.zeros(1, dtype=bool)
        return out["action"]


def returns_of(act, reset, envs, episodes):
    """Returns of ``episodes`` episodes in one environment; nothing but observations goes in."""
    adapter, returns, total = VectorEnvAdapter(envs), [], 0.0
    obs = adapter.reset(7)
    reset()
    while len(returns) < episodes:
        step = adapter.step(act(obs))
        obs, total = step.obs, total + float(step.rewards[0])
        if step.terminated[0] or step.truncated[0]:
            returns.append(total)
            total = 0.0
            reset()
    return np.array(returns)


def ways_to_play(path, action_space):
    """``name -> (act, reset)``, each made of the file alone."""
    single, batched, player, server = load_agent(path), load_agent(path, num_envs=1), Player(path), Player.load(path)
    actor, states = batched.new_actor(1, 0), {}

    def act_as_client(obs):
        code = single.take_action(obs[0])
        sizes = getattr(action_space, "nvec", None)
        return np.array([code]) if sizes is None else np.array([np.unravel_index(code, sizes)])

    def act_on_a_server(obs):
        action, states["client"] = server.act(obs, states["client"])
        return action

    def begin():
        states["client"] = server.initial_state()

    return {
        "client": (act_as_client, single.reset),
        "batched client": (batched.act, batched.reset),
        "actor": (partial(actor.act, greedy=True), actor.reset),
        "player": (player.act, player.reset),
        "single observations": (lambda obs: np.array([player.act(obs[0])]), player.reset),
        "server": (act_on_a_server, begin),
    }


@pytest.fixture
def trained(randomise):
    """An agent that was trained for some steps, or one of random weights, and what makes its environment."""

    def make(name, steps):
        kind, task, options = AGENTS[name]
        envs = task(num_envs=16)
        core = partial(cores.lstm if kind is RecurrentPPOLSTM else cores.gru, hidden_size=32)
        spaces_of = envs.single_observation_space, envs.single_action_space
        agent = kind(*spaces_of, num_envs=16, seed=1, core=core, **options | ({"total_steps": steps} if steps else {}))
        if not steps:
            randomise(agent.network)
        adapter = VectorEnvAdapter(envs)
        obs = adapter.reset(1)
        while agent.env_steps < steps:
            for _ in range(agent.num_steps):
                step = adapter.step(agent.act(obs))
                agent.observe(step.rewards, step.terminated, step.truncated, step.final_obs, step.ignored)
                obs = step.obs
            agent.learn(obs)
        return agent, task

    return make


@pytest.mark.parametrize("name", AGENTS)
def test_all_ways_to_play_give_the_returns_of_evaluate(trained, tmp_path, name):
    """To the last digit, in 60 episodes of random weights, where a memory that was wiped would act otherwise."""
    agent, task = trained(name, steps=0)
    compare(agent, task, tmp_path / "agent.pt", episodes=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "reached"), [("ppo", 40_000, 1.0), ("iqn", 40_000, 0.95), ("dual_head", 60_000, 0.9)]
)
def test_all_ways_to_play_give_the_returns_of_evaluate_over_a_thousand_episodes(
    trained, tmp_path, name, steps, reached
):
    agent, task = trained(name, steps)
    returns = compare(agent, task, tmp_path / "agent.pt", episodes=1_000)
    assert returns.mean() >= reached
    pytest.importorskip("onnxscript")
    write(agent, tmp_path / "policy.onnx")
    policy = OnnxPolicy(tmp_path / "policy.onnx")
    played = returns_of(policy.act, policy.reset, task(num_envs=1), 1_000)
    np.testing.assert_array_equal(played, returns)
    print(f"{name}: {returns.mean()} over {len(returns)} episodes in all ways, ONNX included")


def compare(agent, task, path, episodes):
    """Check that every way gives the same returns; return them."""
    expected = evaluate(agent, task(num_envs=1), episodes, seed=7).returns
    agent.save(path)
    ways = ways_to_play(path, agent.action_space)
    for name, (act, reset) in ways.items():
        np.testing.assert_array_equal(returns_of(act, reset, task(num_envs=1), episodes), expected, name)
    return expected

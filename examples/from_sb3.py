"""Train with sb3-contrib and with this project on equal settings, and take sb3's agent over.

pip install 'recurrent-ppo[bench]'
python examples/from_sb3.py
"""

from functools import partial

import gymnasium
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

import rl
from envs.classic_control import CartPoleNoVelocity
from rl import cores, encoders

TASK = "RecurrentPPO/CartPoleNoVelocity-v0"


def train_sb3(steps: int, seed: int) -> RecurrentPPO:
    """Train with sb3-contrib."""
    model = RecurrentPPO(
        "MlpLstmPolicy",
        make_vec_env(TASK, n_envs=8, seed=seed),
        n_steps=128,
        batch_size=256,
        n_epochs=10,
        learning_rate=1e-3,
        gamma=0.98,
        vf_coef=0.5,
        policy_kwargs={"lstm_hidden_size": 64, "net_arch": {"pi": [64], "vf": [64]}},
        seed=seed,
        device="cpu",
    )
    return model.learn(steps)


def train_ours(steps: int, seed: int) -> rl.RecurrentPPOLSTM:
    """Train with this project, with the same network and the same settings."""
    envs = CartPoleNoVelocity(num_envs=8)
    agent = rl.RecurrentPPOLSTM(
        envs.single_observation_space,
        envs.single_action_space,
        core=partial(cores.lstm, hidden_size=64),
        encoder=encoders.plain,
        head_layers=[64],
        separate_critic=True,
        num_envs=8,
        num_steps=128,
        bptt=128,  # sb3 has whole rollouts, too
        num_minibatches=4,  # 8 * 128 / 256
        epochs=10,
        learning_rate=1e-3,
        gamma=0.98,
        value_coef=1.0,  # ours is of half the squared error
        entropy_coef=0.0,
        seed=seed,
    )
    obs, _ = envs.reset(seed=seed)
    while agent.env_steps < steps:
        for _ in range(agent.num_steps):
            obs, rewards, terminated, truncated, info = envs.step(agent.act(obs))
            agent.observe(rewards, terminated, truncated, info.get("final_obs"))
        agent.learn(obs)
    return agent


def play_both(model: RecurrentPPO, agent: rl.RecurrentPPOLSTM, steps: int) -> bool:
    """Play an agent of sb3 and what became of it side by side; return whether they always act alike."""
    env, player = gymnasium.make(TASK), rl.Player(agent)
    (obs, _), start, state = env.reset(seed=1), True, None
    for _ in range(steps):
        action, state = model.predict(obs, state, np.array([start]), deterministic=True)
        if player.act(obs, starts=start) != action:
            return False
        obs, _, terminated, truncated, _ = env.step(action)
        if start := bool(terminated or truncated):
            obs, _ = env.reset()
    return True


def main(steps: int = 40_000, seeds: tuple[int, ...] = (1, 2, 3)) -> list[bool]:
    """Print greedy returns of both, and return for each seed whether sb3's agent and what became of it act alike."""
    torch.set_num_threads(1)
    alike = []
    for seed in seeds:
        model = train_sb3(steps, seed)
        model.save("cartpole_sb3.zip")
        agents = {"sb3-contrib": rl.from_sb3("cartpole_sb3.zip", num_envs=50), "this project": train_ours(steps, seed)}
        alike.append(play_both(model, rl.from_sb3("cartpole_sb3.zip"), 1_000))
        for name, agent in agents.items():
            envs = CartPoleNoVelocity(num_envs=50)
            kept, zeroed = (
                rl.evaluate(agent, envs, 100, seed=10_000 + seed, memory=memory) for memory in (True, False)
            )
            told = f"return {kept.mean:5.1f} +- {kept.stderr:4.1f}, memory zeroed {zeroed.mean:5.1f}"
            print(f"seed {seed}, {name:<12} {told}")
        print(f"seed {seed}, sb3's agent and what became of it act alike in 1,000 steps: {alike[-1]}", flush=True)
    return alike


if __name__ == "__main__":
    main()

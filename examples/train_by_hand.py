"""Train an agent in a loop of your own, on many environments at once.

python examples/train_by_hand.py
"""

from pathlib import Path

import torch

from envs.t_maze import TMaze
from rl import RecurrentPPOLSTM, evaluate


def main(path: str | Path = "t_maze.pt", total_steps: int = 100_000) -> float:
    """Train, save to ``path``, and return the mean return of greedy play."""
    torch.set_num_threads(1)  # the fastest for a network as small as this
    envs = TMaze(num_envs=64, length=5)
    agent = RecurrentPPOLSTM(
        envs.single_observation_space,
        envs.single_action_space,
        num_envs=64,
        num_steps=32,  # of each environment in a rollout
        bptt=32,  # the gradient reaches back so many steps
        learning_rate=1e-3,
        learning_rate_schedule="linear",  # down to 0 at total_steps; a constant one unlearns now and then
        total_steps=total_steps,
        seed=1,
    )
    obs, _ = envs.reset(seed=1)
    while agent.env_steps < total_steps:
        for _ in range(agent.num_steps):
            actions = agent.act(obs)
            obs, rewards, terminated, truncated, info = envs.step(actions)
            agent.observe(rewards, terminated, truncated, info.get("final_obs"))
        loss = agent.learn(obs)
        print(f"{agent.env_steps:>8} steps, loss {loss:.3f}")
    agent.save(path)
    played = evaluate(agent, TMaze(num_envs=50, length=5), episodes=200, seed=2)
    print(f"return {played.mean:.3f} +- {played.stderr:.3f}, saved as {path}")
    return played.mean


if __name__ == "__main__":
    main()

"""Play one environment with a saved agent: what a deployment does.

python examples/train_by_hand.py && python examples/deploy.py
"""

from pathlib import Path

import gymnasium

import envs  # noqa: F401 (registers the maze with Gymnasium)
from rl import RecurrentPPOLSTM


def main(path: str | Path = "t_maze.pt", episodes: int = 100) -> float:
    """Load the agent from ``path``, play ``episodes`` and return their mean return."""
    env = gymnasium.make("RecurrentPPO/TMaze-v0", length=5)
    agent = RecurrentPPOLSTM(env.observation_space, env.action_space)  # for one environment, though 64 trained it
    agent.load(path)
    agent.training = False  # the likeliest actions; nothing is stored or learned

    total = 0.0
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action = agent.act(obs)  # the memory goes on from step to step
            obs, reward, terminated, truncated, _ = env.step(action)
            agent.observe(reward, terminated, truncated)  # where the episode ended, the memory is cleared
            ended = terminated or truncated
            total += float(reward)
    print(f"mean return {total / episodes:.3f} over {episodes} episodes")
    return total / episodes


if __name__ == "__main__":
    main()

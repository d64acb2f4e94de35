"""Play one environment with a saved agent: what a deployment does.

python examples/train_by_hand.py && python examples/deploy.py
"""

from pathlib import Path

import gymnasium

import envs  # noqa: F401 (registers the maze with Gymnasium)
from rl import Player


def main(path: str | Path = "t_maze.pt", episodes: int = 100) -> float:
    """Load the agent from ``path``, play ``episodes`` and return their mean return."""
    player = Player(path)  # a checkpoint or a run folder; nothing of the training is repeated here
    env = gymnasium.make("RecurrentPPO/TMaze-v0", length=5)

    total = 0.0
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        player.reset()  # an episode begins: the memory is cleared
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(player.act(obs))  # the memory goes on from step to step
            ended = terminated or truncated
            total += float(reward)
    print(f"mean return {total / episodes:.3f} over {episodes} episodes")
    return total / episodes


if __name__ == "__main__":
    main()

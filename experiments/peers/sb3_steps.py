"""Train sb3-contrib on repeat-previous with the sizes of this project's preset for so many steps, then let it play.

    pip install sb3-contrib==2.9.2
    python -m experiments.peers.sb3_steps --seed 1 --steps 60000

Matched to ``experiment=repeat_previous_4``: environments, rollout, minibatches, epochs, a constant learning rate,
discount, lambda, entropy bonus and the width of all layers. The network is its default: an LSTM each for policy and
value, a tanh layer behind each, nothing in front. One thread. It prints one JSON line: ``env_steps``, ``eval_return``
of 1,000 greedy episodes, and ``training_seconds``, which leave out the start and the evaluation.
"""

import argparse
import json
import time
from collections.abc import Sequence

import sb3_contrib
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger

from envs.repeat_previous import RepeatPrevious
from experiments.peers.sb3_contrib import BatchedVecEnv

EPISODES, COPIES = 1000, 50


def make_agent(seed: int) -> sb3_contrib.RecurrentPPO:
    """Make the agent and its 64 environments; it logs nothing."""
    agent = sb3_contrib.RecurrentPPO(
        "MlpLstmPolicy",
        BatchedVecEnv(RepeatPrevious(64)),
        n_steps=16,
        batch_size=128,
        n_epochs=4,
        learning_rate=3e-3,
        gamma=0.99,
        gae_lambda=0.95,
        ent_coef=0.01,
        policy_kwargs={"lstm_hidden_size": 64, "net_arch": {"pi": [64], "vf": [64]}},
        seed=seed,
        device="cpu",
    )
    agent.set_logger(Logger(folder=None, output_formats=[]))  # the default one makes a temporary folder
    return agent


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, required=True, metavar="K")
    parser.add_argument("--steps", type=int, default=60_000, metavar="N", help="environment steps")
    arguments = parser.parse_args(argv)
    if arguments.steps < 1:
        parser.error("--steps must be at least 1")
    torch.set_num_threads(1)
    agent = make_agent(arguments.seed)
    began = time.perf_counter()
    agent.learn(arguments.steps)
    seconds = time.perf_counter() - began
    env = BatchedVecEnv(RepeatPrevious(COPIES))
    env.seed(10_000 + arguments.seed)
    mean, _ = evaluate_policy(agent, env, n_eval_episodes=EPISODES, deterministic=True, warn=False)
    steps = agent.num_timesteps
    print(json.dumps({"env_steps": steps, "eval_return": float(mean), "training_seconds": seconds}))


if __name__ == "__main__":
    main()

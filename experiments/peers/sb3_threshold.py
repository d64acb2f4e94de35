"""Train sb3-contrib with the settings that its zoo tuned for CartPole without velocities, until that is solved.

    pip install sb3-contrib==2.9.2
    python -m experiments.peers.sb3_threshold --seed 1

The settings are those of the entry CartPoleNoVel-v1 in rl-baselines3-zoo's hyperparams/ppo_lstm.yml, all of them, with
the zoo's way to normalise: running moments of observations and of discounted rewards. One thread. The task is this
project's, whose observations leave the velocities out where the zoo's show zeros.

Every 5,000 steps, at the end of the update that passes them, the policy plays 100 episodes greedily: two on each of 50
copies, from the same starts each time, with the moments of the training observations at that moment. The run ends with
the first mean of at least 475, or when its steps are used up, and prints one JSON line: ``env_steps``, ``eval_return``
of the last evaluation, ``solved``, and ``training_seconds``, which leave out the start and the evaluations. Unlike the
other workers it speaks no protocol: it is asked once.
"""

import argparse
import json
import time
from collections.abc import Sequence

import sb3_contrib
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from envs.classic_control import CartPoleNoVelocity
from experiments.peers.sb3_contrib import BatchedVecEnv

THRESHOLD, EPISODES, COPIES = 475.0, 100, 50
SCHEDULE_STEPS = 100_000  # learning rate and clip range are 0 from there on, however long the run
GAMMA = 0.98


def make_agent(seed: int) -> sb3_contrib.RecurrentPPO:
    """Make the agent and its 8 environments; it logs nothing."""
    agent = sb3_contrib.RecurrentPPO(
        "MlpLstmPolicy",
        VecNormalize(BatchedVecEnv(CartPoleNoVelocity(8)), gamma=GAMMA),
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        learning_rate=LinearSchedule(1e-3, 0.0, 1.0),
        clip_range=LinearSchedule(0.2, 0.0, 1.0),
        gamma=GAMMA,
        gae_lambda=0.8,
        ent_coef=0.0,
        policy_kwargs={
            "ortho_init": False,
            "activation_fn": nn.ReLU,
            "lstm_hidden_size": 64,
            "enable_critic_lstm": True,
            "net_arch": {"pi": [64], "vf": [64]},
        },
        seed=seed,
        device="cpu",
    )
    agent.set_logger(Logger(folder=None, output_formats=[]))  # the default one makes a temporary folder
    return agent


def make_evaluation_env(training: VecNormalize, seed: int) -> VecNormalize:
    """Make copies that share the moments of the training observations but never move them, with unscaled rewards."""
    env = VecNormalize(BatchedVecEnv(CartPoleNoVelocity(COPIES)), training=False, norm_reward=False, gamma=GAMMA)
    env.obs_rms = training.obs_rms
    env.seed(seed)
    return env


def solve(agent: sb3_contrib.RecurrentPPO, env: VecNormalize, max_steps: int, every: int) -> dict[str, float]:
    """Train until an evaluation reaches the threshold or the steps are used up.

    Args:
        agent: fresh.
        env: for the evaluations.
        max_steps: environment steps of the run, which ends with a whole rollout.
        every: environment steps between two evaluations, each of which follows a whole rollout.

    Returns:
        What is printed.
    """
    _, callback = agent._setup_learn(total_timesteps=SCHEDULE_STEPS)
    due, seconds = every, 0.0
    while True:
        began = time.perf_counter()
        agent.collect_rollouts(agent.env, callback, agent.rollout_buffer, n_rollout_steps=agent.n_steps)
        agent._update_current_progress_remaining(agent.num_timesteps, SCHEDULE_STEPS)
        agent.train()
        seconds += time.perf_counter() - began
        steps, over = agent.num_timesteps, agent.num_timesteps >= max_steps
        if steps < due and not over:
            continue
        due = every * (steps // every + 1)
        mean, _ = evaluate_policy(agent, env, n_eval_episodes=EPISODES, deterministic=True, warn=False)
        solved = bool(mean >= THRESHOLD)
        if solved or over:
            return {"env_steps": steps, "eval_return": float(mean), "solved": solved, "training_seconds": seconds}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, required=True, metavar="K")
    parser.add_argument("--max-steps", type=int, default=SCHEDULE_STEPS, metavar="N", help="environment steps")
    parser.add_argument("--evaluate-every", type=int, default=5_000, metavar="N", help="environment steps")
    arguments = parser.parse_args(argv)
    if min(arguments.max_steps, arguments.evaluate_every) < 1:
        parser.error("--max-steps and --evaluate-every must be at least 1")
    torch.set_num_threads(1)
    agent = make_agent(arguments.seed)
    env = make_evaluation_env(agent.env, seed=10_000 + arguments.seed)
    print(json.dumps(solve(agent, env, arguments.max_steps, arguments.evaluate_every)))


if __name__ == "__main__":
    main()

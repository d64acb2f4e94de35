"""Train sb3-contrib, with its own defaults, on any task of this project, then let it play greedily.

    pip install sb3-contrib==2.9.2
    python -m experiments.peers.sb3_tasks --folder runs/maze --env '{"_target_": "envs.t_maze.TMaze", "length": 10}'

Matched: the task, the number of environments and of steps, and the evaluations; the last one is played twice, once with
the memory zeroed before every step. All else is what RecurrentPPO of sb3-contrib does unless it is told otherwise:
rollouts of 128 steps, a constant learning rate of 3e-4, 10 epochs, minibatches of 128 steps, an LSTM of 256 each for
policy and value and two tanh layers of 64 behind it, no bonus for entropy, nothing normalised but advantages. It is not
shown its previous action. One thread.

The folder gets what a run of this project leaves: ``config.yaml``, TensorBoard's ``eval/episodic_return``, and, once
all is done, ``result.json``; ``training_seconds`` leave out the start and the evaluations. A run that ended on its way
begins anew. With ``--threshold`` it ends at the first evaluation that reaches it, with ``--max-seconds`` at the first
update after so many seconds of training.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import Space
from omegaconf import OmegaConf
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch.utils.tensorboard import SummaryWriter

from experiments.launch.build import EVALUATION_ENVS
from experiments.launch.check import construct
from experiments.launch.evaluations import EVALUATION_SEED, FINAL_SEED
from experiments.launch.run_folder import write_config, write_result
from experiments.peers.sb3_contrib import BatchedVecEnv
from rl.checks import positive

COUNTS = {
    "num_envs": (64, "environments to train in"),
    "total_steps": (500_000, "environment steps"),
    "evaluate_every": (50_000, "environment steps"),
    "evaluate_episodes": (50, "of each of those evaluations"),
    "final_episodes": (200, "of the last evaluation"),
}
"""Arguments of a run, as this project calls them: default, what it is."""
LIMITS = {
    "threshold": "of an evaluation, at which the run ends",
    "max_seconds": "of training, after which the run ends",
}
"""Further arguments, which may be left out."""


class Flat(FlattenExtractor):
    """The library's default: what is observed, one-hot where it is discrete.

    Its width for several discrete numbers is one of numpy's, which the LSTM of torch refuses.
    """

    def __init__(self, observation_space: Space):
        super().__init__(observation_space)
        self._features_dim = int(self.features_dim)


class Forgetful:
    """A policy that plays with its memory zeroed before every step.

    Args:
        agent: whose policy it is.
    """

    def __init__(self, agent: sb3_contrib.RecurrentPPO):
        self.agent = agent

    def predict(self, observation: Any, state: Any, episode_start: np.ndarray, deterministic: bool) -> Any:
        """Return actions ``[N]`` and no state, as if every step began an episode."""
        return self.agent.predict(observation, None, np.ones(len(episode_start), bool), deterministic)[0], None


class Evaluations(BaseCallback):
    """Greedy evaluations between updates, the first one after ``every`` steps, and the end of a run.

    Args:
        env: to play in.
        every: environment steps between two of them, each of which follows a whole rollout.
        episodes: of each.
        seed: of every one.
        folder: for TensorBoard.
        threshold: mean return of an evaluation at which the run ends; None for none.
        max_seconds: of training, after which it ends; None for any number.

    Attributes:
        reached: environment steps and seconds of training at the threshold; None for each before it.
        stop_reason: why the run ends before its steps are used up: "threshold", "max_seconds" or None.
    """

    def __init__(
        self,
        env: BatchedVecEnv,
        every: int,
        episodes: int,
        seed: int,
        folder: Path,
        threshold: float | None = None,
        max_seconds: float | None = None,
    ):
        super().__init__()
        self.env, self.every, self.episodes, self.seed = env, every, episodes, seed
        self.threshold, self.max_seconds = threshold, max_seconds
        self.due, self.spent, self.writer = every, 0.0, SummaryWriter(str(folder))
        self.reached: tuple[int, float] | tuple[None, None] = None, None
        self.stop_reason: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training up to now, without the evaluations."""
        return time.perf_counter() - self.began - self.spent

    def _on_training_start(self) -> None:
        self.began = time.perf_counter()

    def _on_step(self) -> bool:
        return self.stop_reason is None  # False ends the run

    def _on_rollout_start(self) -> None:
        self.evaluate()
        if self.stop_reason is None and self.max_seconds is not None and self.seconds >= self.max_seconds:
            self.stop_reason = "max_seconds"

    def _on_training_end(self) -> None:
        self.evaluate()
        self.writer.close()

    def evaluate(self) -> None:
        """Play and write down the mean return, if it is due."""
        if self.num_timesteps < self.due:
            return
        seconds, self.due = self.seconds, self.every * (self.num_timesteps // self.every + 1)
        mean = play(self.model, self.env, self.episodes, self.seed)
        self.writer.add_scalar("eval/episodic_return", mean, self.num_timesteps)
        self.spent += self.seconds - seconds
        if self.threshold is not None and mean >= self.threshold and self.stop_reason is None:
            self.reached, self.stop_reason = (self.num_timesteps, seconds), "threshold"


def play(policy: Any, env: BatchedVecEnv, episodes: int, seed: int) -> float:
    """Return the mean return of greedy episodes: those that an evaluation of this project with this seed plays."""
    env.seed(EVALUATION_SEED + seed)
    mean, _ = evaluate_policy(policy, env, n_eval_episodes=episodes, deterministic=True, warn=False)
    return float(mean)


def train(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train and evaluate.

    Args:
        settings: ``env``, a node with a ``_target_``; ``seed``; those of ``COUNTS``; those of ``LIMITS`` that it has.
        folder: of the run, for TensorBoard.

    Returns:
        What ``result.json`` holds, under the names of this project.
    """
    node, seed, total = OmegaConf.create(settings["env"]), settings["seed"], settings["total_steps"]
    envs, copies = (construct(node, "env", num_envs=number)[0] for number in (settings["num_envs"], EVALUATION_ENVS))
    agent = sb3_contrib.RecurrentPPO(
        "MlpLstmPolicy", BatchedVecEnv(envs), policy_kwargs={"features_extractor_class": Flat}, seed=seed, device="cpu"
    )
    agent.set_logger(Logger(folder=None, output_formats=[]))  # the default one makes a temporary folder
    env = BatchedVecEnv(copies)
    limits = {name: settings.get(name) for name in LIMITS}
    evaluations = Evaluations(env, settings["evaluate_every"], settings["evaluate_episodes"], seed, folder, **limits)
    agent.learn(total, callback=evaluations)
    seconds = evaluations.seconds
    episodes = settings["final_episodes"]
    kept, zeroed = (play(each, env, episodes, seed + FINAL_SEED) for each in (agent, Forgetful(agent)))
    modules = (sb3_contrib, stable_baselines3, torch)
    return {
        "agent": "sb3-contrib",
        "core": "lstm",
        "parameters": sum(parameter.numel() for parameter in agent.policy.parameters()),
        "env_steps": agent.num_timesteps,
        "total_steps": total,
        "training_seconds": seconds,
        "stop_reason": evaluations.stop_reason,
        "threshold": limits["threshold"],
        "steps_to_threshold": evaluations.reached[0],
        "seconds_to_threshold": evaluations.reached[1],
        "eval_return_mean": kept,
        "memory_zeroed_return_mean": zeroed,
        "optimal_return": getattr(copies.unwrapped, "optimal_return", None),
        "memoryless_return": getattr(copies.unwrapped, "memoryless_return", None),
        "versions": {module.__name__: module.__version__ for module in modules},
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, metavar="PATH", help="of the run")
    parser.add_argument("--env", type=json.loads, required=True, metavar="JSON", help="_target_ and its arguments")
    parser.add_argument("--seed", type=int, default=1, metavar="K")
    for name, (default, meaning) in COUNTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, metavar="N", help=meaning)
    for name, meaning in LIMITS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, metavar="X", help=meaning)
    settings = vars(parser.parse_args(argv))
    folder = settings.pop("folder")
    positive(**{name: settings[name] for name in COUNTS})
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (folder / "result.json", *folder.glob("events.out.tfevents.*")):
        old.unlink(missing_ok=True)
    write_config(folder, OmegaConf.create(settings))
    write_result(folder, train(settings, folder))


if __name__ == "__main__":
    main()

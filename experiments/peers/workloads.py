"""Say what is trained: three workloads with their sizes, their environments, and the arguments of all workers.

Importing this needs the standard library only; environments are imported when they are made.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gymnasium
    from gymnasium.vector import VectorEnv

MINIGRID = "MiniGrid-MemoryS11-v0"
IMAGE_ONLY = "minigrid.wrappers.ImgObsWrapper"


@dataclass(frozen=True)
class Workload:
    """One task with the sizes of rollout, network and update.

    Attributes:
        name: short name.
        env: what the task is.
        hidden_size: of the one recurrent layer.
        num_envs: environments of a rollout.
        num_steps: steps of each of them.
        layer_size: width of the tanh layers: one in front of the recurrent layer, and behind it one for the policy and
            one for the value.
        encoded: there is one in front; a one-hot code is read as it is.
        epochs: of an update.
        num_minibatches: of an epoch.
    """

    name: str
    env: str
    hidden_size: int
    num_envs: int = 16
    num_steps: int = 128
    layer_size: int = 64
    epochs: int = 4
    num_minibatches: int = 8
    encoded: bool = True

    @property
    def batch_size(self) -> int:
        """The steps in a minibatch."""
        return self.num_envs * self.num_steps // self.num_minibatches


WORKLOADS = {
    "w1": Workload("w1", "CartPole without velocities", hidden_size=128),
    "w2": Workload("w2", f"{MINIGRID}, 7 x 7 x 3 uint8 image", hidden_size=256),
    "w3": Workload("w3", "repeat-previous, one-hot", hidden_size=256, encoded=False),
}

# What the programs have in common, under this project's names.
LEARNING_RATE, GAMMA, GAE_LAMBDA, CLIP = 1e-3, 0.99, 0.95, 0.2
VALUE_COEF, ENTROPY_COEF, MAX_GRAD_NORM = 0.5, 0.01, 0.5


def has_minigrid() -> bool:
    """Tell whether MiniGrid is installed; without it w2 is this project's own grid with the same shapes."""
    return importlib.util.find_spec("minigrid") is not None


def make_vector_env(workload: Workload) -> VectorEnv:
    """Make ``num_envs`` copies of the task, stepped together, with SAME_STEP autoreset."""
    if workload.name == "w1":
        from envs.classic_control import CartPoleNoVelocity

        return CartPoleNoVelocity(workload.num_envs)
    if workload.name == "w3":
        from envs.repeat_previous import RepeatPrevious

        return RepeatPrevious(workload.num_envs)
    if has_minigrid():
        from envs.gymnasium_env import make_gymnasium

        return make_gymnasium(MINIGRID, workload.num_envs, wrappers=[IMAGE_ONLY])
    from envs.memory_grid import MemoryGrid

    return MemoryGrid(workload.num_envs, size=11)


def make_single_minigrid() -> gymnasium.Env:
    """Make one environment of w2, for libraries that put the copies together themselves."""
    import gymnasium
    import minigrid  # noqa: F401 (registers its environments)
    from minigrid.wrappers import ImgObsWrapper

    return ImgObsWrapper(gymnasium.make(MINIGRID))


def make_parser(description: str | None, whole_rollouts: bool = False) -> argparse.ArgumentParser:
    """Make a parser of the arguments that all workers have; a worker may add its own.

    Args:
        description: the docstring of the worker's module, of which the first line is shown.
        whole_rollouts: the program has no sequence length; it trains what fits of an episode into the rollout.
    """
    lengths = (128,) if whole_rollouts else (1, 2, 4, 8, 16, 32, 64, 128)
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--workload", choices=sorted(WORKLOADS), default="w1")
    parser.add_argument("--core", choices=("lstm", "gru"), default="lstm")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the numerical library")
    parser.add_argument(
        "--bptt",
        type=int,
        choices=lengths,
        default=128 if whole_rollouts else 16,
        help="steps of the trained sequences; 128 is the whole rollout",
    )
    return parser

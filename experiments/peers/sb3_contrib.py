"""RecurrentPPO of sb3-contrib, an LSTM only.

    pip install sb3-contrib==2.9.2
    python -m experiments.peers.sb3_contrib --workload w1 --variant separate

Matched: environments (w1 and w3 are this project's, stepped all at once; w2 is MiniGrid in its DummyVecEnv), sizes of
rollout, encoder and LSTM, linear heads, epochs, minibatch size, Adam, clipping and coefficients. The loop is the one of
its ``learn`` without callbacks and logging.

Not matched: by default the value has an LSTM of its own, so the network is about twice as large; ``--variant shared``
has one LSTM, which the value loss then does not train. Sequences are whole episodes, cut where a rollout or a minibatch
ends and padded to the longest; there is no length to choose.
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor, nn

from experiments.peers import workloads
from experiments.peers.serve import Worker, repeat, serve
from experiments.peers.workloads import Workload


class Features(BaseFeaturesExtractor):
    """The encoder: small images through two 3 x 3 convolutions, then one tanh layer."""

    def __init__(self, observation_space: spaces.Box, layer_size: int):
        super().__init__(observation_space, layer_size)
        shape, layers = observation_space.shape, [nn.Flatten()]
        if len(shape) == 3:  # channels first and scaled to 0 ... 1 by the library
            convolutions = [nn.Conv2d(shape[0], 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
            layers = [*convolutions, nn.Flatten()]
        size = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
        self.layers = nn.Sequential(*layers, nn.Linear(size, layer_size), nn.Tanh())

    def forward(self, observations: Tensor) -> Tensor:
        """``[batch, ...] -> [batch, layer_size]``."""
        return self.layers(observations)


class BatchedVecEnv(VecEnv):
    """One of this project's vector environments as the library takes them."""

    def __init__(self, envs: VectorEnv):
        self.envs, self.actions = envs, None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> np.ndarray:
        return self.envs.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, rewards, terminated, truncated, info = self.envs.step(self.actions)
        ended, infos = terminated | truncated, [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(ended):
            cut = bool(truncated[row] and not terminated[row])
            infos[row] = {"terminal_observation": info["final_obs"][row], "TimeLimit.truncated": cut}
        return obs, rewards.astype(np.float32), ended, infos

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.envs, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise NotImplementedError(f"{method_name} of single environments: they are stepped all at once")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def vec_env(work: Workload) -> VecEnv:
    """``num_envs`` copies of the task."""
    if work.name == "w2" and workloads.has_minigrid():
        return DummyVecEnv([workloads.single_minigrid] * work.num_envs)
    return BatchedVecEnv(workloads.vector_env(work))


def model(work: Workload, env: VecEnv, shared: bool) -> sb3_contrib.RecurrentPPO:
    """The agent, which logs nothing."""
    made = sb3_contrib.RecurrentPPO(
        "CnnLstmPolicy" if len(env.observation_space.shape) == 3 else "MlpLstmPolicy",
        env,
        n_steps=work.num_steps,
        batch_size=work.batch_size,
        n_epochs=work.epochs,
        learning_rate=workloads.LEARNING_RATE,
        gamma=workloads.GAMMA,
        gae_lambda=workloads.GAE_LAMBDA,
        clip_range=workloads.CLIP,
        ent_coef=workloads.ENTROPY_COEF,
        vf_coef=workloads.VALUE_COEF,
        max_grad_norm=workloads.MAX_GRAD_NORM,
        policy_kwargs={
            "features_extractor_class": Features,
            "features_extractor_kwargs": {"layer_size": work.layer_size},
            "net_arch": [],
            "lstm_hidden_size": work.hidden_size,
            "shared_lstm": shared,
            "enable_critic_lstm": not shared,
        },
        verbose=0,
        seed=0,
        device="cpu",
    )
    made.set_logger(Logger(folder=None, output_formats=[]))  # the default one makes a temporary folder
    return made


class Iterations:
    """Calls collect one rollout and learn from it, and return its environment steps and finished episodes."""

    def __init__(self, agent: sb3_contrib.RecurrentPPO):
        self.agent = agent
        _, self.callback = agent._setup_learn(total_timesteps=agent.n_steps * agent.n_envs)

    def __call__(self) -> tuple[int, int]:
        agent, steps = self.agent, self.agent.num_timesteps
        agent.collect_rollouts(agent.env, self.callback, agent.rollout_buffer, n_rollout_steps=agent.n_steps)
        starts = int(agent.rollout_buffer.episode_starts.sum())  # before training, which reorders the buffer
        agent.train()
        return agent.num_timesteps - steps, starts


def build(arguments: Namespace) -> Worker:
    """The worker after one iteration."""
    torch.set_num_threads(arguments.threads)
    work = workloads.WORKLOADS[arguments.workload]
    agent = model(work, vec_env(work), arguments.variant == "shared")
    iterations = Iterations(agent)
    iterations()
    modules = (sb3_contrib, stable_baselines3, torch, np, gymnasium)
    parameters = sum(parameter.numel() for parameter in agent.policy.parameters())
    name = "sb3_contrib" if arguments.variant == "separate" else "sb3_contrib shared"
    return Worker(name, {m.__name__: m.__version__ for m in modules}, parameters, partial(repeat, iterations))


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = workloads.parser(__doc__, whole_rollouts=True)
    parser.add_argument("--variant", choices=("separate", "shared"), default="separate", help="LSTM of the value")
    arguments = parser.parse_args(argv)
    if arguments.core != "lstm":
        parser.error("sb3-contrib has no recurrent cell but the LSTM: --core gru cannot be measured")
    serve(partial(build, arguments))


if __name__ == "__main__":
    main()

"""Train RecurrentPPO of sb3-contrib, an LSTM only.

    pip install sb3-contrib==2.9.2
    python -m experiments.peers.sb3_contrib --workload w1 --variant separate

Matched: environments (w1 and w3 are this project's, stepped all at once; w2 is MiniGrid in its DummyVecEnv), sizes of
rollout, encoder, LSTM and the layers behind it, epochs, minibatch size, Adam, clipping and coefficients. The loop is
the one of its ``learn`` without callbacks and logging.

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
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import Tensor, nn

from experiments.peers import workloads
from experiments.peers.serve import Worker, repeat, serve
from experiments.peers.workloads import Workload


class Features(BaseFeaturesExtractor):
    """The encoder: small images through two 3 x 3 convolutions, then one tanh layer.

    Args:
        observation_space: of one environment, images channels first.
        layer_size: width of the last layer.
    """

    def __init__(self, observation_space: spaces.Box, layer_size: int):
        super().__init__(observation_space, layer_size)
        shape = observation_space.shape
        layers: list[nn.Module] = [nn.Flatten()]
        if len(shape) == 3:  # channels first and scaled to 0 ... 1 by the library
            convolutions = [nn.Conv2d(shape[0], 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
            layers = [*convolutions, nn.Flatten()]
        size = nn.Sequential(*layers)(torch.zeros(1, *shape)).shape[1]
        self.layers = nn.Sequential(*layers, nn.Linear(size, layer_size), nn.Tanh())

    def forward(self, observations: Tensor) -> Tensor:
        """Encode ``[batch, ...]`` as ``[batch, layer_size]``."""
        return self.layers(observations)


class BatchedVecEnv(VecEnv):
    """One of this project's vector environments as the library takes them."""

    actions: np.ndarray  # of the step that waits

    def __init__(self, envs: VectorEnv):
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> np.ndarray:
        """Begin episodes in all environments."""
        return self.envs.reset(seed=self._seeds[0])[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions of the next step."""
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Do the step; ends and final observations are told as the library expects them."""
        obs, rewards, terminated, truncated, info = self.envs.step(self.actions)
        ended = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(ended):
            timed_out = bool(truncated[row] and not terminated[row])
            infos[row] = {"terminal_observation": info["final_obs"][row], "TimeLimit.truncated": timed_out}
        return obs, rewards.astype(np.float32), ended, infos

    def close(self) -> None:
        """End the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute, once for each environment."""
        return [getattr(self.envs, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all environments."""
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: there are no single environments."""
        raise NotImplementedError(f"{method_name} of single environments: they are stepped all at once")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Return False for each environment."""
        return [False] * self.num_envs


def make_vec_env(work: Workload) -> VecEnv:
    """Make ``num_envs`` copies of the task."""
    if work.name == "w2" and workloads.has_minigrid():
        return DummyVecEnv([workloads.make_single_minigrid] * work.num_envs)
    return BatchedVecEnv(workloads.make_vector_env(work))


def make_agent(work: Workload, env: VecEnv, shared: bool) -> sb3_contrib.RecurrentPPO:
    """Make the agent, which logs nothing.

    Args:
        work: the sizes.
        env: to play in.
        shared: policy and value have one LSTM, which the value loss does not train, instead of one each.
    """
    agent = sb3_contrib.RecurrentPPO(
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
            "features_extractor_class": Features if work.encoded else FlattenExtractor,
            "features_extractor_kwargs": {"layer_size": work.layer_size} if work.encoded else {},
            "net_arch": {"pi": [work.layer_size], "vf": [work.layer_size]},
            "lstm_hidden_size": work.hidden_size,
            "shared_lstm": shared,
            "enable_critic_lstm": not shared,
        },
        verbose=0,
        seed=0,
        device="cpu",
    )
    agent.set_logger(Logger(folder=None, output_formats=[]))  # the default one makes a temporary folder
    return agent


class Iterations:
    """Training of an agent: a call collects one rollout and learns from it."""

    def __init__(self, agent: sb3_contrib.RecurrentPPO):
        self.agent = agent
        _, self.callback = agent._setup_learn(total_timesteps=agent.n_steps * agent.n_envs)

    def __call__(self) -> tuple[int, int]:
        """Return the environment steps and the finished episodes of one iteration."""
        agent, steps = self.agent, self.agent.num_timesteps
        agent.collect_rollouts(agent.env, self.callback, agent.rollout_buffer, n_rollout_steps=agent.n_steps)
        starts = int(agent.rollout_buffer.episode_starts.sum())  # before training, which reorders the buffer
        agent.train()
        return agent.num_timesteps - steps, starts


def build(arguments: Namespace) -> Worker:
    """Return the worker after one iteration."""
    torch.set_num_threads(arguments.threads)
    work = workloads.WORKLOADS[arguments.workload]
    agent = make_agent(work, make_vec_env(work), arguments.variant == "shared")
    iterations = Iterations(agent)
    iterations()
    modules = (sb3_contrib, stable_baselines3, torch, np, gymnasium)
    parameters = sum(parameter.numel() for parameter in agent.policy.parameters())
    name = "sb3_contrib" if arguments.variant == "separate" else "sb3_contrib shared"
    return Worker(name, {m.__name__: m.__version__ for m in modules}, parameters, partial(repeat, iterations))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the worker."""
    parser = workloads.make_parser(__doc__, whole_rollouts=True)
    parser.add_argument("--variant", choices=("separate", "shared"), default="separate", help="LSTM of the value")
    arguments = parser.parse_args(argv)
    if arguments.core != "lstm":
        parser.error("sb3-contrib has no recurrent cell but the LSTM: --core gru cannot be measured")
    serve(partial(build, arguments))


if __name__ == "__main__":
    main()

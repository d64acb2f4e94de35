"""Train this project: RecurrentPPOLSTM with an LSTM or a GRU, as ``python -m experiments.train`` drives it.

python -m experiments.peers.recurrent_ppo --workload w1 --core gru --bptt 16
"""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy
import torch
from gymnasium.vector import VectorEnv

from experiments.peers import workloads
from experiments.peers.serve import Worker, repeat, serve
from experiments.peers.workloads import Workload
from rl import cores
from rl.agents import RecurrentPPOLSTM
from rl.networks.acceleration import Precision
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.training.stepping import VectorEnvAdapter


def build(arguments: Namespace) -> Worker:
    """Return the worker after one iteration."""
    torch.set_num_threads(arguments.threads)
    run = make_training(workloads.WORKLOADS[arguments.workload], arguments.core, arguments.bptt)
    run()
    versions = {module.__name__: module.__version__ for module in (torch, numpy, gymnasium)}
    return Worker("recurrent_ppo", versions, run.agent.num_parameters, partial(repeat, run))


def make_training(
    work: Workload,
    core: str,
    bptt: int,
    env: VectorEnv | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    **core_options: Any,
) -> "Iterations":
    """Return training on a workload, from a fresh agent.

    Args:
        work: the workload.
        core: name of the core.
        bptt: steps of the trained sequences.
        env: instead of the workload's own environments.
        device: where the agent lies.
        precision: of its arithmetic.
        core_options: further arguments of the core.
    """
    env = env or workloads.make_vector_env(work)
    agent = RecurrentPPOLSTM(
        env.single_observation_space,
        env.single_action_space,
        layer_size=work.layer_size,
        seed=0,
        device=device,
        precision=precision,
        image_encoding="brightness",  # as the others read w2
        core=partial(getattr(cores, core), hidden_size=work.hidden_size, **core_options),
        num_envs=work.num_envs,
        num_steps=work.num_steps,
        epochs=work.epochs,
        num_minibatches=work.num_minibatches,
        bptt=bptt,
        learning_rate=workloads.LEARNING_RATE,
        gamma=workloads.GAMMA,
        gae_lambda=workloads.GAE_LAMBDA,
        clip=workloads.CLIP,
        value_coef=workloads.VALUE_COEF,
        entropy_coef=workloads.ENTROPY_COEF,
        max_grad_norm=workloads.MAX_GRAD_NORM,
    )
    return Iterations(agent, VectorEnvAdapter(env, tensors=True))


class Iterations:
    """Training of an agent: a call collects one rollout and learns from it.

    Args:
        agent: as many environments as ``envs``.
        envs: to play in.
    """

    def __init__(self, agent: RecurrentPPOLSTM, envs: VectorEnvAdapter):
        self.agent, self.envs = agent, envs
        self.obs = envs.reset(0)

    @property
    def buffer(self) -> RolloutBuffer:
        """The agent's rollout; there is one after the first step."""
        assert self.agent.buffer is not None
        return self.agent.buffer

    def __call__(self) -> tuple[int, int]:
        """Return the environment steps and the finished episodes of one iteration."""
        steps, episodes = self.agent.env_steps, self.collect()
        self.agent.learn(self.obs)
        return self.agent.env_steps - steps, episodes

    def collect(self) -> int:
        """Play one rollout; return how many episodes ended in it."""
        agent, episodes = self.agent, 0
        if self.envs.tensors is not None:
            played = agent.collect(self.envs.tensors, self.obs)
            self.obs = played.obs
            return int(played.ended.sum())
        for _ in range(agent.num_steps):
            after = self.envs.step(agent.act(self.obs))
            agent.observe(after.rewards, after.terminated, after.truncated, after.final_obs, after.ignored)
            self.obs = after.obs
            episodes += int((after.terminated | after.truncated).sum())
        return episodes


def main(argv: Sequence[str] | None = None) -> None:
    """Run the worker."""
    serve(partial(build, workloads.make_parser(__doc__).parse_args(argv)))


if __name__ == "__main__":
    main()

"""Train skrl's PPO_RNN agent and memory with a model of ours, an LSTM or a GRU.

    pip install skrl==2.1.1
    python -m experiments.peers.skrl --workload w1 --core lstm --bptt 16

Matched: environments, sizes of rollout and network, one trunk for policy and value, sequence length, epochs, minibatch
size, Adam, clipping and coefficients. skrl's bundled trainer writes logs, so the loop here calls its agent as that
trainer does and nothing else.

skrl leaves the model to the user. ``--variant documented``, the default, replays a minibatch as the recurrent models of
skrl's documentation and examples do: all its sequences are cut at every step at which one of them is terminated, the
layer is called once for each part, and in between the states of the ended sequences are zeroed. ``--variant padded`` is
our faster rewrite, which skrl's users do not have: one call over sequences cut at their own episode ends, each from its
stored state and padded to one length. It trains a third faster on w1 with an LSTM and about as fast everywhere else.
In both, policy and value share one pass through one trunk, which spares skrl half of the work: its recurrent examples
have two networks.

Not matched: skrl 2.1.1 does not shuffle, so a minibatch is the same two environments in every epoch; it stores each
state one step late, which makes the replay inexact but costs no time; its advantages run on over truncations, and so do
the states of the documented variant.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import skrl
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from skrl.agents.torch.ppo import PPO_CFG, PPO_RNN
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from torch import Tensor, nn

from experiments.peers import workloads
from experiments.peers.serve import Worker, repeat, serve
from experiments.peers.workloads import Workload


class SharedModel(CategoricalMixin, DeterministicMixin, Model):
    """An encoder, recurrent layer, policy head and value head, in skrl's terms both its policy and its value.

    Args:
        envs: the task, with images or vectors and discrete actions.
        work: the sizes.
        core: ``lstm`` or ``gru``.
        bptt: the length of the sequences.
        documented: replays as skrl's documentation does, else padded; sequences come first there, steps here.
    """

    def __init__(self, envs: VectorEnv, work: Workload, core: str, bptt: int, documented: bool):
        observation_space, action_space = envs.single_observation_space, envs.single_action_space
        assert isinstance(observation_space, spaces.Box) and isinstance(action_space, spaces.Discrete)
        Model.__init__(self, observation_space=observation_space, action_space=action_space, device="cpu")
        CategoricalMixin.__init__(self, unnormalized_log_prob=True, role="policy")
        DeterministicMixin.__init__(self, clip_actions=False, role="value")
        self.num_envs, self.bptt, self.documented = work.num_envs, bptt, documented
        shape = observation_space.shape
        layers: list[nn.Module] = []
        if len(shape) == 3:
            layers = [Images(observation_space), nn.Conv2d(shape[-1], 16, 3, 1, 1), nn.ReLU()]
            layers += [nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()]
        size = nn.Sequential(*layers)(torch.zeros(1, int(np.prod(shape)))).shape[1]
        if work.encoded:
            layers += [nn.Linear(size, work.layer_size), nn.Tanh()]
            size = work.layer_size
        self.encoder = nn.Sequential(*layers)
        layer: type[nn.LSTM | nn.GRU] = {"lstm": nn.LSTM, "gru": nn.GRU}[core]
        self.core = layer(size, work.hidden_size, batch_first=documented)
        self.leaves = {"lstm": 2, "gru": 1}[core]
        self.policy_head, self.value_head = (
            nn.Sequential(nn.Linear(work.hidden_size, work.layer_size), nn.Tanh(), nn.Linear(work.layer_size, outputs))
            for outputs in (int(action_space.n), 1)
        )
        self.features: Tensor | None = None  # of the last pass for the policy, until the value asks for them

    def get_specification(self) -> dict[str, Any]:
        """Tell the agent the length of the sequences and the sizes of the states."""
        size = (1, self.num_envs, self.core.hidden_size)
        return {"rnn": {"sequence_length": self.bptt, "sizes": [size] * self.leaves}}

    def act(self, inputs: dict[str, Any], *, role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Return actions for the role ``policy``, values for the other."""
        mixin = CategoricalMixin if role == "policy" else DeterministicMixin
        return mixin.act(self, inputs, role=role)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Return logits for the role ``policy``, values for the other."""
        if role == "policy":
            self.features, state = self.run_trunk(inputs)
            return self.policy_head(self.features), {"rnn": state}
        features, self.features = self.features, None
        if features is None:
            features, _ = self.run_trunk(inputs)
        return self.value_head(features), {}

    def run_trunk(self, inputs: dict[str, Any]) -> tuple[Tensor, list[Tensor]]:
        """Return features ``[batch, H]`` and the states after the last step, of one step or of many."""
        x, state = self.encoder(inputs["observations"]), inputs["rnn"]
        if "terminated" not in inputs:
            axis = 1 if self.documented else 0
            y, state = self.run_core(x.unsqueeze(axis), state)
            return y.squeeze(axis), state
        if self.documented:
            return self.replay_in_parts(x, state, inputs["terminated"])
        return self.replay_padded(x, state, inputs["terminated"] | inputs["truncated"])

    def replay_in_parts(self, x: Tensor, state: list[Tensor], terminated: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run the trunk's layer on a minibatch, one call for each part between terminations of any sequence."""
        x, terminated = x.view(-1, self.bptt, x.shape[1]), terminated.view(-1, self.bptt)  # [N, L, D], [N, L]
        state = [leaf[:, :: self.bptt] for leaf in state]  # before the first step of each sequence
        cuts = (terminated[:, :-1].any(dim=0).nonzero().squeeze(1) + 1).tolist()
        parts = []
        for begin, end in pairwise([0, *cuts, self.bptt]):
            y, state = self.run_core(x[:, begin:end], state)
            state = [leaf.masked_fill(terminated[:, end - 1].view(1, -1, 1), 0.0) for leaf in state]
            parts.append(y)
        return torch.cat(parts, dim=1).flatten(0, 1), state

    def replay_padded(self, x: Tensor, state: list[Tensor], ended: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run the trunk's layer on a minibatch in one call."""
        ended = ended.flatten()
        starts = torch.ones_like(ended)
        starts[1:] = ended[:-1]
        starts[:: self.bptt] = True
        first = starts.nonzero().squeeze(1)
        row = starts.cumsum(0) - 1
        time = torch.arange(len(row)) - first[row]
        padded = x.new_zeros(self.bptt, len(first), x.shape[1]).index_put((time, row), x)
        y, state = self.run_core(padded, [leaf[:, first] for leaf in state])
        return y[time, row], state

    def run_core(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Run the recurrent layer on ``[N, L, D]`` if documented, else ``[L, N, D]``."""
        if self.leaves == 1:
            y, last = self.core(x, state[0].contiguous())
            return y, [last]
        y, last = self.core(x, (state[0].contiguous(), state[1].contiguous()))
        return y, list(last)


class Images(nn.Module):
    """A layer that makes images ``[batch, C, H, W]`` in 0 ... 1 of the flattened observations of skrl."""

    def __init__(self, space: spaces.Box):
        super().__init__()
        self.shape, self.high = space.shape, float(space.high.max())

    def forward(self, x: Tensor) -> Tensor:
        """Turn ``[batch, H * W * C]`` into ``[batch, C, H, W]``."""
        return x.view(-1, *self.shape).permute(0, 3, 1, 2) / self.high


class Iterations:
    """Training of an agent: a call collects one rollout and learns from it."""

    def __init__(self, agent: PPO_RNN, envs: VectorEnv, num_steps: int):
        self.agent, self.envs, self.num_steps = agent, envs, num_steps
        self.obs = self.flatten(envs.reset(seed=0)[0])

    def flatten(self, obs: np.ndarray) -> Tensor:
        """Turn ``[B, ...]`` into float32 ``[B, D]``, as skrl's environment wrappers give them."""
        return torch.from_numpy(obs.reshape(self.envs.num_envs, -1)).float()

    def __call__(self) -> tuple[int, int]:
        """Return the environment steps and the finished episodes of one iteration."""
        agent, episodes, now = self.agent, 0, {"timestep": 0, "timesteps": 0}
        for _ in range(self.num_steps):
            agent.pre_interaction(**now)
            with torch.inference_mode():
                actions, _ = agent.act(self.obs, None, **now)
                obs, rewards, terminated, truncated, _ = self.envs.step(actions.squeeze(1).numpy())
                obs = self.flatten(obs)
                agent.record_transition(
                    observations=self.obs,
                    states=None,
                    actions=actions,
                    rewards=torch.from_numpy(rewards).float().unsqueeze(1),
                    next_observations=obs,
                    next_states=None,
                    terminated=torch.from_numpy(terminated).unsqueeze(1),
                    truncated=torch.from_numpy(truncated).unsqueeze(1),
                    infos={},
                    **now,
                )
            self.obs = obs
            episodes += int((terminated | truncated).sum())
            agent.post_interaction(**now)  # learns after the last step of a rollout
        agent.tracking_data.clear()  # grows without end where nothing is written
        return self.num_steps * self.envs.num_envs, episodes


def make_agent(envs: VectorEnv, work: Workload, core: str, bptt: int, variant: str) -> PPO_RNN:
    """Make the agent, which logs nothing.

    Args:
        envs: to play in.
        work: the sizes.
        core: ``lstm`` or ``gru``.
        bptt: the length of the sequences.
        variant: ``documented`` or ``padded``, see above.
    """
    torch.manual_seed(0)
    model = SharedModel(envs, work, core, bptt, documented=variant == "documented")
    agent = PPO_RNN(
        models={"policy": model, "value": model},
        memory=RandomMemory(memory_size=work.num_steps, num_envs=work.num_envs, device="cpu"),
        observation_space=envs.single_observation_space,
        action_space=envs.single_action_space,
        device="cpu",
        cfg=PPO_CFG(
            rollouts=work.num_steps,
            learning_epochs=work.epochs,
            mini_batches=work.num_minibatches,
            learning_rate=workloads.LEARNING_RATE,
            discount_factor=workloads.GAMMA,
            gae_lambda=workloads.GAE_LAMBDA,
            ratio_clip=workloads.CLIP,
            value_clip=0.0,
            entropy_loss_scale=workloads.ENTROPY_COEF,
            value_loss_scale=0.5 * workloads.VALUE_COEF,  # this project halves the squared error
            grad_norm_clip=workloads.MAX_GRAD_NORM,
            experiment={"write_interval": 0, "checkpoint_interval": 0},
        ),
    )
    agent.init()
    agent.enable_training_mode(True)
    return agent


def build(arguments: Namespace) -> Worker:
    """Return the worker after one iteration."""
    torch.set_num_threads(arguments.threads)
    work = workloads.WORKLOADS[arguments.workload]
    envs = workloads.make_vector_env(work)
    agent = make_agent(envs, work, arguments.core, arguments.bptt, arguments.variant)
    iterations = Iterations(agent, envs, work.num_steps)
    iterations()
    parameters = sum(parameter.numel() for parameter in agent.policy.parameters())
    versions = {module.__name__: module.__version__ for module in (skrl, torch, np, gymnasium)}
    name = "skrl" if arguments.variant == "documented" else "skrl padded"
    return Worker(name, versions, parameters, partial(repeat, iterations))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the worker."""
    parser = workloads.make_parser(__doc__)
    parser.add_argument("--variant", choices=("documented", "padded"), default="documented", help="replay of the model")
    serve(partial(build, parser.parse_args(argv)))


if __name__ == "__main__":
    main()

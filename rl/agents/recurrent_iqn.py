"""Recurrent IQN: the off-policy sibling of recurrent PPO, with the same calls, encoders and memories."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from torch import Tensor

from rl.agents.actor import previous_spaces
from rl.agents.client_options import is_sizes, quantile_options_from_sizes
from rl.agents.interface import StepMemory, epsilon_decay, merged_signature, outcome_of_step, set_epsilon
from rl.agents.persistence import check_state, common_state, load, load_network, restore_common, save
from rl.agents.recurrent_ppo import RecurrentPPO
from rl.checks import positive, within
from rl.cores import gru
from rl.flat_adam import flat_adam
from rl.iqn.sequence_replay import SequenceReplay
from rl.iqn.update import IQN
from rl.networks import QuantileNetwork
from rl.networks.encoders import ImageLayout
from rl.networks.frozen import frozen_copy
from rl.networks.quantile_network import EpsilonGreedyHead
from rl.normalisation import ReturnScale
from rl.ppo.bootstrap import End
from rl.spaces import leaf_spaces
from rl.types import Core


class RecurrentIQN:
    """Implicit quantile network on a memory: epsilon-greedy, double Q-learning, n-step returns, sequence replay.

    It is called like :class:`rl.agents.RecurrentPPO`, in the single form and in the batched one, and shares with it
    what is alike. What differs: steps are kept and replayed many times, so :meth:`train_step` need not wait for
    ``num_steps`` steps; where nobody tells what an episode that was cut led to, its last step is not trained and the
    steps before it take the value of its observation.

    The action of a MultiDiscrete space is one of all combinations of its branches, with a value for each.

    Instead of Gymnasium spaces the first two arguments may be ``input_size`` (an int or a shape) and the number of
    actions, followed by the options of older agents, see :func:`rl.agents.client_options.quantile_options_from_sizes`.

    Args:
        observation_space, action_space: of ONE environment; actions are Discrete or MultiDiscrete.
        layer_size: width of the encoder and of the layer before the quantiles.
        epsilon: probability of a random action, to begin with.
        epsilon_min: to end with.
        device: where networks and replay lie.
        seed: of initialisation, exploration, tau and the drawing of sequences; the global generators are left alone.
        core: ``core(input_size) -> Core``, the memory.
        num_envs: None for the single-environment form.
        num_steps: of each environment between two calls of :meth:`train_step` by the trainer.
        total_steps: environment steps over which epsilon falls and the learning rate is annealed. None: the client
            sets epsilon itself, by :meth:`epsilon_decay` or :meth:`set_epsilon`.
        exploration: the share of ``total_steps`` after which epsilon has fallen to ``epsilon_min``, linearly.
        state_stride: sequences may begin at every such step, where the state is stored; None for half of ``bptt``,
            so that they overlap by half (R2D2).
        normalise_observations: by running moments, frozen at evaluation.
        normalise_returns: divide replayed rewards by the running standard deviation of the discounted return.
        previous_action_reward: feed them as inputs.
        image_layout: of observations with three axes, see :class:`rl.networks.encoders.Encoder`.
        action_names: names of the action branches.
        num_cosines, num_action_quantiles, dueling: see :class:`rl.networks.QuantileNetwork`.
        update: hyperparameters of :class:`rl.iqn.IQN`.

    Raises:
        ValueError: an argument out of range, or another action space, in one sentence.
    """

    def __init__(
        self,
        observation_space: spaces.Space | int | tuple[int, ...] | None = None,
        action_space: spaces.Space | int | None = None,
        layer_size: int = 64,
        epsilon: float = 1.0,
        epsilon_min: float = 0.05,
        device: str = "cpu",
        seed: int | None = None,
        *,
        core: Callable[..., Core] = gru,
        num_envs: int | None = None,
        num_steps: int = 32,
        total_steps: int | None = None,
        exploration: float = 0.2,
        state_stride: int | None = None,
        normalise_observations: bool = False,
        normalise_returns: bool = False,
        previous_action_reward: bool = False,
        image_layout: ImageLayout = "auto",
        action_names: Sequence[str] | None = None,
        num_cosines: int = 64,
        num_action_quantiles: int = 8,
        dueling: bool = False,
        **update: Any,
    ):
        if is_sizes(observation_space, update):
            observation_space, action_space, core, image_layout, update = quantile_options_from_sizes(
                observation_space, action_space, core, layer_size, image_layout, update
            )
        self.iqn = IQN(**update)
        self.batched = num_envs is not None
        self.num_envs, self.num_steps = 1 if num_envs is None else num_envs, num_steps
        self.state_stride = max(1, self.iqn.bptt // 2) if state_stride is None else state_stride
        positive(num_envs=self.num_envs, num_steps=num_steps, state_stride=self.state_stride)
        if total_steps is not None:
            positive(total_steps=total_steps)
        within(0.0, 1.0, epsilon=epsilon, epsilon_min=epsilon_min, exploration=exploration)
        self.observation_space, self.action_space = observation_space, action_space
        self.leaves = leaf_spaces(observation_space)
        self.device = torch.device(device)
        self.total_steps, self.exploration = total_steps, exploration
        self.layer_size = layer_size
        self.model_name = type(self).__name__

        with torch.random.fork_rng(devices=[]):  # initialisation draws from the global generator: leave no trace there
            torch.seed() if seed is None else torch.manual_seed(seed)
            fed = previous_spaces(EpsilonGreedyHead(action_space).previous_space) if previous_action_reward else {}
            self.network = QuantileNetwork(
                self.leaves | fed,
                action_space,
                core,
                layer_size,
                normalise_observations,
                image_layout,
                action_names,
                num_cosines,
                num_action_quantiles,
                dueling,
            ).to(self.device)
            self.shuffle = torch.Generator().manual_seed(torch.initial_seed())
        self.target = frozen_copy(self.network)
        self.optimizer = flat_adam(self.network, self.iqn.learning_rate)
        self.return_scale = ReturnScale(self.num_envs) if normalise_returns else None  # rewards lie on the CPU
        self.epsilon, self.epsilon_start, self.epsilon_min = epsilon, epsilon, epsilon_min

        self.num_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        self.normalise, self.feed_previous = normalise_observations, previous_action_reward
        self.actor = self.new_actor(self.num_envs, seed)
        example = self.actor.inputs(create_empty_array(observation_space, self.num_envs))
        actions = torch.zeros(self.num_envs, *self.network.head.action_shape, dtype=torch.int64)
        self.buffer = SequenceReplay(
            self.iqn.capacity, self.iqn.length, self.state_stride, example, self.actor.state, actions, self.device
        )
        self.memory = StepMemory(self)
        self.env_steps = self.updates = 0  # an update is a minibatch
        self.last_metrics: dict[str, float] = {}
        self._played = 0  # transitions since the last call of train_step
        self._owed = 0.0  # minibatches that the replay ratio grants and that have not been trained yet
        self._pending: Tensor | None = None  # actions [B, branches] that wait for their outcome
        self._truncations: list[End] = []  # episodes that the last step cut

    # What the two agents do alike. ``buffer`` and ``_truncations`` are where it goes.
    training, take_action, _to_client = RecurrentPPO.training, RecurrentPPO.take_action, RecurrentPPO._to_client
    start_epoch_action = end_epoch_action = RecurrentPPO.start_epoch_action
    get_dual_action, new_actor = RecurrentPPO.get_dual_action, RecurrentPPO.new_actor
    rollout_memory = RecurrentPPO.rollout_memory
    epsilon_decay, set_epsilon, save, load = epsilon_decay, set_epsilon, save, load

    @property
    def epsilon(self) -> float:
        """Probability of a random action in training. With ``total_steps`` its schedule sets it in every train_step."""
        return self.network.head.epsilon

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self.network.head.epsilon = value

    def add_memory_ppo(
        self, reward: Any, done: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """The outcome of the last :meth:`take_action`, see :meth:`RecurrentPPO.add_memory_ppo`.

        Without a final observation the last step of a truncated episode is not trained.
        """
        before, starts = self.buffer.added, torch.from_numpy(self.actor.starts)
        RecurrentPPO.add_memory_ppo(self, reward, done, truncated, final_observation, ignored)
        if self.return_scale is not None and self.training:
            rewards, *_, ignored = map(
                torch.from_numpy, outcome_of_step(self.num_envs, reward, done, truncated, ignored)
            )
            self.return_scale.take_in(rewards.unsqueeze(0), starts.unsqueeze(0), self.iqn.gamma, ignored.unsqueeze(0))
        self._played += self.buffer.added - before
        for end in self._truncations:
            self.buffer.write_final(end.rows, end.obs, end.state)
        self._truncations.clear()

    add_memory = add_memory_ppo

    def train_step(self, next_observation: Any = None) -> np.ndarray:
        """Learns from as many minibatches as the steps played since the last call and the replay ratio grant.

        Args:
            next_observation: taken for the sake of the trainer; the replay will hold it with the next step.

        Returns:
            0-d array: the mean loss, 0.0 if there was nothing to train on. More stands in :attr:`last_metrics`.

        Raises:
            RuntimeError: an action waits for its outcome.
            FloatingPointError: values or gradients are not finite; the weights are as they were, the replay is empty.
        """
        if not self.training:
            return np.array(0.0)
        if self._pending is not None:
            raise RuntimeError("train_step was called while an action waits for its outcome: call add_memory_ppo first")
        played, self._played = self._played, 0
        self.env_steps += played
        if self.normalise and played:
            self.network.update_moments(self.buffer.new_rows())
            for behind, ahead in zip(self.target.buffers(), self.network.buffers(), strict=True):
                behind.copy_(ahead)
        progress = min(1.0, self.env_steps / self.total_steps) if self.total_steps else 0.0
        loss = self._learn(played, progress)
        if self.total_steps:
            share = min(1.0, progress / self.exploration) if self.exploration else 1.0
            self.epsilon = self.epsilon_start + share * (self.epsilon_min - self.epsilon_start)
        return np.array(loss)

    def _learn(self, played: int, progress: float) -> float:
        """The minibatches that ``played`` transitions grant; their mean loss."""
        if len(self.buffer) < self.iqn.learning_starts or not self.buffer.ready().any():
            return 0.0
        self._owed += played * self.iqn.replay_ratio / (self.iqn.sequences * self.iqn.bptt)
        count = int(self._owed)
        self._owed -= count
        if count == 0:
            return 0.0
        draws = self.shuffle, self.actor.generator
        try:
            metrics = self.iqn.update(
                self.network,
                self.target,
                self.optimizer,
                self.buffer,
                count,
                self.updates,
                *draws,
                progress,
                self.return_scale,
            )
        except FloatingPointError:
            self.forget_rollout()  # it would be drawn again and again
            raise
        self.updates += count
        self.last_metrics = metrics | {"epsilon": self.epsilon, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        return metrics["loss"]

    def forget_rollout(self) -> None:
        """Empties the replay."""
        self._truncations.clear()
        self.buffer.clear()

    def reset(self) -> None:
        """Closes an unfinished episode as a truncation and clears the memory; an action without outcome is dropped."""
        self._pending = None
        self.actor.reset()  # the next step opens an episode, which tells the replay that the last one was cut

    @property
    def rollout_size(self) -> int:
        """Transitions in the replay."""
        return len(self.buffer)

    @property
    def batch_size(self) -> int:
        """Transitions in a minibatch."""
        return self.iqn.sequences * self.iqn.bptt

    def state_dict(self) -> dict[str, Any]:
        """All that training needs to go on exactly, the replay included."""
        return common_state(self) | {
            "target": self.target.state_dict(),
            "replay": self.buffer.state_dict(),
            "granted": [self._played, self._owed],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts ``state`` into this agent; memories, generators and replay only with as many environments.

        Raises:
            ValueError: the state belongs to an agent of another shape; this one is unchanged.
        """
        check_state(self, state, (*common_state(self), "target", "replay", "granted"))
        same_size = restore_common(self, state)
        self.target.load_state_dict(state["target"])
        self._played, self._owed = state["granted"] if same_size else (0, 0.0)
        self.buffer.load_state_dict(state["replay"])

    def load_network(self, path: str | Path) -> None:
        """See :func:`rl.agents.persistence.load_network`; the target network begins there, too."""
        load_network(self, path)
        self.target.load_state_dict(self.network.state_dict())


RecurrentIQN.__signature__ = merged_signature(RecurrentIQN, IQN)

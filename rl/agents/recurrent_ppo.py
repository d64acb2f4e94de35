"""Recurrent PPO: act, observe, train, for any core, observation space and action space."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from torch import Tensor

from rl.agents.actor import Actor, previous_spaces
from rl.agents.interface import StepMemory, action_code, epsilon_decay, merged_signature, outcome_of_step, set_epsilon
from rl.agents.persistence import load, load_pupil, restore, save, state_of
from rl.checks import positive, within
from rl.cores import gru
from rl.flat_adam import flat_adam
from rl.networks import ActorCritic, make_head
from rl.networks.encoders import ImageLayout
from rl.normalisation import ReturnScale
from rl.ppo.bootstrap import End, values_beyond
from rl.ppo.rollout_buffer import RolloutBuffer, Targets
from rl.ppo.teacher import Teacher
from rl.ppo.update import PPO
from rl.spaces import leaf_spaces
from rl.types import Core


class RecurrentPPO:
    """Proximal policy optimisation over sequences replayed from stored states.

    With ``num_envs=None`` it plays one environment through the calls of an IQN-style client: an observation in, an int
    out. With ``num_envs=B`` every call takes and gives arrays with a leading axis B. Both are the same code.

    :meth:`take_action` and :meth:`add_memory_ppo` collect a rollout; :meth:`train_step` learns from it once it has
    ``num_steps`` steps. Episode ends and cuts in between are handled inside; callers never see a hidden state.

    Args:
        observation_space, action_space: of ONE environment.
        layer_size: width of the encoder.
        epsilon, epsilon_min: kept for IQN-style clients, which read and decay them; the policy explores by sampling.
        device: where network and rollout lie.
        seed: of initialisation, sampling and shuffling; the global generators are left alone.
        core: ``core(input_size) -> Core``, the memory.
        num_envs: None for the single-environment form.
        num_steps: steps of each environment in a rollout.
        total_steps: environment steps over which the annealed hyperparameters run; None keeps them constant.
        state_stride: store the state at every such step only; a divisor of ``bptt`` and ``burn_in``.
        separate_critic: the value has an encoder and a core of its own.
        normalise_observations: by running moments, frozen at evaluation.
        normalise_returns: divide rewards by the running standard deviation of the discounted return.
        previous_action_reward: feed them as inputs.
        image_layout: of observations with three axes, see :class:`rl.networks.encoders.Encoder`.
        action_names: names of the action branches.
        compile_encoder: run encoders through ``torch.compile``; where that cannot be, the log says so.
        autocast: encoders compute in bfloat16, for GPUs; ``diagnostics/ratio_error`` then shows its rounding. Where
            that cannot be, the log says so.
        update: hyperparameters of :class:`rl.ppo.PPO`.

    Raises:
        ValueError: an argument out of range, or a combination that cannot be, in one sentence.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        layer_size: int = 64,
        epsilon: float = 0.0,
        epsilon_min: float = 0.0,
        device: str = "cpu",
        seed: int | None = None,
        *,
        core: Callable[..., Core] = gru,
        num_envs: int | None = None,
        num_steps: int = 128,
        total_steps: int | None = None,
        state_stride: int = 1,
        separate_critic: bool = False,
        normalise_observations: bool = False,
        normalise_returns: bool = False,
        previous_action_reward: bool = False,
        image_layout: ImageLayout = "auto",
        action_names: Sequence[str] | None = None,
        compile_encoder: bool = False,
        autocast: bool = False,
        **update: Any,
    ):
        self.ppo = PPO(**update)
        self.batched = num_envs is not None
        self.num_envs, self.num_steps, self.state_stride = 1 if num_envs is None else num_envs, num_steps, state_stride
        self.ppo.check_rollout(self.num_envs, num_steps, state_stride, fixed_size=self.batched)
        if total_steps is not None:
            positive(total_steps=total_steps)
        self.observation_space, self.action_space = observation_space, action_space
        self.leaves = leaf_spaces(observation_space)
        self.device = torch.device(device)
        self.total_steps, self.layer_size = total_steps, layer_size
        self.model_name = type(self).__name__
        within(0.0, 1.0, epsilon=epsilon, epsilon_min=epsilon_min)
        self.epsilon, self.epsilon_min = epsilon, epsilon_min

        with torch.random.fork_rng(devices=[]):  # initialisation draws from the global generator: leave no trace there
            torch.seed() if seed is None else torch.manual_seed(seed)
            fed = previous_spaces(make_head(action_space).previous_space) if previous_action_reward else {}
            self.network = ActorCritic(
                self.leaves | fed,
                action_space,
                core,
                layer_size,
                separate_critic,
                normalise_observations,
                image_layout,
                action_names,
            ).to(self.device)
            self.shuffle = torch.Generator().manual_seed(torch.initial_seed())
        self.optimizer = flat_adam(self.network, self.ppo.learning_rate)
        self.return_scale = ReturnScale(self.num_envs).to(self.device) if normalise_returns else None
        self.num_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        self.feed_previous = previous_action_reward
        self.actor = self.new_actor(self.num_envs, seed)
        if compile_encoder or autocast:
            example = self.actor.inputs(create_empty_array(observation_space, self.num_envs))
            self.network.accelerate(example, compile_encoder, autocast)
        self.memory = StepMemory(self)
        self.env_steps = self.updates = 0
        self.last_metrics: dict[str, float] = {}
        self.teacher: Teacher | None = None  # load_network makes it
        self.buffer: RolloutBuffer | None = None  # allocated at the first step, which shows every shape
        self._pending: Tensor | None = None  # actions [B, ...] that wait for their outcome
        self._truncations: list[End] = []  # truncated episodes of this rollout

    @property
    def training(self) -> bool:
        """False plays without storing or learning: the likeliest actions, no dropout. A switch begins a new epoch."""
        return self.network.training

    @training.setter
    def training(self, value: bool) -> None:
        if value != self.training:
            self.network.train()
            self.reset()
        self.network.train(value)

    def take_action(self, state: Any) -> Any:
        """The actions for an observation; in training the step is stored and waits for :meth:`add_memory_ppo`.

        Args:
            state: an observation of the space, of any shape that holds its numbers; batched: with a leading axis B.

        Returns:
            Single form: an int (MultiDiscrete: the code of all branches), or an array for Box and MultiBinary spaces.
            Batched: ``[B]`` for Discrete, else ``[B, ...]``, as a Gymnasium vector environment takes it.

        Raises:
            ValueError: the observation does not fit the space.
            RuntimeError: the previous action still waits for its outcome.
        """
        if self._pending is not None and self.training:
            raise RuntimeError(
                "take_action was called twice without add_memory_ppo in between: store the outcome of each action, "
                "or set agent.training = False to play without learning"
            )
        before, starts = self.actor.state, self.actor.starts
        obs = self.actor.inputs(state)
        params, values, actions = self.actor.act(obs, greedy=not self.training)
        if self.training:
            if self.buffer is None:
                self.ppo.check_teacher(self.teacher)
                self.buffer = RolloutBuffer(
                    self.num_steps, obs, before, actions, params, self.state_stride, self.device
                )
            self.buffer.write_step(obs, before, starts, params, values, actions)
        self._pending = actions
        executed = self.network.head.to_environment(actions.cpu().numpy())
        return executed if self.batched else self._to_client(executed[0])

    def add_memory_ppo(
        self, reward: Any, done: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """The outcome of the last :meth:`take_action`.

        Args:
            reward: float; batched ``[B]``.
            done: the episode terminated: its future is worth nothing. bool; batched ``[B]``.
            truncated: the episode was cut, by a time limit say: its future is worth V(final observation).
            final_observation: what was observed after the last action of a truncated episode. Batched: ``[B, ...]``,
                read where ``truncated``. Without it V of the last observation acted on has to stand in.
            ignored: the environment used the step to reset itself (Gymnasium's NEXT_STEP mode): it is no transition and
                is left out of the rollout.

        Raises:
            RuntimeError: no action waits for an outcome.
            ValueError: a reward that is not finite, or arrays of a wrong shape.
        """
        if self._pending is None:
            raise RuntimeError("add_memory_ppo was called without a take_action before it")
        outcome = outcome_of_step(self.num_envs, reward, done, truncated, ignored)
        rewards, terminated, truncated, ignored = outcome
        self.actor.observe(self._pending, rewards, terminated | truncated | ignored, ignored)
        if not self.training:
            self._pending = None
            return
        if final_observation is not None and truncated.any():
            rows = np.flatnonzero(truncated)
            state = {name: leaf[torch.from_numpy(rows)] for name, leaf in self.actor.state.items()}
            self._truncations.append(End(self.buffer.size, rows, self.actor.following(final_observation, rows), state))
        self.buffer.finish_step(*outcome)
        self._pending = None  # last, so that an outcome that was refused may be given again

    add_memory = add_memory_ppo

    def _to_client(self, action: np.ndarray) -> Any:
        """What the single form returns for one action."""
        return action_code(action, self.action_space)

    def train_step(self, next_observation: Any = None) -> np.ndarray:
        """Learns from the rollout if it has ``num_steps`` steps, else leaves it to grow.

        Args:
            next_observation: what the environments show now, for the value of rollouts cut in mid-episode. Without it V
                of the last observation acted on has to stand in.

        Returns:
            0-d array: the mean loss, 0.0 if there was nothing to train on. More stands in :attr:`last_metrics`.

        Raises:
            RuntimeError: an action waits for its outcome.
            FloatingPointError: values or gradients are not finite; the weights are as they were.
        """
        buffer = self.buffer
        ready = self.training and buffer is not None and buffer.size >= self.num_steps
        if not ready or buffer.has_empty_row():
            return np.array(0.0)
        if self._pending is not None:
            raise RuntimeError("train_step was called while an action waits for its outcome: call add_memory_ppo first")
        try:
            targets, metrics = self._targets(next_observation)
            progress = min(1.0, self.env_steps / self.total_steps) if self.total_steps else 0.0
            metrics |= self.ppo.update(
                self.network, self.optimizer, buffer, targets, self.shuffle, progress, self.teacher
            )
        except FloatingPointError:
            self.forget_rollout()  # nothing can be learned from it, so it must not stay in the way
            raise
        self.network.update_moments(buffer.observations())
        self.env_steps += buffer.size * self.num_envs
        self.forget_rollout()
        self.updates += 1
        self.last_metrics = metrics | {"learning_rate": self.optimizer.param_groups[0]["lr"]}
        return np.array(metrics["loss"])

    @torch.no_grad()
    def _targets(self, next_observation: Any) -> tuple[Targets, dict[str, float]]:
        """What the rollout in the buffer teaches, see :meth:`PPO.targets`."""
        buffer, last = self.buffer, None
        if next_observation is not None:
            everyone = np.arange(self.num_envs)
            obs = self.actor.following(next_observation, everyone)
            last = End(buffer.size, everyone, obs, self.actor.state)
        *columns, last_values = values_beyond(self.network, buffer.values[: buffer.size], self._truncations, last)
        if self.teacher is not None:
            columns.append(self.teacher.follow(buffer.observations(), buffer.starts[: buffer.size]))
        if buffer.ignored[: buffer.size].any():
            last_values, *columns = buffer.drop_ignored(last_values, *columns)
        cut, *teacher_params = columns
        return self.ppo.targets(buffer, self.network.head, cut, last_values, self.return_scale, *teacher_params)

    def forget_rollout(self) -> None:
        """Drops what was collected since the last training."""
        self._truncations.clear()
        if self.buffer is not None:
            self.buffer.clear()

    def reset(self) -> None:
        """Closes an unfinished episode as a truncation and clears the memory.

        Everything stored is kept for training; an action without an outcome is dropped.
        """
        self._pending = None
        if self.training and self.buffer is not None and self.buffer.size:
            last = self.buffer.size - 1
            ended = self.buffer.terminated[last] | self.buffer.truncated[last]
            self.buffer.truncated[last] |= ~ended
        self.actor.reset()

    def start_epoch_action(self, **_: Any) -> None:
        """An epoch of the client begins or, as :meth:`end_epoch_action`, is over: see :meth:`reset`."""
        self.reset()

    end_epoch_action = start_epoch_action

    @property
    def rollout_size(self) -> int:
        """Transitions collected since the last training."""
        return self.buffer.size * self.num_envs if self.buffer is not None else 0

    @property
    def rollout_memory(self) -> dict[str, range]:
        """For clients that ask ``len(rollout_memory["states"])`` before they train."""
        return {"states": range(self.rollout_size)}

    @property
    def batch_size(self) -> int:
        """Transitions in a minibatch."""
        return max(1, self.num_steps * self.num_envs // self.ppo.num_minibatches)

    def get_dual_action(self) -> tuple[int, ...] | None:
        """All branches of the action that waits for its outcome, None if none does (single form)."""
        return None if self._pending is None else tuple(self._pending[0].tolist())

    def new_actor(self, num_envs: int, seed: int | None = None, memory: bool = True) -> Actor:
        """Someone who plays ``num_envs`` other environments with these weights and memories of their own."""
        return Actor(self.network, self.observation_space, num_envs, self.device, seed, self.feed_previous, memory)

    epsilon_decay, set_epsilon = epsilon_decay, set_epsilon
    state_dict, load_state_dict, save, load, load_network = state_of, restore, save, load, load_pupil


RecurrentPPO.__signature__ = merged_signature(RecurrentPPO, PPO)

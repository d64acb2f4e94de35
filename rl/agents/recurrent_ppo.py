"""Recurrent PPO: act, observe, train, for any core, observation space and action space."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rl.advantages import bootstrap_values, discounted_returns, gae
from rl.agents.actor import Actor, previous_spaces
from rl.agents.interface import StepMemory, merged_signature
from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.checks import positive, within
from rl.cores import gru
from rl.losses import explained_variance
from rl.networks import ActorCritic, make_head
from rl.normalisation import RunningMoments
from rl.ppo import PPO
from rl.rollout_buffer import RolloutBuffer, Targets
from rl.spaces import leaf_spaces
from rl.types import Core, Observation, State


class RecurrentPPO:
    """Proximal policy optimisation over sequences replayed from stored states.

    With ``num_envs=None`` it plays one environment through the calls of an IQN-style client: an observation in, an int
    out. With ``num_envs=B`` every call takes and gives arrays with a leading axis B. Both are the same code.

    :meth:`take_action` and :meth:`add_memory_ppo` collect a rollout; :meth:`train_step` learns from it as soon as it has
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
        images: treat observations with three axes as images.
        action_names: names of the action branches.
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
        images: bool = True,
        action_names: Sequence[str] | None = None,
        **update: Any,
    ):
        self.ppo = PPO(**update)
        self.batched = num_envs is not None
        self.num_envs, self.num_steps, self.state_stride = num_envs or 1, num_steps, state_stride
        self._check_sizes(total_steps)
        self.observation_space, self.action_space = observation_space, action_space
        self.leaves = leaf_spaces(observation_space)
        self.device = torch.device(device)
        self.total_steps = total_steps
        self.layer_size = layer_size
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
                images,
                action_names,
            ).to(self.device)
            self.shuffle = torch.Generator().manual_seed(torch.initial_seed())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.ppo.learning_rate, eps=1e-5, fused=True)
        self.return_moments = RunningMoments(()).to(self.device) if normalise_returns else None
        self.running_return = torch.zeros(self.num_envs, device=self.device)

        self.num_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        self.feed_previous = previous_action_reward
        self.actor = self.new_actor(self.num_envs, seed)
        self.memory = StepMemory(self)
        self.training = True
        self.env_steps = self.updates = 0
        self.last_metrics: dict[str, float] = {}
        self.buffer: RolloutBuffer | None = None  # allocated at the first step, which shows every shape
        self._pending: Tensor | None = None  # actions [B, ...] that wait for their outcome
        self._cuts: list[tuple[int, np.ndarray, Observation | None, State | None]] = []

    def _check_sizes(self, total_steps: int | None) -> None:
        steps, bptt = self.num_steps, self.ppo.bptt
        positive(num_envs=self.num_envs, num_steps=steps, state_stride=self.state_stride)
        if total_steps is not None:
            positive(total_steps=total_steps)
        if self.batched and bptt is not None and steps % bptt:
            raise ValueError(f"bptt={bptt} does not divide num_steps={steps}: every sequence must have the same length")
        if self.state_stride > 1 and not self.batched:
            raise ValueError(f"state_stride={self.state_stride}: one environment may stop at any step, so it must be 1")
        if (bptt or steps) % self.state_stride or self.ppo.burn_in % self.state_stride:
            raise ValueError(
                f"state_stride={self.state_stride} must divide bptt={bptt or steps} and burn_in={self.ppo.burn_in}"
            )
        sequences = self.num_envs * (steps // (bptt or steps))
        if self.batched and self.ppo.num_minibatches > sequences:
            raise ValueError(
                f"num_minibatches={self.ppo.num_minibatches} is more than the {sequences} sequences of a rollout "
                f"({self.num_envs} environments x {steps // (bptt or steps)}): lower it, or lower bptt"
            )

    # ------------------------------------------------------------------------------------------------- act, observe

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
                self.buffer = RolloutBuffer(
                    self.num_steps, obs, before, actions, params, self.state_stride, self.device
                )
            self.buffer.write_step(obs, before, starts, params, values, actions)
        self._pending = actions
        return self._to_client(self.network.head.to_environment(actions.cpu().numpy()))

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
        rewards = self._rows("reward", reward, np.float32)
        terminated = self._rows("done", done, bool)
        truncated = self._rows("truncated", truncated, bool) & ~terminated
        ignored = self._rows("ignored", ignored, bool)
        if not np.isfinite(rewards).all():
            raise ValueError(f"reward={reward} is not finite: environment {int(np.argmin(np.isfinite(rewards)))} sent it")
        actions, self._pending = self._pending, None
        self.actor.observe(actions, rewards, terminated | truncated | ignored)
        if not self.training:
            return
        if truncated.any():
            self._note_cut(np.flatnonzero(truncated), final_observation)
        self.buffer.finish_step(rewards, terminated, truncated, ignored)

    add_memory = add_memory_ppo

    def _note_cut(self, rows: np.ndarray, final_observation: Any) -> None:
        """Keeps what V(final observation) of the environments ``rows`` needs until the rollout is complete."""
        if final_observation is None:
            self._cuts.append((self.buffer.size, rows, None, None))
            return
        obs = self.actor.following(final_observation, rows)
        state = {name: leaf[torch.from_numpy(rows)] for name, leaf in self.actor.state.items()}
        self._cuts.append((self.buffer.size, rows, obs, state))

    # --------------------------------------------------------------------------------------------------------- learn

    def train_step(self, next_observation: Any = None) -> np.ndarray:
        """Learns from the rollout if it has ``num_steps`` steps, else leaves it to grow.

        Args:
            next_observation: what the environments show now, for the value of rollouts cut in mid-episode. Without it V
                of the last observation acted on has to stand in.

        Returns:
            0-d array: the mean loss, 0.0 if there was nothing to train on. More stands in :attr:`last_metrics`.

        Raises:
            FloatingPointError: values or gradients are not finite; the weights are as they were.
        """
        buffer = self.buffer
        if buffer is None or buffer.size < self.num_steps:
            return np.array(0.0)
        targets, metrics = self._targets(next_observation)
        progress = min(1.0, self.env_steps / self.total_steps) if self.total_steps else 0.0
        metrics |= self.ppo.update(self.network, self.optimizer, buffer, targets, self.shuffle, progress)
        metrics["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self.network.update_moments({name: leaf[: buffer.size] for name, leaf in buffer.obs.items()})
        self.env_steps += buffer.size * self.num_envs
        self.updates += 1
        self.last_metrics = metrics
        buffer.clear()
        self._cuts.clear()
        return np.array(metrics["loss"])

    @torch.no_grad()
    def _targets(self, next_observation: Any) -> tuple[Targets, dict[str, float]]:
        """Advantages and returns of the rollout in the buffer, ``[T, B]``, and what is worth reporting of them."""
        buffer, ppo = self.buffer, self.ppo
        values = buffer.values[: buffer.size]
        cut = values.clone()  # where no final observation is known
        for step, rows, obs, state in self._cuts:
            if obs is not None:
                cut[step, torch.from_numpy(rows).to(self.device)] = self._value(obs, state)
        last_values = values[-1]
        if next_observation is not None:
            obs = self.actor.following(next_observation, np.arange(self.num_envs))
            last_values = self._value(obs, self.actor.state)
        if buffer.ignored[: buffer.size].any():
            cut, last_values = buffer.drop_ignored(cut, last_values)

        steps = slice(0, buffer.size)
        values = buffer.values[steps]
        rewards, terminated, truncated, starts = (
            leaf[steps].to(self.device, non_blocking=True)
            for leaf in (buffer.rewards, buffer.terminated, buffer.truncated, buffer.starts)
        )
        if self.return_moments is not None:
            returns = discounted_returns(rewards, starts, self.running_return, ppo.gamma)
            self.running_return = returns[-1]
            self.return_moments.update(returns)
            rewards = self.return_moments.scale(rewards)
        next_values = bootstrap_values(values, last_values, terminated, truncated, cut)
        advantages = gae(rewards, values, next_values, terminated | truncated, ppo.gamma, ppo.gae_lambda)
        returns = advantages + values
        if not bool(torch.isfinite(returns).all()):
            raise FloatingPointError("a value or observation in this rollout is not finite: nothing was learned from it")
        metrics = {"explained_variance": explained_variance(values, returns).item()}
        if ppo.normalise_advantages:
            advantages = (advantages - advantages.mean()) / (advantages.std(unbiased=False) + 1e-8)
        old_log_probs = self.network.head.log_probs(buffer.params[steps], buffer.actions[steps])
        return Targets(old_log_probs, values, advantages, returns), metrics

    def _value(self, obs: Observation, state: State) -> Tensor:
        """V ``[rows]`` of observations that go on an episode."""
        going_on = torch.zeros(next(iter(obs.values())).shape[0], dtype=torch.bool, device=self.device)
        with torch.inference_mode():
            return self.network.step(obs, state, going_on)[1].clone()

    # ---------------------------------------------------------------------------------------------- epochs of a client

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
        """An epoch begins: see :meth:`reset`."""
        self.reset()

    def end_epoch_action(self, **_: Any) -> None:
        """An epoch is over: see :meth:`reset`."""
        self.reset()

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

    def epsilon_decay(self, rate: float) -> None:
        """``epsilon`` shrinks by the share ``rate``, not below ``epsilon_min``."""
        self.epsilon = max(self.epsilon * (1.0 - rate), self.epsilon_min)

    def set_epsilon(self, epsilon: float) -> None:
        """Sets ``epsilon``."""
        within(0.0, 1.0, epsilon=epsilon)
        self.epsilon = epsilon

    def get_dual_action(self) -> tuple[int, ...] | None:
        """All branches of the action that waits for its outcome, None if none does (single form)."""
        return None if self._pending is None else tuple(self._pending[0].tolist())

    # ---------------------------------------------------------------------------------------------------- new actors

    def new_actor(self, num_envs: int, seed: int | None = None, memory: bool = True) -> Actor:
        """Someone who plays ``num_envs`` other environments with these weights and memories of their own."""
        return Actor(self.network, self.observation_space, num_envs, self.device, seed, self.feed_previous, memory)

    # ---------------------------------------------------------------------------------------------------- save, load

    def state_dict(self) -> dict[str, Any]:
        """All that training needs to go on: weights, optimiser, moments, counters, generators, memories."""
        return {
            "model_name": self.model_name,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "return_moments": self.return_moments.state_dict() if self.return_moments else None,
            "running_return": self.running_return,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "epsilon": self.epsilon,
            "generators": [self.shuffle.get_state(), self.actor.generator.get_state()],
            "memories": self.actor.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The counterpart of :meth:`state_dict`.

        Raises:
            ValueError: the state belongs to an agent of another shape; this one is unchanged.
        """
        try:
            differences = _differences(self.network.state_dict(), state["network"])
            if differences:
                raise ValueError(f"the checkpoint is of another network: {differences}")
            if (state["return_moments"] is None) != (self.return_moments is None):
                raise ValueError("the checkpoint was written with another setting of normalise_returns")
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
        except KeyError as error:
            raise ValueError(f"the checkpoint has no entry {error}") from error
        if self.return_moments is not None:
            self.return_moments.load_state_dict(state["return_moments"])
        self.env_steps, self.updates, self.epsilon = state["env_steps"], state["updates"], state["epsilon"]
        if state["running_return"].shape == self.running_return.shape:  # the same number of environments
            self.running_return = state["running_return"].to(self.device)
            self.shuffle.set_state(state["generators"][0].cpu())
            self.actor.generator.set_state(state["generators"][1].cpu())
            self.actor.load_state_dict(state["memories"])
        else:
            self.actor.reset()

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint; the folder is made if it is missing."""
        save_checkpoint({"agent": self.state_dict()}, path)

    def load(self, path: str | Path) -> None:
        """Reads what :meth:`save` or the trainer wrote, onto this agent's device.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, foreign, or of an agent of another shape.
        """
        self.load_state_dict(load_checkpoint(path, map_location=self.device)["agent"])

    # ----------------------------------------------------------------------------------------------- shapes of a client

    def _rows(self, name: str, value: Any, dtype: type) -> np.ndarray:
        """A number for each environment, ``[B]``."""
        array = np.asarray(value, dtype=dtype)
        if array.shape != (self.num_envs,):
            if array.ndim and array.size != self.num_envs:
                raise ValueError(f"{name} has shape {array.shape}, but ({self.num_envs},) is expected")
            array = np.broadcast_to(array.reshape(-1), (self.num_envs,)).copy()
        return array

    def _to_client(self, actions: np.ndarray) -> Any:
        """Actions ``[B, ...]`` for the environment, or in the single form an int or one array."""
        if self.batched:
            return actions
        if isinstance(self.action_space, spaces.Discrete):
            return int(actions[0])
        if isinstance(self.action_space, spaces.MultiDiscrete):
            return int(np.ravel_multi_index(actions[0] - self.action_space.start, self.action_space.nvec))
        return actions[0]


RecurrentPPO.__signature__ = merged_signature(RecurrentPPO, PPO)


def _differences(own: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """What keeps ``other`` from being loaded into ``own``, in a few words; empty if nothing does."""
    missing, extra = own.keys() - other.keys(), other.keys() - own.keys()
    shapes = [name for name in own.keys() & other.keys() if own[name].shape != other[name].shape]
    parts = [f"{label} {', '.join(sorted(names)[:3])}" for label, names in
             (("it lacks", missing), ("it has besides", extra), ("of another shape is", shapes)) if names]
    return "; ".join(parts)

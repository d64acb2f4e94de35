"""What every recurrent agent shares: acting and observing, the pending action, counters, generators, checkpoints."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from inspect import Signature
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from torch import Tensor

from rl.agents.actor import Actor, StepOutcome, check_outcome, previous_spaces
from rl.agents.advice import Advisor
from rl.agents.client import Client
from rl.agents.construction import describe, drawing_from
from rl.agents.loading import rebuild
from rl.agents.persistence import (
    check_agent_state,
    collect_state,
    is_same_size,
    keep_recall,
    restore_state,
    without_corrections,
)
from rl.agents.signature import forwarded_signature
from rl.agents.state_checks import agent_schema, check_entries, check_sound
from rl.checkpoint import load_checkpoint, naming_file
from rl.checks import positive
from rl.flat_adam import flat_adam
from rl.networks import ActorCritic, QuantileNetwork, make_head
from rl.normalisation import ReturnScale
from rl.shards import ALONE, Shards
from rl.spaces import find_ignored, leaf_spaces
from rl.types import Observation, State


class RecurrentAgent(Client):
    """A network with memories that acts, observes and learns; the base of the learners of this package.

    A subclass stores steps (``_store_action``, ``_store_outcome``), learns (``learn``) and says what it
    forgets (``forget_rollout``). With ``num_envs=None`` it plays one environment; that is the batched form with one
    row.

    Args:
        observation_space: of ONE environment.
        action_space: of ONE environment.
        make_network: ``make_network(observation leaves) -> network``.
        device: where network and stored steps lie.
        seed: of initialisation, sampling and shuffling; the global generators are left alone.
        learning_rate: of Adam.
        num_envs: None for the single-environment form.
        num_steps: of each environment in a rollout.
        total_steps: of a whole training, for schedules.
        previous_action_reward: feed them as inputs.
        normalise_returns: divide rewards by the running deviation of the discounted return; clip to 10 of them.
        ignore_leaves: names of observation leaves that are left out.

    Attributes:
        training: False plays without storing or learning.
        env_steps: steps of all environments learned from.
        updates: calls of the update, or its minibatches.
        last_metrics: results of the last update by metric name.

    Raises:
        ValueError: an argument is out of range, or a space is not supported.
    """

    __signature__: ClassVar[Signature]
    construction: dict[str, Any]
    plays_only: bool  # it was loaded to play; ``check_rollout`` comes when it begins to train
    network: ActorCritic | QuantileNetwork
    advisor: Advisor
    shards: Shards = ALONE
    algorithm: ClassVar[Callable[..., Any]]
    """Class of the update; a subclass may name one of its own."""

    ENTRIES: ClassVar[tuple[str, ...]] = (
        *("model_name", "network", "optimizer", "num_envs", "env_steps", "updates", "epsilon"),
        *("generators", "memories", "return_scale"),
    )
    """What a checkpoint must hold."""

    def __init_subclass__(cls) -> None:
        """Let ``inspect.signature`` show every keyword of a subclass, those of its algorithm included."""
        own = [kind for kind in cls.__mro__ if issubclass(kind, RecurrentAgent) and kind is not RecurrentAgent]
        constructors = [vars(kind)["__init__"] for kind in own if "__init__" in vars(kind)]
        cls.__signature__ = forwarded_signature(*constructors, cls.algorithm)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note what constructs the agent, for its checkpoints."""
        agent = super().__new__(cls)
        agent.construction, agent.plays_only = describe(cls, args, kwargs), False
        return agent

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        make_network: Callable[[dict[str, spaces.Space]], ActorCritic | QuantileNetwork],
        *,
        device: str,
        seed: int | None,
        learning_rate: float,
        num_envs: int | None,
        num_steps: int,
        total_steps: int | None,
        previous_action_reward: bool,
        normalise_returns: bool,
        ignore_leaves: Sequence[str],
    ):
        super().__init__()
        self.batched, self.feed_previous = num_envs is not None, previous_action_reward
        self.num_envs, self.num_steps, self.total_steps = 1 if num_envs is None else num_envs, num_steps, total_steps
        positive(num_envs=self.num_envs, num_steps=num_steps, total_steps=1 if total_steps is None else total_steps)
        self.observation_space, self.action_space = observation_space, action_space
        self.leaves = leaf_spaces(observation_space, ignore_leaves)
        self.ignored_leaves = find_ignored(observation_space, ignore_leaves)
        self._scales_kept = False  # a network that was trained elsewhere has the scales that it was trained with
        self.device, self.model_name = torch.device(device), type(self).__name__
        fed = previous_spaces(make_head(action_space).previous_space, self.leaves) if previous_action_reward else {}
        with drawing_from(seed):
            self.network = make_network(self.leaves | fed).to(self.device)
            self.shuffle = torch.Generator().manual_seed(torch.initial_seed())
        self.optimizer = flat_adam(self.network, learning_rate)
        self.num_parameters = sum(parameter.numel() for parameter in self.network.parameters())
        self.return_scale = ReturnScale(self.num_envs).to(self.device) if normalise_returns else None
        self.actor = self.new_actor(self.num_envs, seed)
        self.env_steps = self.updates = 0
        self.last_metrics: dict[str, float] = {}
        self._pending: Tensor | None = None  # actions [B, ...] that wait for their outcome

    # ------------------------------------------------------------------------------------------------------ collecting

    @property
    def training(self) -> bool:
        """False plays without storing or learning: the likeliest actions, no dropout. A switch begins a new epoch."""
        return self.network.training

    @training.setter
    def training(self, value: bool) -> None:
        if value != self.training:
            if value and self.plays_only:
                self.check_rollout()
                self.plays_only = False
            self.network.train()
            self.reset()
        self.network.train(value)

    def check_rollout(self) -> None:
        """Check what concerns rollouts alone; an agent that was loaded to play need not pass until it trains."""

    def act(self, observation: Any) -> Any:
        """Choose actions for an observation; in training the step is stored and waits for ``observe``.

        When it plays (``training`` is False) outcomes need not be told: the memory then goes on until ``reset``.

        Args:
            observation: of the space, or flat; batched: with a leading axis B.

        Returns:
            What the environment takes. Batched: ``[B]`` for Discrete, else ``[B, ...]``. Single form: an int for
            Discrete, else an array.

        Raises:
            ValueError: the observation does not fit the space.
            RuntimeError: the previous action still waits for its outcome, which is needed.
        """
        training = self.network.training
        if self._pending is not None and training:
            raise RuntimeError(
                "act (take_action) was called twice without observe (add_memory_ppo) in between: tell the outcome of "
                "each action, or set agent.training = False to play without learning"
            )
        before, starts = self.actor.state, self.actor.read_starts()
        obs = self.actor.inputs(observation)
        params, values, actions = self.actor.step(obs, greedy=not training)
        if training:
            self._store_action(obs, before, starts, params, values, actions)
        self._pending = actions
        executed = self.network.head.to_environment(actions.cpu().numpy())
        if self.batched:
            return executed
        return executed[0].item() if executed.ndim == 1 else executed[0]

    def observe(
        self, rewards: Any, terminated: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """Take in what came of the last ``act``.

        Args:
            rewards: float; batched ``[B]``.
            terminated: the episode ended, its future is worth nothing: bool; batched ``[B]``.
            truncated: the episode was cut, by a time limit say, its future is worth V(final observation).
            final_observation: what was observed after the last action of a truncated episode; batched: ``[B, ...]``,
                read where ``truncated``. Without it a PPO agent takes V of the last observation acted on instead, and
                an IQN does not train the last step.
            ignored: the environment used the step to reset itself (Gymnasium's NEXT_STEP mode), or no agent is in the
                row: it is no transition and is left out, and an episode begins after it.

        Raises:
            RuntimeError: no action waits for an outcome.
            ValueError: a reward is not finite, or an array has a wrong shape; the outcome may be given again.
        """
        if self._pending is None:
            raise RuntimeError("observe (add_memory_ppo) was called without act (take_action) before it")
        outcome = check_outcome(self.num_envs, rewards, terminated, truncated, ignored)
        self.actor.observe(outcome.rewards, outcome.terminated | outcome.truncated | outcome.ignored, outcome.ignored)
        if self.network.training:
            self._store_outcome(outcome, final_observation)
        self._pending = None  # last, so that an outcome that was refused may be given again

    def reset(self) -> None:
        """Close unfinished episodes as truncations and clear the memories.

        Everything stored is kept for training; an action without an outcome is dropped, and its step undone.
        """
        if self._pending is not None:
            self.actor.undo_step()
        self._pending = None
        self.actor.reset()

    @abstractmethod
    def _store_action(
        self, obs: Observation, state: State, starts: np.ndarray, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        """Store the acting half of a step; ``state`` is the one before it."""

    @abstractmethod
    def _store_outcome(self, outcome: StepOutcome, final_observation: Any) -> None:
        """Store what came of the step."""

    @abstractmethod
    def forget_rollout(self) -> None:
        """Drop what was collected and not yet learned from."""

    @property
    def pending_action(self) -> np.ndarray | None:
        """All branches ``[B, branches]`` of the actions that wait for their outcome; None if none do."""
        return None if self._pending is None else self._pending.cpu().numpy()

    @property
    def progress(self) -> float:
        """Share of training done, 0 to 1; 0 without ``total_steps``."""
        return min(1.0, self.env_steps / self.total_steps) if self.total_steps else 0.0

    def new_actor(self, num_envs: int, seed: int | None = None, memory: bool = True, **training: Any) -> Actor:
        """Make a player of ``num_envs`` other environments with the same weights and memories of its own."""
        options = self.device, seed, self.feed_previous, memory
        return Actor(self.network, self.observation_space, num_envs, *options, **training)

    def example_inputs(self) -> Observation:
        """Make inputs of the network from an empty observation of the space, leaves ``[B, ...]``."""
        return self.actor.inputs(create_empty_array(self.observation_space, self.num_envs))

    def describe(self) -> list[str]:
        """Say how each leaf of an observation is encoded and what the actions are, a line for each."""
        return [*self.network.describe(), *(f"observation {name!r}: ignored" for name in self.ignored_leaves)]

    def correct_scales(self, obs: Observation) -> bool:
        """Correct scales that destroy ``obs``, leaves ``[..., *shape]``, before any training; say whether one was."""
        return not self.updates and not self._scales_kept and self.network.correct_scales(obs)

    # ----------------------------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Collect all that training needs to go on: weights, optimiser, counters, generators, memories, scales.

        As in torch, its tensors change when training goes on: ``copy.deepcopy`` keeps them.

        Raises:
            FloatingPointError: a number of it is not finite, or the network makes such numbers.
        """
        state = collect_state(self, undone=self._pending is not None)
        check_sound(state, self.network, self.example_inputs(), self.actor.state)
        return state

    def schema(self, same_size: bool) -> dict[str, Any]:
        """Say what ``state_dict`` holds; memories are taken with as many environments only (``same_size``)."""
        given = (self.shuffle, self.actor.generator), self.actor.state_dict() if same_size else None
        return agent_schema(self.network, self.optimizer, *given, self.return_scale)

    def check_state(self, state: Any) -> None:
        """Raise a ``ValueError`` unless ``state`` is that of an agent like this one; the message names the entry."""
        check_agent_state(state, self.ENTRIES, self)
        check_entries(state, self.schema(is_same_size(self, state)), self.network)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave; memories and generators only with as many environments.

        An action that waits for its outcome is dropped, as is what was collected: other weights played it.

        Raises:
            ValueError: the state belongs to an agent of another shape; this one is unchanged.
        """
        self.check_state(state)
        self._pending = None
        self.forget_rollout()
        restore_state(self, state)

    rebuild = classmethod(rebuild)

    def load_network(self, path: str | Path) -> None:
        """Take the network of a checkpoint (but its ``recall``), by equal names, alone; drop what was collected before.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, foreign, or of another network; the agent is unchanged.
        """
        content = load_checkpoint(path, map_location=self.device)
        with naming_file(path, content):
            keep_recall(content["agent"], self.network.state_dict())
            check_agent_state(content["agent"], ("network",), self)
            check_entries(content["agent"], {"network": without_corrections(self.network.state_dict())}, self.network)
        self.network.load_state_dict(content["agent"]["network"])
        self._scales_kept = True
        self.forget_rollout()  # other weights played it, and made the memories
        self.reset()

"""Playing with a trained policy: observations in, actions out, and a memory that goes on until it is told otherwise."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self, overload

import numpy as np
import torch
from gymnasium import spaces

from rl.agents.actor import PREVIOUS_ACTION, PREVIOUS_REWARD
from rl.agents.inputs import as_flags, as_rewards, flag_rows, read_batch, seen_leaves
from rl.agents.loading import load_agent
from rl.checks import positive
from rl.cores.stack import Stack
from rl.networks import ActorCritic, QuantileNetwork
from rl.networks.frozen import frozen_copy
from rl.types import State


class Playable(Protocol):
    """What a player needs of an agent, see ``rl.agents.agent.RecurrentAgent``."""

    observation_space: spaces.Space
    feed_previous: bool
    device: torch.device

    @property
    def network(self) -> ActorCritic | QuantileNetwork:
        """The policy, with its memory."""


class Player:
    """A policy for inference: a copy of the weights of an agent, and memories that callers need not touch.

    For one environment, or B of them side by side::

        player = rl.Player("runs/my_run")  # or an agent, or a checkpoint
        action = player.act(observation)  # the memory goes on from call to call
        player.reset()  # an episode begins; of some environments alone: reset(rows)

    A server keeps the memories of its clients itself. Then nothing in the player changes, so threads may share it::

        state = player.initial_state()
        action, state = player.act(observation, state)

    It drops nothing out, whatever the agent does meanwhile, and the agent does not notice it.

    Args:
        agent: an agent of one network; or the path of a checkpoint or of the folder of a run, see ``rl.load_agent``.
        device: where the copy lies; None for that of the agent, or the CPU if ``agent`` is a path.
        seed: of sampled actions (``greedy=False``).
        trust: packages of your own that may be imported, see ``rl.load_agent``.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the agent has several networks, or ``rl.load_agent`` refuses the path.
    """

    def __init__(
        self,
        agent: Playable | str | Path,
        device: str | torch.device | None = None,
        seed: int | None = None,
        trust: Iterable[str] = (),
    ):
        source: Any = load_agent(agent, device or "cpu", trust=trust) if isinstance(agent, (str, Path)) else agent
        if not isinstance(source.network, (ActorCritic, QuantileNetwork)):
            raise ValueError(
                f"{source.model_name} has several networks: play its members, Player(agent.members[NAME]), or call "
                "agent.new_actor(num_envs)"
            )
        self.device = torch.device(device or source.device)
        self.network = policy_copy(source.network).to(self.device)
        self.observation_space, self.feed_previous = source.observation_space, source.feed_previous
        self.leaves = seen_leaves(self.observation_space, self.network.input_names)
        self.generator = torch.Generator(self.device)
        self.generator.seed() if seed is None else self.generator.manual_seed(int(seed))
        self._fresh = self.initial_state(1)  # for names, shapes and dtypes
        self._state: State = {}
        self._starts: np.ndarray | None = None  # [B], of the next observation; None before the first one
        self.reset()

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        seed: int | None = None,
        trust: Iterable[str] = (),
    ) -> Self:
        """Make a player from a checkpoint or from the folder of a run, see ``rl.load_agent``."""
        return cls(path, device, seed, trust)

    def reset(self, rows: Any = None) -> None:
        """Begin an episode: in every environment, whose number may then change, or in some.

        Args:
            rows: indices of environments, or a bool for each; None for all.

        Raises:
            ValueError: a row is not there.
        """
        if rows is None:
            self._starts = None
        elif self._starts is not None:
            self._starts = self._starts | flag_rows(rows, len(self._starts))

    def initial_state(self, batch_size: int = 1) -> State:
        """Make the memories of ``batch_size`` environments in which an episode begins, leaves ``[B, ...]``."""
        positive(batch_size=batch_size)
        state = self.network.initial_state(batch_size, self.device)
        if self.feed_previous:
            head = self.network.head
            actions = torch.zeros(batch_size, *head.action_shape, dtype=head.action_dtype, device=self.device)
            state = state | {PREVIOUS_ACTION: torch.zeros_like(head.as_previous(actions))}
        return state

    @overload
    def act(self, observation: Any, starts: Any = None, greedy: bool = True, *, rewards: Any = None) -> Any: ...

    @overload
    def act(
        self,
        observation: Any,
        state: Mapping[str, Any],
        starts: Any = None,
        greedy: bool = True,
        *,
        rewards: Any = None,
    ) -> tuple[Any, State]: ...

    def act(self, observation: Any, *args: Any, **kwargs: Any) -> Any:
        """Choose actions: with the player's own memories, or with a ``state`` that is handed in and out.

        A second argument that is a dict is a ``state``, leaves ``[B, ...]`` (B is 1 for a single observation) from
        ``initial_state`` or from the step before; it is not changed. Without it the player's own memories are used:
        as many as the first observation has rows; another number needs a ``reset`` before.

        Args:
            observation: of the space: a single one, or B of them with a leading axis.
            args: ``starts`` and ``greedy``, or ``state``, ``starts`` and ``greedy``. ``starts`` is a bool, or ``[B]``:
                this observation opens an episode, so the memory is cleared before. None: it does not, but the first
                one after ``reset`` does. ``greedy`` takes the likeliest actions instead of sampling; True unless given.
            kwargs: the same by name; and ``rewards`` of the previous step, a number or ``[B]``. Agents with
                ``previous_action_reward`` need them, but where an episode starts; others do not read them.

        Returns:
            What the environment takes: for a single observation an int (Discrete) or an array, else an array
            ``[B, ...]``. With ``state`` also the next state.

        Raises:
            ValueError: the observation, the state, ``starts`` or ``rewards`` do not fit, or hold numbers that are not
                finite; no memory has changed.
        """
        if "state" in kwargs or (args and isinstance(args[0], Mapping)):
            return self._act_on(observation, *args, **kwargs)
        return self._act_on_own(observation, *args, **kwargs)

    def _act_on_own(self, observation: Any, starts: Any = None, greedy: bool = True, *, rewards: Any = None) -> Any:
        """Act with the player's own memories."""
        obs, rows, single = read_batch(self.observation_space, self.leaves, observation)
        pending, state = self._starts, self._state
        if pending is None:
            pending, state = np.ones(rows, dtype=bool), self.initial_state(rows)
        elif len(pending) != rows:
            raise ValueError(
                f"an observation of {rows} row(s) was given, but the memory is of {len(pending)}: call reset() to "
                "begin with another number"
            )
        flags = pending | as_flags(starts, rows)
        actions, after = self._step(obs, state, flags, greedy, rewards)
        self._state, self._starts = after, np.zeros(rows, dtype=bool)
        return _alone(actions) if single else actions

    def _act_on(
        self,
        observation: Any,
        state: Mapping[str, Any],
        starts: Any = None,
        greedy: bool = True,
        *,
        rewards: Any = None,
    ) -> tuple[Any, State]:
        """Act with the memories ``state``."""
        obs, rows, single = read_batch(self.observation_space, self.leaves, observation)
        taken = self._read_state(state, rows)
        actions, after = self._step(obs, taken, as_flags(starts, rows), greedy, rewards)
        return _alone(actions) if single else actions, after

    @torch.inference_mode()
    def _step(
        self, obs: dict[str, np.ndarray], state: State, flags: np.ndarray, greedy: bool, rewards: Any
    ) -> tuple[np.ndarray, State]:
        """Choose actions ``[B, ...]``; return them as the environment takes them, and the next state."""
        inputs = {name: torch.from_numpy(leaf).to(self.device, copy=True) for name, leaf in obs.items()}
        starts = torch.from_numpy(flags).to(self.device) if flags.any() else None
        if self.feed_previous:
            state = dict(state)
            paid = torch.from_numpy(as_rewards(rewards, flags)).to(self.device)
            fed = {PREVIOUS_ACTION: state.pop(PREVIOUS_ACTION), PREVIOUS_REWARD: paid.unsqueeze(1)}
            if starts is not None:
                fed = {name: leaf.masked_fill(starts.unsqueeze(1), 0) for name, leaf in fed.items()}
            inputs |= fed
        params, _, after = self.network.step(inputs, state, starts)
        if not bool(torch.isfinite(params).all()):
            raise ValueError("the policy gave numbers that are not finite: the state or the weights hold one")
        head = self.network.head
        actions = head.mode(params) if greedy else head.sample(params, self.generator)
        if self.feed_previous:
            after = after | {PREVIOUS_ACTION: head.as_previous(actions)}
        return head.to_environment(actions.cpu().numpy()), after

    def _read_state(self, state: Mapping[str, Any], rows: int) -> State:
        """Bring a state that was handed in onto the device.

        Raises:
            ValueError: it is no state of ``rows`` memories of this network.
        """
        if not isinstance(state, Mapping) or state.keys() != self._fresh.keys():
            given = ", ".join(map(str, state)) if isinstance(state, Mapping) else repr(state)
            expected = ", ".join(self._fresh) or "no leaves"
            raise ValueError(
                f"state={given or 'no leaves'}: it must be a dict of {expected}, as initial_state makes it"
            )
        taken = {}
        for name, fresh in self._fresh.items():
            leaf = torch.as_tensor(state[name])
            shape = (rows, *fresh.shape[1:])
            if leaf.shape != shape or leaf.is_floating_point() != fresh.is_floating_point():
                raise ValueError(
                    f"state {name!r} is {tuple(leaf.shape)} of {leaf.dtype}: it must be {shape} of {fresh.dtype} for "
                    f"an observation of {rows} row(s)"
                )
            taken[name] = leaf.to(self.device, fresh.dtype)
        return taken


def policy_copy(network: ActorCritic | QuantileNetwork) -> ActorCritic | QuantileNetwork:
    """Copy a network for inference: it asks for no gradients, drops nothing out and keeps no count of what it drops."""
    copy: ActorCritic | QuantileNetwork = frozen_copy(network)
    for module in copy.modules():
        if isinstance(module, Stack):
            module.dropout = 0.0
    return copy


def _alone(actions: np.ndarray) -> Any:
    """Take the action of the only row: an int for a Discrete space, else an array."""
    return actions[0].item() if actions.ndim == 1 else actions[0]

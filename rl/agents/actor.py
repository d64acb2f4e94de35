"""Acting: a network together with the memories of B environments. Training and evaluation each have their own."""

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rl.networks import ActorCritic
from rl.spaces import leaf_arrays, leaf_spaces, split_flat
from rl.transfer import upload
from rl.types import Observation

PREVIOUS_ACTION, PREVIOUS_REWARD = "previous_action", "previous_reward"


def previous_spaces(previous_action: spaces.Space) -> dict[str, spaces.Space]:
    """The extra observation leaves of an agent that is fed its previous action and reward."""
    return {PREVIOUS_ACTION: previous_action, PREVIOUS_REWARD: spaces.Box(-np.inf, np.inf, (1,))}


class Actor:
    """Plays B environments with one network; callers never touch the memories.

    Args:
        network: shared with whoever trains it.
        observation_space: of one environment.
        num_envs: B.
        device: where the network lies.
        seed: of the generator that samples actions.
        feed_previous: add the previous action and reward to the observation; at a start there is none.
        memory: False clears it, and what is fed of the previous step, before every step: the control experiment.
    """

    def __init__(
        self,
        network: ActorCritic,
        observation_space: spaces.Space,
        num_envs: int,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        feed_previous: bool = False,
        memory: bool = True,
    ):
        self.network = network
        self.observation_space = observation_space
        self.leaves = leaf_spaces(observation_space)
        self.composite = isinstance(observation_space, (spaces.Dict, spaces.Tuple))
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.feed_previous = feed_previous
        self.memory = memory
        self.generator = torch.Generator(self.device)
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self.reset()

    def reset(self) -> None:
        """Every environment is about to begin an episode."""
        self.state = self.network.initial_state(self.num_envs, self.device)
        self.starts = np.ones(self.num_envs, dtype=bool)  # of the next observation
        head = self.network.head
        actions = torch.zeros(self.num_envs, *head.action_shape, dtype=head.action_dtype, device=self.device)
        self.previous = {
            PREVIOUS_ACTION: torch.zeros_like(head.as_previous(actions)),
            PREVIOUS_REWARD: torch.zeros(self.num_envs, 1, device=self.device),
        }

    def inputs(self, observation: Any) -> Observation:
        """An observation of B environments as the network takes it: on the device, with what is fed of the last step.

        Raises:
            ValueError: it does not fit the space.
        """
        obs = {name: self._upload(array) for name, array in self._arrays(observation).items()}
        return obs | self.previous if self.feed_previous else obs

    def following(self, observation: Any, rows: np.ndarray) -> Observation:
        """Inputs for what ``rows`` observed after the last step, as if their episodes had gone on."""
        obs = {name: self._upload(array[rows]) for name, array in self._arrays(observation).items()}
        index = self._upload(rows)
        return obs | ({name: leaf[index] for name, leaf in self.last.items()} if self.feed_previous else {})

    def _upload(self, array: np.ndarray) -> Tensor:
        return upload(torch.from_numpy(array), self.device)

    def _arrays(self, observation: Any) -> dict[str, np.ndarray]:
        """An observation as leaves ``[B, *shape]`` in the dtypes of the space (float32 for float64)."""
        if self.composite and isinstance(observation, np.ndarray):
            arrays = split_flat(self.leaves, observation.reshape(self.num_envs, -1))
        else:
            arrays = leaf_arrays(self.observation_space, observation)
        return {name: self._fitted(name, arrays[name], space) for name, space in self.leaves.items()}

    def _fitted(self, name: str, given: np.ndarray, space: spaces.Space) -> np.ndarray:
        """One leaf in the shape and dtype of its space; most environments hand it over like that."""
        shape, dtype = (self.num_envs, *space.shape), np.float32 if space.dtype == np.float64 else space.dtype
        if given.dtype == dtype and given.shape == shape and given.flags.c_contiguous:
            return given
        if given.dtype.kind == "f" and space.dtype.kind in "iu" and np.mod(given, 1).any():
            raise ValueError(f"observation {name!r} holds fractions, but its space is {space.dtype}")
        array = np.ascontiguousarray(given, dtype=dtype)
        if array.shape != shape:
            if array.size != math.prod(shape):
                raise ValueError(f"observation {name!r} has shape {array.shape}, but {shape} is expected")
            array = array.reshape(shape)
        return array

    @torch.inference_mode()
    def act(self, obs: Observation, greedy: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """``obs`` from :meth:`inputs` -> params ``[B, P]``, values ``[B]``, actions ``[B, ...]``. Memories move on."""
        self.before = self.state
        starts = self._upload(self.starts) if self.starts.any() else None
        params, values, self.state = self.network.step(obs, self.state, starts)
        head = self.network.head
        return params, values, head.mode(params) if greedy else head.sample(params, self.generator)

    def play(self, observation: Any, greedy: bool = False) -> np.ndarray:
        """The actions ``[B, ...]`` for an observation, as a vector environment takes them; :meth:`outcome` is next."""
        _, _, self.played = self.act(self.inputs(observation), greedy)
        return self.network.head.to_environment(self.played.cpu().numpy())

    def outcome(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """What came of the last :meth:`play`: ``rewards [B]``, and where episodes ``ended [B]``."""
        self.observe(self.played, rewards, ended)

    def observe(
        self, actions: Tensor, rewards: np.ndarray, ended: np.ndarray, ignored: np.ndarray | None = None
    ) -> None:
        """What came of ``actions``: ``rewards [B]``, where episodes ``ended [B]``, and where it was no step at all."""
        if ignored is not None and ignored.any():
            rows = self._upload(ignored)
            self.state = {
                name: torch.where(rows.view(-1, *[1] * (leaf.dim() - 1)), self.before[name], leaf)
                for name, leaf in self.state.items()
            }
        self.starts = ended.copy() if self.memory else np.ones(self.num_envs, dtype=bool)
        if self.feed_previous:
            rewards, cleared = self._upload(rewards).unsqueeze(1), self._upload(self.starts).unsqueeze(1)
            self.last = {PREVIOUS_ACTION: self.network.head.as_previous(actions), PREVIOUS_REWARD: rewards}
            self.previous = {name: leaf.masked_fill(cleared, 0) for name, leaf in self.last.items()}

    def state_dict(self) -> dict:
        """The memories, to go on from exactly here."""
        return {"state": self.state, "starts": torch.from_numpy(self.starts), "previous": self.previous}

    def load_state_dict(self, state: dict) -> None:
        """The counterpart of :meth:`state_dict`."""
        self.state = {name: leaf.to(self.device) for name, leaf in state["state"].items()}
        self.starts = state["starts"].cpu().numpy()
        self.previous = {name: leaf.to(self.device) for name, leaf in state["previous"].items()}

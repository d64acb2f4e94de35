"""Acting: a network together with the memories of B environments. Training and evaluation each have their own."""

from collections.abc import Collection
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rl.agents.correlated_noise import CorrelatedNoise
from rl.agents.inputs import fit_leaf, name_leaves, seen_leaves
from rl.graphs import Recorded, Tensors, flatten, split
from rl.networks import ActorCritic, QuantileNetwork
from rl.spaces import fed_dtype, stack_rows
from rl.types import CutEpisodes, Observation, State

PREVIOUS_ACTION, PREVIOUS_REWARD = "previous_action", "previous_reward"
LEARN_TOO_EARLY = (
    "learn (train_step) was called while an action waits for its outcome: call observe (add_memory_ppo) first"
)
REWARD_IS_MISSING = (
    "this agent is fed the reward of its previous action (previous_action_reward): tell the outcome of each action by "
    "observe (add_memory_ppo), or call reset where an episode begins"
)


def previous_spaces(previous_action: spaces.Space, leaves: Collection[str] = ()) -> dict[str, spaces.Space]:
    """Return the extra observation leaves of an agent that is fed its previous action and reward.

    Raises:
        ValueError: the observation has ``leaves`` of these names, which would be overwritten.
    """
    if own := sorted({PREVIOUS_ACTION, PREVIOUS_REWARD}.intersection(leaves)):
        raise ValueError(f"previous_action_reward=True: the observation has leaves called {own}, leave one of both out")
    return {PREVIOUS_ACTION: previous_action, PREVIOUS_REWARD: spaces.Box(-np.inf, np.inf, (1,))}


class StepOutcome(NamedTuple):
    """What came of one step of B environments: ``[B]`` each; where both are given, termination wins."""

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    ignored: np.ndarray


class Actor:
    """A player of B environments with one network; callers never touch the memories.

    What ``observe`` tells says where episodes begin. Without it the memories go on until ``reset``.

    Args:
        network: shared with the learner that trains it.
        observation_space: of one environment.
        num_envs: B.
        device: where the network lies.
        seed: of the generator that samples actions.
        feed_previous: add the previous action and reward to the observation; at a start there is none.
        memory: False clears it, and what is fed of the previous step, before every step: the control experiment.
        graphs: record a step where the device can, see ``rl.graphs``.
        noise_correlation: of the noise of actions from one step to the next, see ``CorrelatedNoise``.

    Raises:
        ValueError: there is no such noise, or the core's state does not begin with the axis of the environments.
    """

    def __init__(
        self,
        network: ActorCritic | QuantileNetwork,
        observation_space: spaces.Space,
        num_envs: int,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        feed_previous: bool = False,
        memory: bool = True,
        graphs: bool = False,
        noise_correlation: float = 0.0,
    ):
        self.network = network
        self.observation_space = observation_space
        self.leaves = seen_leaves(observation_space, network.input_names)
        self.composite = isinstance(observation_space, (spaces.Dict, spaces.Tuple))
        self.formats = {  # of a batch of each leaf: shape, dtype
            name: ((num_envs, *(space.shape or ())), fed_dtype(space)) for name, space in self.leaves.items()
        }
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.feed_previous = feed_previous
        self.memory = memory
        self.generator = torch.Generator(self.device)
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(int(seed))
        head = network.head
        self.actions = torch.zeros(num_envs, *head.action_shape, dtype=head.action_dtype, device=self.device)
        self.noise = CorrelatedNoise(head, noise_correlation, num_envs, self.generator)
        self.state = self.before = network.initial_state(num_envs, self.device)  # now, and before the last step
        for name, leaf in self.state.items():
            if leaf.shape[:1] != (num_envs,):
                sizes = tuple(leaf.shape)
                raise ValueError(f"the core's state {name!r} has shape {sizes}: its first axis must be B={num_envs}")
        self.recorded = {
            greedy: Recorded(partial(self._compute_named, greedy), self._list_buffers, [self.generator], graphs)
            for greedy in (False, True)
        }
        self.reset()

    def reset(self) -> None:
        """Begin an episode in every environment.

        The numbers of the memories are cleared here already, for one that is not finite would survive the clearing at a
        start, which multiplies by 0. Counts that go on beyond starts (that of dropout) stay, so that a rollout with a
        reset inside is replayed exactly.
        """
        self.state = {
            name: torch.zeros_like(leaf) if leaf.is_floating_point() else leaf for name, leaf in self.state.items()
        }
        ones = np.ones(self.num_envs, dtype=bool)
        self.starts: np.ndarray | Tensor = ones  # of the next observation; a tensor after a rollout of tensors
        self.starts_before: np.ndarray | Tensor = ones  # of the last observation
        self._needs_reward = False
        head = self.network.head
        self.previous = self.last = {
            PREVIOUS_ACTION: torch.zeros_like(head.as_previous(self.actions)),
            PREVIOUS_REWARD: torch.zeros(self.num_envs, 1, device=self.device),
        }

    def read_starts(self) -> np.ndarray:
        """Return where the next observation opens an episode, bool ``[B]``."""
        return self.starts.cpu().numpy() if isinstance(self.starts, Tensor) else self.starts

    def inputs(self, observation: Any) -> Observation:
        """Turn an observation of B environments into what the network takes: leaves ``[B, ...]`` on the device.

        They have the dtypes of the space (float32 for float64); what is fed of the previous step stands beside them.

        Raises:
            ValueError: the observation does not fit the space.
        """
        if not self.composite:
            arrays = {"obs": np.asarray(observation)}
        else:
            if isinstance(observation, np.ndarray) and observation.size % self.num_envs == 0:
                observation = observation.reshape(self.num_envs, -1)
            arrays = name_leaves(self.observation_space, self.leaves, observation)
        obs = {}
        for name, (shape, dtype) in self.formats.items():
            array = arrays[name]
            if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                array = fit_leaf(name, array, shape, dtype)
            obs[name] = torch.from_numpy(array).to(self.device, non_blocking=True, copy=True)  # others may write there
        return obs | self.previous if self.feed_previous else obs

    def cut_episodes(self, step: int, observation: Any, env_ids: np.ndarray) -> CutEpisodes:
        """Note what V needs of the future of episodes that the last step cut, as if they had gone on.

        Args:
            step: of the rollout, after which they were cut.
            observation: what all B environments observed then, a batch or an array of objects; only ``env_ids`` count.
            env_ids: ``[K]``, the environments.

        Raises:
            ValueError: the observation does not fit the space.
        """
        if isinstance(observation, np.ndarray) and observation.dtype == object:  # as Gymnasium's own vectors give it
            observation = stack_rows(list(observation), self.observation_space)
        index = torch.from_numpy(env_ids).to(self.device, non_blocking=True)
        obs = self.inputs(observation) | (self.last if self.feed_previous else {})
        cut = [{name: leaf.index_select(0, index) for name, leaf in leaves.items()} for leaves in (obs, self.state)]
        return CutEpisodes(step, env_ids, *cut)

    @torch.inference_mode()
    def step(self, obs: Observation, greedy: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Take one step from ``obs``, made by ``inputs``; the memories move on.

        Returns:
            Distribution parameters ``[B, P]``, values ``[B]``, actions ``[B, ...]``.

        Raises:
            RuntimeError: the network is fed the previous reward, and ``observe`` has not told it.
        """
        if self._needs_reward:
            raise RuntimeError(REWARD_IS_MISSING)
        starts, recorded = None, self.recorded[greedy]
        if isinstance(self.starts, Tensor) or self.device.type != "cpu" or self.starts.any():
            starts = torch.as_tensor(self.starts).to(self.device, non_blocking=True)
        if starts is not None and recorded.records(self.device):
            found = recorded(flatten({"obs": obs, "state": self.state}) | {"starts": starts})
            after = split(found, {"state": self.state})["state"]
            params, values, self.actions = (found[name] for name in ("params", "values", "actions"))
        else:
            params, values, after, self.actions = self._compute(greedy, obs, self.state, starts)
        self.before, self.state, self.starts_before = self.state, after, self.starts
        if self.memory:
            self.starts = np.zeros(self.num_envs, dtype=bool)  # unless ``observe`` says otherwise
            self._needs_reward = self.feed_previous
        return params, values, self.actions

    def _compute(self, greedy: bool, obs: Observation, state: State, starts: Tensor | None) -> tuple[Any, ...]:
        """Compute a step of the network: parameters, values, the next state, and actions."""
        params, values, after = self.network.step(obs, state, starts)
        actions = self.network.head.mode(params) if greedy else self.noise.sample(params, starts)
        return params, values, after, actions

    def _list_buffers(self) -> list[Tensor]:
        return list(self.network.buffers())

    def _compute_named(self, greedy: bool, inputs: Tensors) -> Tensors:
        names = (*self.formats, *(self.previous if self.feed_previous else ()))
        parts = split(inputs, {"obs": names, "state": self.state})
        params, values, after, actions = self._compute(greedy, parts["obs"], parts["state"], inputs["starts"])
        return flatten({"state": after}) | {"params": params, "values": values, "actions": actions}

    def undo_step(self) -> None:
        """Put the memories back to where they were before the last step, whose outcome will not be told."""
        self.state, self.starts, self._needs_reward = self.before, self.starts_before, False

    def clear_broken_memories(self) -> None:
        """Begin those memories anew that hold a number that is not finite: nothing can be made of them any more."""
        fresh = self.network.initial_state(self.num_envs, self.device)
        finite = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        for leaf in self.state.values():
            finite = finite & torch.isfinite(leaf).flatten(1).all(1)
        self.state = {
            name: torch.where(finite.view(-1, *[1] * (leaf.dim() - 1)), leaf, fresh[name])
            for name, leaf in self.state.items()
        }

    def act(self, observation: Any, greedy: bool = False) -> np.ndarray:
        """Choose actions ``[B, ...]``, as a vector environment takes them; ``observe`` says what came of them."""
        self.step(self.inputs(observation), greedy)
        return self.network.head.to_environment(self.actions.cpu().numpy())

    def observe(self, rewards: np.ndarray, ended: np.ndarray, ignored: np.ndarray | None = None) -> None:
        """Take in what came of the last step.

        Args:
            rewards: ``[B]``.
            ended: ``[B]`` bool: the next observation opens an episode.
            ignored: ``[B]`` bool: it was no step; the memories are put back.
        """
        if ignored is not None and ignored.any():
            undone = torch.from_numpy(ignored).to(self.device, non_blocking=True)
            self.state = {
                name: torch.where(undone.view(-1, *[1] * (leaf.dim() - 1)), self.before[name], leaf)
                for name, leaf in self.state.items()
            }
        ended = spread_over_envs("ended", np.asarray(ended, dtype=bool), self.num_envs)
        self.starts = ended if self.memory else np.ones(self.num_envs, dtype=bool)
        self._needs_reward = False
        if self.feed_previous:
            told = rewards, self.starts  # arrays that the caller may use again
            paid, cleared = (torch.from_numpy(array).to(self.device, copy=True) for array in told)
            self.last = {
                PREVIOUS_ACTION: self.network.head.as_previous(self.actions),
                PREVIOUS_REWARD: paid.unsqueeze(1),
            }
            self.previous = {name: leaf.masked_fill(cleared.unsqueeze(1), 0) for name, leaf in self.last.items()}

    def state_dict(self, undone: bool = False) -> dict[str, Any]:
        """Collect the memories, to go on from exactly here; ``undone``, from before the last step."""
        state, starts = (self.before, self.starts_before) if undone else (self.state, self.starts)
        starts = torch.as_tensor(starts).cpu()
        return {"state": state, "starts": starts, "previous": self.previous, "noise": self.noise.last.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""
        self.state = {name: leaf.to(self.device) for name, leaf in state["state"].items()}
        self.starts, self._needs_reward = state["starts"].cpu().numpy(), False
        self.noise.last.copy_(state["noise"])
        self.previous = {name: leaf.to(self.device) for name, leaf in state["previous"].items()}


def check_outcome(num_envs: int, rewards: Any, terminated: Any, truncated: Any, ignored: Any) -> StepOutcome:
    """Bring what a caller tells of a step into arrays ``[B]``; a scalar goes to all environments.

    Raises:
        ValueError: a reward is not finite, or an array has a wrong shape.
    """
    arrays: list[np.ndarray] = []
    for name, value in zip(StepOutcome._fields, (rewards, terminated, truncated, ignored), strict=True):
        with np.errstate(over="ignore"):  # it becomes infinite, which is refused below
            array: np.ndarray = np.asarray(value, dtype=bool if arrays else np.float32)
        arrays.append(array if array.shape == (num_envs,) else spread_over_envs(name, array, num_envs))
    if not np.isfinite(arrays[0]).all():
        env_id = int(np.argmin(np.isfinite(arrays[0])))
        raise ValueError(f"rewards={rewards}: they must be finite, but environment {env_id} sent another one")
    arrays[2] = arrays[2] & ~arrays[1]
    return StepOutcome(*arrays)


def spread_over_envs(name: str, array: np.ndarray, num_envs: int) -> np.ndarray:
    """Bring an array with one number, or one for each environment, into the shape ``[B]``.

    Raises:
        ValueError: there are more or fewer numbers than environments.
    """
    if array.ndim and array.size != num_envs:
        raise ValueError(f"{name} has shape {array.shape}, but ({num_envs},) is expected")
    return np.broadcast_to(array.reshape(-1), (num_envs,)).copy()

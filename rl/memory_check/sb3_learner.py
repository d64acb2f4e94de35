"""A ``RecurrentPPO`` of sb3-contrib as a learner that is checked."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.utils import parameters_to_vector

from rl.memory_check.generators import reseed
from rl.memory_check.our_learner import patched
from rl.memory_check.recorder import stack
from rl.memory_check.sb3_policy import PolicySubject
from rl.memory_check.subject import Inputs, Replayed, Trace
from rl.types import CutEpisodes, Observation, State


def copy_model(model: Any) -> Any:
    """Copy a model; its environments and its logger are shared with the copy.

    Raises:
        ValueError: it holds something that cannot be copied.
    """
    shared = [vars(model).get(name) for name in ("env", "_vec_normalize_env", "_logger")]
    memo = {id(thing): thing for thing in shared if thing is not None}
    for tensor in _find_graphs(model.policy.action_dist):
        memo[id(tensor)] = tensor.detach().clone()
    try:
        return deepcopy(model, memo)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"model={type(model).__name__}: it must be one that can be copied ({error})") from error


def _find_graphs(thing: Any) -> Iterator[Tensor]:
    """Yield the tensors of a distribution that have a graph, left from its last use, which cannot be copied."""
    for value in vars(thing).values():
        if isinstance(value, Tensor) and not value.is_leaf:
            yield value
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, Distribution):
                yield from _find_graphs(part)


class SB3Learner(PolicySubject):
    """A recurrent PPO agent; its own ``collect_rollouts`` and ``train`` are called, so whatever a subclass does counts.

    Args:
        model: a copy, with environments to play in and a logger.
        seed: of the environments.

    Attributes:
        fault: of its update, in words; empty without one.
    """

    every_step_once = True

    def __init__(self, model: Any, seed: int):
        super().__init__(model.policy)
        self.model, self.seed, self.fault = model, seed, ""
        limit = model.batch_size
        self.bptt = limit if limit and limit < model.n_steps else None

    def collect(self) -> Trace:
        """Play a rollout and compute what would be learned from it, without learning."""
        model, recorder = self.model, RolloutRecorder(self)
        model.env.seed(self.seed)
        _, callback = model._setup_learn(model.n_steps * model.n_envs)  # begins episodes
        with (
            patched(model.env, step_wait=recorder.step_wait),
            patched(self.policy, forward=recorder.forward),
        ):
            model.collect_rollouts(model.env, callback, model.rollout_buffer, n_rollout_steps=model.n_steps)
        self.policy.set_training_mode(False)
        trace, buffer = recorder.trace(), model.rollout_buffer
        trace.inputs = self.detach(self.encode(trace.obs))
        trace.starts = torch.from_numpy(buffer.episode_starts > 0.5)
        trace.values, trace.returns, trace.advantages = (
            torch.from_numpy(column.copy()) for column in (buffer.values, buffer.returns, buffer.advantages)
        )
        trace.gamma, trace.gae_lambda = model.gamma, model.gae_lambda
        return trace

    def replay(self, seed: int) -> list[Replayed]:
        """Let a copy train an epoch with an optimiser that does nothing; return what it replayed.

        Raises:
            ValueError: weights changed nevertheless.
        """
        model = copy_model(self.model)
        model.n_epochs, model.target_kl = 1, None
        spy, buffer = TrainSpy(PolicySubject(model.policy), model.rollout_buffer), model.rollout_buffer
        numbers = np.arange(1, buffer.returns.size + 1, dtype=np.float32).reshape(buffer.returns.shape)
        buffer.returns, buffer.advantages = numbers, numbers.copy()  # the number of each step, hidden in its targets
        before = parameters_to_vector(model.policy.parameters()).clone()
        reseed(seed)
        with (
            patched(buffer, get=spy.get),
            patched(model.policy, evaluate_actions=spy.evaluate_actions),
            patched(model.policy.optimizer, step=lambda *arguments: None),
        ):
            model.train()
        if not torch.equal(parameters_to_vector(model.policy.parameters()), before):
            raise ValueError("model: train must change weights by policy.optimizer.step alone, to be replayed without")
        return spy.minibatches

    def update(self) -> None:
        """Learn from the rollout, as in training; where that makes weights that are no numbers, they stay."""
        before, reason = deepcopy(self.policy.state_dict()), ""
        try:
            self.model.train()
        except (ValueError, RuntimeError) as error:  # torch refuses distributions of what is no number
            reason = f", and train raises {type(error).__name__}"
            if self._has_numbers():
                raise
        if not self._has_numbers():
            self.fault = f"an update makes weights that are no numbers{reason}"
            self.policy.load_state_dict(before)
        self.policy.set_training_mode(False)

    def _has_numbers(self) -> bool:
        return all(bool(leaf.isfinite().all()) for leaf in self.policy.parameters())

    @staticmethod
    def detach(inputs: Inputs) -> Inputs:
        """Return leaves without their graph."""
        return {name: leaf.detach() for name, leaf in inputs.items()}


class RolloutRecorder:
    """A record of one rollout: what entered the policy, what came out, and what the environments told.

    Where no episode has been truncated by the middle, one is cut there: it goes on as another one, and an earlier
    observation stands for the one that closed it.

    Args:
        learner: plays.
    """

    def __init__(self, learner: SB3Learner):
        self.learner, self.policy = learner, learner.policy
        self.whole_forward, self.whole_step = learner.policy.forward, learner.model.env.step_wait
        self.calls: list[tuple[Observation, State, Tensor]] = []  # of each step
        self.call: tuple[Observation, State, Tensor, State]  # the last one, with the state after it
        self.told: list[tuple[np.ndarray, ...]] = []  # rewards, terminated, truncated
        self.cuts: list[CutEpisodes] = []
        self.shown: Any = None

    def forward(self, obs: Any, states: Any, *rest: Any, **options: Any) -> Any:
        """Let the policy act, and note it."""
        learner = self.learner
        entered = learner.name_obs(obs), learner.name_state(states)
        with learner.listening() as heard:
            result = self.whole_forward(obs, states, *rest, **options)
        self.call = (*entered, heard.outputs().detach(), learner.name_state(result[-1]))
        return result

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Let the environments step, and note what they tell before anything is added to it."""
        obs, rewards, dones, infos = self.whole_step()
        self.calls.append(self.call[:3])
        over_time = np.array([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        truncated = dones.astype(bool) & over_time
        middle = len(self.told) >= self.learner.model.n_steps // 2
        if middle and self.shown is not None and not self.cuts and not truncated.any() and not dones.all():
            row = int(np.flatnonzero(~dones)[0])
            dones, truncated, infos = dones.copy(), truncated.copy(), [*infos]
            dones[row] = truncated[row] = True
            closing = {"terminal_observation": take_row(self.shown, row), "TimeLimit.truncated": True}
            infos[row] = infos[row] | closing
        if truncated.any():
            self._note_cuts(np.flatnonzero(truncated), infos)
        self.told.append((rewards.copy(), dones & ~truncated, truncated))
        self.shown = deepcopy(obs)
        return obs, rewards, dones, infos

    def _note_cuts(self, env_ids: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """Note the observations that close episodes, under the states after their last steps."""
        for row in env_ids.tolist():
            if infos[row].get("terminal_observation") is None:
                raise ValueError(
                    f"env: infos[{row}] must have the terminal_observation of an episode that was truncated"
                )
        finals = [self._read_obs(infos[row]["terminal_observation"]) for row in env_ids.tolist()]
        obs = {name: torch.cat([final[name] for final in finals]) for name in finals[0]}
        rows = torch.from_numpy(env_ids)
        state = {name: leaf[rows.to(leaf.device)] for name, leaf in self.call[3].items()}
        self.cuts.append(CutEpisodes(len(self.told), env_ids, obs, state))

    def _read_obs(self, obs: Any) -> Observation:
        return self.learner.name_obs(self.policy.obs_to_tensor(obs)[0])

    def trace(self) -> Trace:
        """Return the rollout, without what the learner made of it."""
        obs, states, outputs = zip(*self.calls, strict=True)
        rewards, terminated, truncated = (torch.from_numpy(np.stack(column)) for column in zip(*self.told, strict=True))
        ended = terminated | truncated
        opens = torch.cat([torch.ones_like(ended[:1]), ended[:-1]])
        last = CutEpisodes(len(self.told), np.arange(ended.shape[1]), self._read_obs(self.shown), self.call[3])
        return Trace(
            obs=stack(list(obs)),
            inputs={},
            outputs=torch.stack(outputs),
            states=stack(list(states)),
            stride=1,
            opens=opens,
            starts=opens,
            rewards=rewards.float(),
            terminated=terminated,
            truncated=truncated,
            cuts=self.cuts,
            last=last,
        )


def take_row(obs: Any, row: int) -> Any:
    """Return the observation of one environment."""
    return {name: leaf[row] for name, leaf in obs.items()} if isinstance(obs, dict) else obs[row]


class TrainSpy:
    """A spy on ``train``: the minibatches that it draws, and what the policy makes of them.

    Args:
        subject: the policy that trains.
        buffer: holds the rollout; its returns and advantages are the numbers of its steps, from 1 on.
    """

    def __init__(self, subject: PolicySubject, buffer: Any):
        self.subject, self.policy = subject, subject.policy
        self.own_get: Callable[..., Iterator[Any]] = buffer.get
        self.own_evaluate, self.own_features = self.policy.evaluate_actions, self.policy.extract_features
        self.drawn: Any = None  # a minibatch that nothing was made of yet
        self.minibatches: list[Replayed] = []

    def get(self, *arguments: Any) -> Iterator[Any]:
        """Draw minibatches, and keep the present one."""
        for data in self.own_get(*arguments):
            self.drawn = data
            yield data

    def evaluate_actions(self, obs: Any, actions: Tensor, states: Any, starts: Tensor) -> Any:
        """Evaluate a minibatch, and note what was replayed for it."""
        features: list[Inputs] = []

        def extract_features(*given: Any) -> Any:
            made = self.own_features(*given)
            features.append(SB3Learner.detach(self.subject.name_features(made)))
            return made

        with self.subject.listening() as heard, patched(self.policy, extract_features=extract_features):
            results = self.own_evaluate(obs, actions, states, starts)
        data, self.drawn = self.drawn, None
        if data is None:
            return results
        sequences = states.pi[0].shape[1]

        def cut(column: Tensor) -> Tensor:
            return column.detach().unflatten(0, (sequences, -1)).transpose(0, 1)  # [N * L, ...] -> [L, N, ...]

        real = (data.mask > 0.5) & (data.returns == data.advantages)  # else they do not belong together
        index = torch.where(real, data.returns - 1.0, -1.0).long()
        replayed = Replayed(
            index=cut(index).cpu(),
            state=self.subject.name_state(states),
            starts=(cut(starts) > 0.5).cpu(),
            outputs=cut(heard.outputs()),
            ratio=cut((results[1] - data.old_log_prob).exp()).cpu(),
            inputs={name: cut(leaf) for name, leaf in features[0].items()} if len(features) == 1 else None,
        )
        self.minibatches.append(replayed)
        return results

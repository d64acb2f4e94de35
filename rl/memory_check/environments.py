"""Check an environment: how its episodes end, what it shows, and whether there is something to remember."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from rl.checks import positive
from rl.memory_check.ends import Ends, read_time_limit
from rl.memory_check.features import list_branches
from rl.memory_check.final_observations import FinalObservations
from rl.memory_check.play import Act, RandomPlay, Step, read_final, read_leaves
from rl.memory_check.recording import Recording
from rl.memory_check.remembering import judge_memory
from rl.memory_check.repeats import check_repeats
from rl.memory_check.values import Values
from rl.memory_check.verdicts import Verdict
from rl.training.stepping import VectorEnvAdapter, read_autoreset_mode

REPEATED = 4  # the steps that are played again are so many times fewer than those that are played once


class Watcher(Protocol):
    """What looks at each step that is played."""

    def add(self, step: Step) -> None:
        """Look at one step."""


def check_environment(envs: VectorEnv, *, seed: int, steps: int, act: Act | None = None) -> list[Verdict]:
    """Check an environment by playing it, and return a verdict for each check.

    It is played up to ``2 * steps`` steps, as the trainer takes it; afterwards it must be reset. The verdicts are
    ``arrays_are_not_used_again``, ``same_seed_same_episodes``, ``order_does_not_matter`` (of copies that take a seed
    each), ``truncation_is_told_apart``, ``final_observations_are_real``, ``observations_are_in_their_space``,
    ``rewards_are_finite``, ``observations_vary`` and ``something_is_to_be_remembered``.

    Args:
        envs: in SAME_STEP or NEXT_STEP autoreset mode.
        seed: of the environment, of random actions and of the regressions of the last check.
        steps: of all environments at once. 20,000 in all environments together let the last check see most.
        act: chooses the actions; None draws them at random.

    Raises:
        ValueError: ``steps`` is below 1, or the autoreset mode is another one.
    """
    positive(steps=steps)
    policy = RandomPlay(envs, seed) if act is None else act
    verdicts = check_repeats(envs, seed, max(1, steps // REPEATED), policy)
    limit, claims_gap = read_time_limit(envs), claims_memory_gap(envs)
    late = read_autoreset_mode(envs) == AutoresetMode.NEXT_STEP
    space = envs.single_observation_space
    ends, finals = Ends(envs.num_envs, limit), FinalObservations(space, late)
    values, recording = Values(space), Recording(envs.num_envs, space, envs.single_action_space, steps)
    watch(envs, seed + 1, steps, policy, [ends, finals, values, recording])
    verdicts += [ends.verdict(), finals.verdict(), *values.verdicts()]
    branches = list_branches(envs.single_action_space)
    return [*verdicts, judge_memory(recording.steps(), branches, claims_gap, seed)]


def claims_memory_gap(envs: VectorEnv) -> bool:
    """Tell whether an environment says itself that a memory gets more: ``optimal_return > memoryless_return``."""
    base: Any = envs.unwrapped
    source = base.envs[0].unwrapped if getattr(base, "envs", None) else base
    best, without = (getattr(source, name, None) for name in ("optimal_return", "memoryless_return"))
    return best is not None and without is not None and best > without


def watch(envs: VectorEnv, seed: int, steps: int, act: Act, watchers: Sequence[Watcher]) -> None:
    """Play an environment as the trainer takes it, and hand each step to all watchers.

    Args:
        envs: the environment.
        seed: of it.
        steps: of all environments at once.
        act: chooses the actions.
        watchers: look at each step.
    """
    space, spy = envs.single_observation_space, _Spy(envs)
    adapter = VectorEnvAdapter(spy)
    obs = adapter.reset(seed)
    opens = np.ones(envs.num_envs, dtype=bool)
    for _ in range(steps):
        before = {name: leaf.copy() for name, leaf in read_leaves(space, obs).items()}
        actions = act(obs, opens)
        result = adapter.step(actions)
        final = read_final(space, spy.obs, result.terminated | result.truncated, spy.info, adapter.resets_on_next_step)
        step = Step(
            before,
            opens,
            np.array(actions, copy=True),
            np.array(spy.rewards, dtype=np.float64),
            np.array(result.terminated, dtype=bool),
            np.array(result.truncated, dtype=bool),
            result.ignored.copy(),
            *final,
        )
        for watcher in watchers:
            watcher.add(step)
        obs, opens = result.obs, result.ended


class _Spy(VectorWrapper):
    """A wrapper that keeps what the last step returned, before the adapter makes one form of it.

    Where a truncated episode has no final observation, the next one stands in, for the adapter would refuse to go on;
    the check of final observations tells it.
    """

    obs: Any = None
    rewards: Any = None
    info: dict[str, Any]

    def step(self, actions: Any) -> Any:
        """Act in every environment."""
        obs, rewards, terminated, truncated, info = self.env.step(actions)
        self.obs, self.rewards, self.info = obs, rewards, info
        if np.any(truncated) and info.get("final_obs") is None:
            info = {**info, "final_obs": obs}
        return obs, rewards, terminated, truncated, info

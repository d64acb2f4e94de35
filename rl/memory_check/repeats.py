"""Play the same steps again: arrays that are used again, seeds, and environments in another order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from rl.memory_check.play import Act, fingerprint, read_leaves
from rl.memory_check.verdicts import Verdict

REUSE, SAME_SEED, ORDER = "arrays_are_not_used_again", "same_seed_same_episodes", "order_does_not_matter"


class Played(NamedTuple):
    """What was played with the environment itself, without the trainer's adapter.

    Attributes:
        actions: of each step, ``[B, ...]``.
        marks: fingerprints of the first observations, and of all that each step returned, ``[B]`` each.
        reused: names of arrays that changed after they were handed out.
    """

    actions: list[Any]
    marks: list[np.ndarray]
    reused: list[str]


def play(envs: VectorEnv, seed: int, steps: int, act: Act) -> Played:
    """Play some steps, and look at what was returned once more after the next step.

    Args:
        envs: the environment, not yet in an adapter.
        seed: of the environment.
        steps: to play.
        act: chooses the actions.
    """
    space = envs.single_observation_space
    obs, _ = envs.reset(seed=seed)
    opens, actions = np.ones(envs.num_envs, dtype=bool), []
    marks, reused = [fingerprint(read_leaves(space, obs))], []
    held = _Held({"observations": obs})
    for _ in range(steps):
        actions.append(np.array(act(obs, opens), copy=True))
        obs, rewards, terminated, truncated, info = envs.step(actions[-1])
        reused += held.changed()
        returned = {"observations": obs, "rewards": rewards, "terminated": terminated, "truncated": truncated}
        final = info.get("final_obs")
        held = _Held(returned if final is None else returned | {"final observations": final})
        marks.append(_mark(space, obs, rewards, terminated, truncated))
        opens = np.asarray(terminated) | np.asarray(truncated)
    return Played(actions, marks, sorted(set(reused)))


def first_difference(envs: VectorEnv, seed: Any, played: Played, reverse: bool = False) -> int | None:
    """Play the same actions again; return the first step that returned something else, None if none did.

    Step 0 is the reset. Nothing is played beyond the difference, for the actions would not fit any more.

    Args:
        envs: the environment.
        seed: one number, or one for each environment.
        played: what it was played before.
        reverse: the environments' actions, and what they returned, in reverse order.
    """
    space, order = envs.single_observation_space, slice(None, None, -1 if reverse else 1)
    obs, _ = envs.reset(seed=seed)
    if not np.array_equal(fingerprint(read_leaves(space, obs)), played.marks[0][order]):
        return 0
    for number, actions in enumerate(played.actions, 1):
        obs, rewards, terminated, truncated, _ = envs.step(np.ascontiguousarray(actions[order]))
        if not np.array_equal(_mark(space, obs, rewards, terminated, truncated), played.marks[number][order]):
            return number
    return None


def check_repeats(envs: VectorEnv, seed: int, steps: int, act: Act) -> list[Verdict]:
    """Check buffers and seeds, and the order of environments that take a seed each.

    Args:
        envs: the environment, not yet in an adapter.
        seed: of the environment.
        steps: to play.
        act: chooses the actions.
    """
    played = play(envs, seed, steps, act)
    verdicts = [judge_reuse(played.reused, steps)]
    differs = first_difference(envs, seed, played)
    verdicts.append(_tell_difference(SAME_SEED, differs, steps, "with the same seed and actions"))
    if differs is None and envs.num_envs > 1 and isinstance(envs.unwrapped, (SyncVectorEnv, AsyncVectorEnv)):
        seeds = [seed + row for row in reversed(range(envs.num_envs))]
        differs = first_difference(envs, seeds, played, reverse=True)
        verdicts.append(_tell_difference(ORDER, differs, steps, "with the environments in reverse order"))
    return verdicts


def judge_reuse(reused: list[str], steps: int) -> Verdict:
    """Say what it means that arrays changed after they were handed out."""
    if not reused:
        told = f"no array changed after it was returned, in {steps} steps"
        return Verdict(REUSE, True, told, "", {"reused": []})
    told = f"arrays that were returned are written again later: {', '.join(reused)}; agents here copy at once what "
    told += "they are shown, so that it reaches training only if final_observations_are_real fails"
    return Verdict(REUSE, None, told, "Copy what you keep of a step in a loop of your own.", {"reused": reused})


def _tell_difference(check: str, differs: int | None, steps: int, what: str) -> Verdict:
    if differs is None:
        return Verdict(check, True, f"{steps} steps {what} were the same", "", {"steps": steps})
    told = f"{what}, {'the reset' if differs == 0 else f'step {differs}'} returned something else"
    advice = "Draw random numbers from self.np_random only, and share nothing between environments."
    return Verdict(check, None, told, advice, {"first_difference": differs})


def _mark(space: Any, obs: Any, *columns: Any) -> np.ndarray:
    """Return a number for each row of what a step returned."""
    named = {str(number): np.asarray(column) for number, column in enumerate(columns)}
    return fingerprint({**read_leaves(space, obs), **named})


class _Held:
    """Arrays that were handed out, and copies of them as they were then."""

    def __init__(self, returned: dict[str, Any]):
        self.arrays = [(name, array, array.copy()) for name, value in returned.items() for array in _arrays(value)]

    def changed(self) -> list[str]:
        """Return the names of those that are no longer what they were."""
        return [name for name, array, copy in self.arrays if not np.array_equal(array, copy, equal_nan=True)]


def _arrays(value: Any) -> Iterator[np.ndarray]:
    """Go through all arrays of numbers inside of what was returned."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = tuple(value)
    if isinstance(value, (tuple, list)):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        yield value

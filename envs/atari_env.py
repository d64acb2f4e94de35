"""Atari games of the Arcade Learning Environment, one gray frame at a time: the memory takes the place of the stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import AtariPreprocessing

from envs.checks import positive, within
from envs.gymnasium_env import Wrapper, complete_id, make_gymnasium


def make_atari(
    id: str = "Pong",
    num_envs: int = 1,
    flicker: float = 0.0,
    screen_size: int = 84,
    frame_skip: int = 4,
    noop_max: int = 30,
    wrappers: Sequence[Wrapper | str | Mapping[str, Any]] = (),
    frame_stack: int = 1,
    **kwargs: Any,
) -> VectorEnv:
    """Build copies of an Atari game with the usual preprocessing, see ``gymnasium.wrappers.AtariPreprocessing``.

    An observation is one gray picture, uint8 ``[screen_size, screen_size]``, the larger of the last two frames. Rewards
    are those of the game.
    As Machado et al. advise, an episode is a whole game, and an action is replaced by the one before with probability
    0.25 (``repeat_action_probability``).

    Args:
        id: of the game, "Pong" for ALE/Pong-v5.
        num_envs: the number of copies.
        flicker: the probability that an observation is blank.
        screen_size: the sides of a picture.
        frame_skip: the frames for which an action lasts.
        noop_max: an episode begins with 1 to so many steps without action.
        wrappers: further ones, see ``make_gymnasium``.
        frame_stack: pictures that are shown at once, see ``envs.wrapping``.
        **kwargs: those of ``make_gymnasium`` and of the game: ``mode``, ``difficulty``, ``full_action_space``.

    Raises:
        ValueError: an unknown game, or a value out of range.
        ModuleNotFoundError: the extra ``atari`` is not installed.

    Source: Bellemare et al. 2013, "The Arcade Learning Environment"; Machado et al. 2018, "Revisiting the Arcade
    Learning Environment"; the flicker is that of Hausknecht and Stone 2015, "Deep Recurrent Q-Learning for Partially
    Observable MDPs".
    """
    positive(screen_size=screen_size, frame_skip=frame_skip)
    within(0.0, 1.0, flicker=flicker)
    own: list[Wrapper] = [
        partial(AtariPreprocessing, screen_size=screen_size, frame_skip=frame_skip, noop_max=noop_max)
    ]
    if flicker:
        own.append(partial(Flicker, probability=flicker))
    kwargs |= {"frame_stack": frame_stack, "frameskip": 1}
    return make_gymnasium(complete_id(id, "ALE/", "-v5"), num_envs, [*own, *wrappers], **kwargs)


class Flicker(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """A wrapper that blanks observations, each with the same probability and whatever came before.

    A blank is all zeros. What blanks is the environment's own generator, so a seeded episode repeats.

    Args:
        env: a single environment with a ``Box`` of observations.
        probability: that an observation is blank.
    """

    def __init__(self, env: gymnasium.Env, probability: float = 0.5):
        RecordConstructorArgs.__init__(self, probability=probability)
        super().__init__(env)
        self.probability = probability

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Return the observation, or a blank one."""
        return np.zeros_like(observation) if self.np_random.random() < self.probability else observation

"""A frozen policy that PPO is kept close to.

After kickstarting (Schmitt et al., 2018, arXiv 1803.03835), which takes the cross-entropy with the teacher instead of
KL(policy || teacher).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rl.networks import ActorCritic
from rl.networks.frozen import frozen_copy
from rl.networks.heads import Head
from rl.types import Observation, Sequences

STEPS = 32
"""Steps to unroll at a time: a whole rollout of images may have more activations than fit into memory."""


class Teacher:
    """A frozen copy that follows every rollout of its pupil with a memory of its own.

    What the teacher would have done depends on what the teacher remembers, and the states that the pupil stored say
    nothing of that once their weights have parted. So its memory is carried on from rollout to rollout.

    Args:
        network: is copied; the copy never changes.
        num_envs: B.
        device: where the network lies.
    """

    def __init__(self, network: ActorCritic, num_envs: int, device: torch.device | str = "cpu"):
        self.network = frozen_copy(network)
        self.head = self.network.head
        self.state = self.network.initial_state(num_envs, device)

    @torch.no_grad()
    def follow(self, obs: Observation, starts: Tensor) -> Tensor:
        """Follow the next rollout and return the parameters of the teacher, ``[T, B, P]``.

        Args:
            obs: leaves ``[T, B, ...]``.
            starts: ``[T, B]`` bool on the CPU.
        """
        params = []
        for first in range(0, len(starts), STEPS):
            steps = slice(first, first + STEPS)
            seen = {name: leaf[steps] for name, leaf in obs.items()}
            some, _, self.state = self.network.unroll(seen, self.state, starts[steps])
            params.append(some)
        return torch.cat(params)

    def kl(self, head: Head, params: Tensor, mb: Sequences) -> Tensor:
        """Compute KL(policy || teacher) of a minibatch, ``[L, N, branches]``; 0 where a branch was not executed.

        Args:
            head: of the policy.
            params: of the policy, ``[L, N, P]``.
            mb: the minibatch, with the parameters of the teacher.

        Raises:
            ValueError: the minibatch has none.
        """
        if mb.teacher_params is None:
            raise ValueError("the rollout holds no parameters of the teacher: it has to follow the rollout first")
        return head.kl(params, mb.actions, self.head, mb.teacher_params)

    def state_dict(self) -> dict[str, Any]:
        """Collect weights and memories."""
        return {"network": self.network.state_dict(), "state": self.state}

    def load_state_dict(self, state: dict[str, Any], same_size: bool) -> None:
        """Take back what ``state_dict`` gave; memories only with as many environments (``same_size``)."""
        self.network.load_state_dict(state["network"])
        if same_size:
            self.state = {name: leaf.to(self.state[name].device) for name, leaf in state["state"].items()}


@contextmanager
def unmoved_on_failure(teacher: Teacher | None) -> Iterator[None]:
    """Put the memory of a teacher back to where it was if the block raises anything: it has followed in vain."""
    before = None if teacher is None else teacher.state
    try:
        yield
    except BaseException:
        if teacher is not None and before is not None:
            teacher.state = before
        raise


def check_teacher(teacher: Teacher | None, teacher_kl: float, final: float | None) -> None:
    """Raise a ``ValueError`` if there is no teacher where one is to be kept close to, now or later."""
    if final and not teacher_kl:
        raise ValueError(f"teacher_kl_final={final}: with teacher_kl=0 there is no teacher, give a small number there")
    if teacher_kl and teacher is None:
        raise ValueError(f"teacher_kl={teacher_kl} needs a teacher: call load_network, or give init_from=RUN_DIR")

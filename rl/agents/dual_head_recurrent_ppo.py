"""Recurrent PPO with a GRU and two action heads: a move and a vote in every step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from rl.agents.client_options import ONE_ENVIRONMENT, is_sizes, options_from_sizes
from rl.agents.interface import merged_signature
from rl.agents.recurrent_ppo import RecurrentPPO
from rl.cores import gru
from rl.networks.heads import NOT_EXECUTED
from rl.types import Core


class DualHeadRecurrentPPO(RecurrentPPO):
    """:class:`RecurrentPPO` with a GRU unless another ``core`` is given; two action branches are named move and vote.

    Instead of Gymnasium spaces the first two arguments may be ``input_size`` (an int or a shape) and the number of
    action codes, followed by the options of the older social-dilemma agents:

    * ``n_move_actions=4``, ``n_vote_actions=3``, ``use_dual_head=True`` (False: one head over all codes);
    * ``use_composite_actions=False``: the int is a move (0 ... 3) or a vote (4, 5). A vote hides the move that was
      sampled with it. Only what was executed is trained: both if the client fetched the pair with
      :meth:`get_dual_action`, else the vote alone. ``True``: the int is ``move * n_vote_actions + vote``. The codes of
      a no-op above these are never chosen; give it a move of its own;
    * the rest as in :func:`rl.agents.client_options.options_from_sizes`; ``normalise_returns`` is then on and
      ``gae_lambda`` 0.8, which suits the single environment of such a client.
    """

    def __init__(
        self,
        observation_space: spaces.Space | int | tuple[int, ...] | None = None,
        action_space: spaces.Space | int | None = None,
        layer_size: int = 64,
        epsilon: float = 0.0,
        epsilon_min: float = 0.0,
        device: str = "cpu",
        seed: int | None = None,
        *,
        core: Callable[..., Core] = gru,
        action_names: Sequence[str] | None = None,
        **options: Any,
    ):
        self._vote_hides_move = False
        if is_sizes(observation_space, options):
            dual = options.pop("use_dual_head", True)
            composite = options.pop("use_composite_actions", False)
            sizes = options.pop("n_move_actions", 4), options.pop("n_vote_actions", 3)
            codes = action_space
            if dual and (options.get("use_factored_actions") or options.get("action_dims")):
                raise ValueError(
                    "action_dims are for one head: give use_dual_head=False, or the numbers of moves and votes"
                )
            if dual:
                _check_codes(codes, *sizes, composite)
                self._vote_hides_move = not composite
                options |= {"use_factored_actions": True, "action_dims": sizes}
                codes = sizes[0] * sizes[1]
            observation_space, action_space, core, options = options_from_sizes(
                observation_space, codes, core, ONE_ENVIRONMENT | options
            )
        if action_names is None and isinstance(action_space, spaces.MultiDiscrete) and len(action_space.nvec) == 2:
            action_names = ("move", "vote")
        super().__init__(
            observation_space,
            action_space,
            layer_size,
            epsilon,
            epsilon_min,
            device,
            seed,
            core=core,
            action_names=action_names,
            **options,
        )
        self._pair_read = None  # the pending actions whose pair the client has fetched

    def get_dual_action(self) -> tuple[int, ...] | None:
        """(move, vote) of the action that waits for its outcome, None if none does; the client is to execute both."""
        self._pair_read = self._pending
        return super().get_dual_action()

    def add_memory_ppo(self, reward: Any, done: Any, *args: Any, **kwargs: Any) -> None:
        """See :meth:`RecurrentPPO.add_memory_ppo`."""
        waiting = self.training and self._pending is not None
        if self._vote_hides_move and waiting and self._pair_read is not self._pending:
            executed = self.buffer.actions[self.buffer.size]  # [1, 2]
            executed[:, 0] = executed[:, 0].where(executed[:, 1] == 0, NOT_EXECUTED)
        super().add_memory_ppo(reward, done, *args, **kwargs)

    add_memory = add_memory_ppo

    def _to_client(self, action: np.ndarray) -> Any:
        if not self._vote_hides_move:
            return super()._to_client(action)
        move, vote = action.tolist()
        return move if vote == 0 else int(self.action_space.nvec[0]) + vote - 1


def _check_codes(codes: int, moves: int, votes: int, composite: bool) -> None:
    """There must be as many codes as pairs (composite) or as moves and votes, with or without a no-op."""
    needed = moves * votes if composite else moves + votes - 1
    if codes not in (needed, needed + 1):
        kind = "move * vote" if composite else "a move or a vote"
        raise ValueError(
            f"action_space={codes}: {moves} moves and {votes} votes with codes of {kind} make {needed}, "
            f"or {needed + 1} with a no-op"
        )


DualHeadRecurrentPPO.__signature__ = merged_signature(DualHeadRecurrentPPO, RecurrentPPO)

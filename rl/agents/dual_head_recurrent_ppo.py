"""Recurrent PPO with a GRU and two action heads: a move and a vote in every step."""

from collections.abc import Callable
from typing import Any, Unpack

from gymnasium import spaces
from torch import Tensor

from rl.agents.actor import StepOutcome
from rl.agents.client_options import (
    SINGLE_ENV_DEFAULTS,
    DualHeadOptions,
    as_spaces,
    translate_options,
    uses_client_options,
)
from rl.agents.recurrent_ppo import RecurrentPPO
from rl.cores import gru
from rl.types import Core


class DualHeadRecurrentPPO(RecurrentPPO):
    """Recurrent PPO with a GRU unless another ``core`` is given; two action branches are named move and vote.

    Instead of Gymnasium spaces the first two arguments may be ``input_size`` (an int or a shape) and the number of
    action codes, followed by the options of the older social-dilemma agents:

    * ``n_move_actions=4``, ``n_vote_actions=3``, ``use_dual_head=True`` (False: one head over all codes);
    * ``use_composite_actions=False``: the int is a move (0 ... 3) or a vote (4, 5). A vote hides the move that was
      sampled with it. Only what was executed is trained: both if the client fetched the pair with
      ``get_dual_action``, else the vote alone. ``True``: the int is ``move * n_vote_actions + vote``. The codes of
      a no-op above these are never chosen; give it a move of its own;
    * the rest as in ``rl.agents.client_options.translate_options``; ``normalise_returns`` is then on and
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
        **options: Unpack[DualHeadOptions],
    ):
        self._vote_hides_move = False
        self._move_hidden_in: Tensor | None = None  # the waiting actions whose move the client does not execute
        given: dict[str, Any] = {**options}
        if uses_client_options(observation_space, given):
            dual = given.pop("use_dual_head", True)
            composite = given.pop("use_composite_actions", False)
            sizes = given.pop("n_move_actions", 4), given.pop("n_vote_actions", 3)
            codes: Any = action_space
            if dual and (given.get("use_factored_actions") or given.get("action_dims")):
                raise ValueError(
                    "action_dims are for one head: give use_dual_head=False, or the numbers of moves and votes"
                )
            if dual:
                _check_codes(codes, *sizes, composite)
                self._vote_hides_move, self._num_moves = not composite, sizes[0]
                given |= {"use_factored_actions": True, "action_dims": sizes}
                codes = sizes[0] * sizes[1]
            observation_space, action_space, core, given = translate_options(
                observation_space, codes, core, SINGLE_ENV_DEFAULTS | given
            )
        observation_space, action_space = as_spaces(observation_space, action_space)
        two_branches = isinstance(action_space, spaces.MultiDiscrete) and len(action_space.nvec) == 2
        if two_branches and given.get("action_names") is None:
            given["action_names"] = ("move", "vote")
        super().__init__(
            observation_space,
            action_space,
            layer_size,
            epsilon,
            epsilon_min,
            device,
            seed,
            core=core,
            **given,
        )

    def take_action(self, state: Any) -> Any:
        """Act on an observation, which clients call a state; where votes hide moves, the int is a move or a vote."""
        if not self._vote_hides_move:
            return super().take_action(state)
        move, vote = self.act(state).tolist()
        self._move_hidden_in = self._pending if vote else None
        return move if vote == 0 else self._num_moves + vote - 1

    def get_dual_action(self) -> tuple[int, ...] | None:
        """Return (move, vote) of the action that waits for its outcome, None if none does; a client executes both."""
        self._move_hidden_in = None
        return super().get_dual_action()

    def _store_outcome(self, outcome: StepOutcome, final_observation: Any) -> None:
        super()._store_outcome(outcome, final_observation)
        if self._move_hidden_in is self._pending and self.buffer is not None:
            self.buffer.hide_branch(0)


def _check_codes(codes: int, moves: int, votes: int, composite: bool) -> None:
    """Check that there are as many codes as pairs (composite) or as moves and votes, with or without a no-op.

    Raises:
        ValueError: there are more or fewer.
    """
    needed = moves * votes if composite else moves + votes - 1
    if codes not in (needed, needed + 1):
        kind = "move * vote" if composite else "a move or a vote"
        raise ValueError(
            f"action_space={codes}: {moves} moves and {votes} votes with codes of {kind} make {needed}, "
            f"or {needed + 1} with a no-op"
        )

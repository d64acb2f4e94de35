"""Check the memory of a module that nobody has trained yet: here an LSTM that is cleared a step too late.

python examples/check_module.py
"""

import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

import rl

State = tuple[Tensor, Tensor, Tensor]


class LateLSTM(nn.Module):
    """An LSTM that is cleared by the start of the step before, a usual slip where ``done`` is stored.

    Args:
        late: as said; False: it is cleared in time.
    """

    def __init__(self, late: bool):
        super().__init__()
        self.lstm, self.head, self.late = nn.LSTM(4, 32), nn.Linear(32, 2), late

    def initial_state(self, rows: int) -> State:
        """Make the state of ``rows`` fresh memories: hidden, cell, and the start of the step before."""
        return torch.zeros(1, rows, 32), torch.zeros(1, rows, 32), torch.zeros(rows)

    def forward(self, obs: Tensor, state: State, start: Tensor) -> tuple[Tensor, State]:
        """Take one step: ``obs [B, 4]``, ``start [B]`` -> output ``[B, 2]`` and the next state."""
        hidden, cell, before = state
        kept = 1.0 - (before if self.late else start).view(1, -1, 1)
        output, (hidden, cell) = self.lstm(obs.unsqueeze(0), (kept * hidden, kept * cell))
        return self.head(output[0]), (hidden, cell, start)


def main(late: bool = True) -> list[str]:
    """Print what is found, and return the names of the checks that failed."""
    torch.manual_seed(1)
    space = Box(-1.0, 1.0, (4,))
    verdicts = rl.check_memory_of_module(LateLSTM(late), space, start_dtype=torch.float32, bptt=16)
    print(*verdicts, sep="\n")
    return [verdict.check for verdict in verdicts if verdict.passed is False]


if __name__ == "__main__":
    main()

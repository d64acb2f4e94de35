"""What a memory can tell of its past: a loss that teaches it to keep things before a reward hangs on them."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from rl.checks import positive


class Recall(nn.Module):
    """Tell from each output of a memory what it was fed 1, 2, 4, ... steps before.

    A reward says that something was worth keeping only to a memory that has kept it and a policy that has used it.
    What was observed can be asked for from the first update on. After the memory-based predictor of Wayne et al.
    (2018, arXiv 1803.10760), which has to reconstruct what it saw.

    Args:
        memory_size: H, of what the memory puts out.
        feature_size: D, of what it is fed.
        length: of the sequences in steps; all distances are below it.
        layer_size: width of the tanh layer in front of the predictions.

    Attributes:
        distances: in steps, ascending.

    Raises:
        ValueError: sequences of one step have nothing before.
    """

    def __init__(self, memory_size: int, feature_size: int, length: int, layer_size: int):
        super().__init__()
        positive(memory_size=memory_size, feature_size=feature_size, layer_size=layer_size)
        if length < 2:
            raise ValueError("recall_coef needs sequences of at least 2 steps: raise bptt, or leave recall_coef at 0")
        self.distances = [1 << power for power in range((length - 1).bit_length())]
        self.hidden = nn.Linear(memory_size, layer_size)
        self.heads = nn.Linear(layer_size, len(self.distances) * feature_size)

    def forward(self, remembered: Tensor, fed: Tensor, starts: Tensor) -> Tensor:
        """Compute how wrong it is.

        Args:
            remembered: ``[L, N, H]``, what the memory puts out.
            fed: ``[L, N, D]``, what it is fed; no gradient goes there, which would make it easy to tell, not rich.
            starts: ``[L, N]`` bool; what was fed before a start is not asked for, nor what lies before the sequence.

        Returns:
            The squared errors at each step, ``[L, N]``, the mean over features and distances.
        """
        fed, episode = fed.detach(), starts.cumsum(0)  # [L, N, D], and a number for each episode of a sequence
        hidden, size = torch.tanh(self.hidden(remembered)), fed.shape[-1]
        errors = []
        heads = zip(self.distances, self.heads.weight.split(size), self.heads.bias.split(size), strict=True)
        for distance, weight, bias in heads:
            told = linear(hidden[distance:], weight, bias)  # [L - distance, N, D], empty where the sequence is shorter
            wrong = (told - fed[: len(told)]).square().mean(-1)
            same = episode[distance:] == episode[: len(told)]
            errors.append(pad(wrong * same, (0, 0, len(fed) - len(told), 0)))  # [L, N]
        return torch.stack(errors).mean(0)

"""Running mean and variance, kept in the checkpoint and frozen unless ``update`` is called."""

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Mean and variance of everything seen so far, for each feature (Chan, Golub and LeVeque, 1983).

    They change only in :meth:`update`, which training calls between an update and the next rollout. So a rollout and
    its replay see the same numbers, and the probability ratio of an unchanged policy is 1.

    Args:
        shape: shape of one sample.
        clip: normalised values are clipped to +-clip.
    """

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Takes in ``samples [..., *shape]``."""
        samples = samples.reshape(-1, *self.mean.shape).float()
        n = samples.shape[0]
        var, mean = torch.var_mean(samples, dim=0, unbiased=False)
        total = self.count + n
        delta = mean - self.mean
        self.var.copy_((self.var * self.count + var * n + delta**2 * self.count * n / total) / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., *shape]`` with mean 0 and variance 1."""
        return ((x - self.mean) * torch.rsqrt(self.var + 1e-8)).clamp(-self.clip, self.clip)

    def scale(self, x: Tensor) -> Tensor:
        """``x`` divided by the standard deviation, without moving its mean: for rewards."""
        return (x * torch.rsqrt(self.var + 1e-8)).clamp(-self.clip, self.clip)

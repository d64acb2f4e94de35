"""Running mean and variance, kept in the checkpoint and frozen unless ``update`` is called."""

import torch
from torch import Tensor, nn

from rl.shards import ALONE, Shards, average


class RunningMoments(nn.Module):
    """Mean and variance of all samples so far, for each feature (Chan, Golub and LeVeque, 1983).

    They change only in ``update``, which training calls between an update and the next rollout (an IQN, before it
    learns). So a rollout and its replay see the same numbers, and the probability ratio of an unchanged policy is 1.

    Args:
        shape: shape of one sample.
        clip: normalised values are clipped to +-clip.
    """

    mean: Tensor  # [*shape]
    var: Tensor  # [*shape]
    count: Tensor  # [], samples so far
    shards: Shards = ALONE  # whose samples count

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def reset(self) -> None:
        """Forget all samples."""
        self.mean.zero_()
        self.var.fill_(1.0)
        self.count.zero_()

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Add ``samples [..., *shape]``, and those of the other shards, in their order.

        Raises:
            FloatingPointError: mean or variance would not be finite; they are as they were.
        """
        samples = samples.reshape(-1, *self.mean.shape).float()
        told = (*torch.var_mean(samples, dim=0, unbiased=False), len(samples)) if len(samples) else None
        var, mean, count = self.var, self.mean, self.count
        for more_var, more_mean, n in filter(None, self.shards.gather(told)):
            total = count + n
            delta = more_mean.to(mean) - mean
            var = (var * count + more_var.to(var) * n + delta**2 * count * n / total) / total
            mean, count = mean + delta * n / total, total
        if not bool(torch.isfinite(var + mean).all()):
            raise FloatingPointError(
                f"a number of size {find_largest(samples, self.shards):.3g} is too large for its moments: nothing was "
                "learned"
            )
        self.var.copy_(var)
        self.mean.copy_(mean)
        self.count.copy_(count)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x [..., *shape]`` to mean 0 and variance 1."""
        return ((x - self.mean) * torch.rsqrt(self.var + 1e-8)).clamp(-self.clip, self.clip)


class ReturnScale(nn.Module):
    """A scale of rewards: the running standard deviation of the discounted return (Engstrom et al., 2020, section 3).

    Args:
        num_envs: B.
        clip: scaled rewards are clipped to +-clip.
    """

    running: Tensor  # [B], the discounted sum of the rewards of each environment so far

    def __init__(self, num_envs: int, clip: float = 10.0):
        super().__init__()
        self.clip = clip
        self.moments = RunningMoments(())
        self.register_buffer("running", torch.zeros(num_envs))

    @torch.no_grad()
    def update(self, rewards: Tensor, starts: Tensor, gamma: float, ignored: Tensor | None = None) -> None:
        """Add the next steps of all environments.

        Args:
            rewards: ``[T, B]``.
            starts: ``[T, B]`` bool, steps that open an episode.
            gamma: discount.
            ignored: ``[T, B]`` bool, entries that are no steps and do not count; None for none.

        Raises:
            FloatingPointError: the scale would not be finite, and all rewards 0 from then on; it is as it was.
        """
        returns = discounted_returns(rewards, starts, self.running, gamma)
        try:
            self.moments.update(returns if ignored is None else returns[~ignored])
        except FloatingPointError as error:
            largest = find_largest(rewards, self.moments.shards)
            raise FloatingPointError(
                f"a reward of size {largest:.3g} is too large for normalise_returns: nothing was learned"
            ) from error
        self.running.copy_(returns[-1])

    def forward(self, rewards: Tensor) -> Tensor:
        """Divide ``rewards`` of any shape by the scale."""
        return (rewards * torch.rsqrt(self.moments.var + 1e-8)).clamp(-self.clip, self.clip)

    @property
    def size(self) -> float:
        """What rewards are divided by."""
        return float((self.moments.var + 1e-8).sqrt())

    def load(self, state: dict[str, Tensor], same_envs: bool) -> None:
        """Take over a stored scale.

        Args:
            state: what ``state_dict`` gave.
            same_envs: the environments go on from where they were, so the running sums go on too; else from 0.
        """
        if not same_envs:
            state = state | {"running": torch.zeros_like(self.running)}
        self.load_state_dict(state)


class AdvantageScale(nn.Module):
    """A scale of advantages: their standard deviation in this rollout, or in all so far if that is larger.

    Divided by that of the rollout alone, the small errors that are left once every episode succeeds would enter the
    update as large as the advantages did when there was something to learn, and undo it.
    """

    var: Tensor  # [], mean of the variances of all rollouts so far
    count: Tensor  # [], rollouts so far
    shards: Shards = ALONE  # whose advantages are one rollout

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("var", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def forward(self, advantages: Tensor) -> Tensor:
        """Take in the advantages of a rollout, of any shape, then bring them to mean 0 and variance 1 or less.

        Those of the other shards belong to it; each must have as many.
        """
        (mean,) = average(self.shards, advantages.mean())
        centred = advantages - mean
        (var,) = average(self.shards, centred.square().mean())
        self.count += 1.0
        self.var += (var - self.var) / self.count
        return centred / (torch.maximum(var, self.var).sqrt() + 1e-8)


def find_largest(numbers: Tensor, shards: Shards) -> float:
    """Return the largest size of the numbers of all shards."""
    return max(shards.gather(numbers.abs().max().item() if numbers.numel() else 0.0))


def discounted_returns(rewards: Tensor, starts: Tensor, before: Tensor, gamma: float) -> Tensor:
    """Compute the running sum R_t = gamma * R_{t-1} + r_t of rewards, which begins anew at ``starts``.

    Args:
        rewards: ``[T, B]``.
        starts: ``[T, B]`` bool.
        before: ``[B]``, the sum carried over from the previous rollout.
        gamma: discount.

    Returns:
        ``[T, B]``.
    """
    decay = (~starts).to(rewards.dtype) * gamma
    sums = []
    for reward, factor in zip(rewards.unbind(0), decay.unbind(0), strict=True):
        before = torch.addcmul(reward, factor, before)
        sums.append(before)
    return torch.stack(sums)

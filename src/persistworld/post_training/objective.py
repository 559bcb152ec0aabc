"""The post-training objective (paper Eq. 1, 2, 6, 7): pure functions of tensors.

The first axis is the sample (or the K candidates of a group). The other axes are the latent chunk (L, C, V * h, w).
"""

from typing import Literal

import torch
from torch import Tensor

Weighting = Literal["plain", "edm", "self_normalised"]


def branches(x0_theta: Tensor, x0_old: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Eq. 1: the implicit positive and negative predictions around the reference prediction."""
    return (1 - beta) * x0_old + beta * x0_theta, (1 + beta) * x0_old - beta * x0_theta


def nft_loss(
    x0_theta: Tensor, x0_old: Tensor, x0: Tensor, r: Tensor, beta: float, weighting: Weighting, sigma: Tensor
) -> Tensor:
    """Eq. 2 per sample, averaged over the chunk's elements: (N,).

    x0_theta, x0_old: predictions (N, L, C, Vh, w); x0: the candidates; r: reward weights in [0, 1] that broadcast
    against them (one number per sample in the paper); sigma: (N,).
    weighting: `plain` is the paper's; `edm` multiplies by (sigma^2 + 1) / sigma^2, the base model's training weight;
    `self_normalised` divides each branch by its detached mean absolute error and the sum by beta (as in the code of
    DiffusionNFT).
    """
    positive, negative = branches(x0_theta, x0_old, beta)
    positive_error, negative_error = (positive - x0) ** 2, (negative - x0) ** 2
    rest = tuple(range(1, x0.ndim))
    if weighting == "self_normalised":
        positive_error = positive_error / _mean_error(positive, x0) / beta
        negative_error = negative_error / _mean_error(negative, x0) / beta
    loss = (r * positive_error + (1 - r) * negative_error).mean(dim=rest)
    return loss * (sigma**2 + 1) / sigma**2 if weighting == "edm" else loss


def _mean_error(prediction: Tensor, x0: Tensor) -> Tensor:
    rest = tuple(range(1, x0.ndim))
    return (prediction.detach() - x0).abs().mean(dim=rest, keepdim=True).clamp(min=1e-5)


def advantages(rewards: Tensor, epsilon: float, views: int = 1) -> Tensor:
    """Eq. 6: z-scores over the K candidates (first axis). rewards: (K, ...), or (K, ..., V * h, w) with `views` stacked by height.

    Rewards finer than a clip share one standard deviation per view: the root mean square over positions. Positions where the
    candidates hardly differ then get a small advantage, and a view with much motion does not dominate the others (Eq. 4 averages
    over views).
    """
    if views > 1:
        apart = rewards.unflatten(-2, (views, -1)).movedim(-3, 0)
        return torch.stack([advantages(view, epsilon) for view in apart]).movedim(0, -3).flatten(-3, -2)
    spread = rewards.var(dim=0, correction=0).mean().sqrt()
    return (rewards - rewards.mean(dim=0, keepdim=True)) / (spread + epsilon)


def reward_weights(rewards: Tensor, epsilon: float, views: int = 1) -> Tensor:
    """Eq. 6 and 7: r = (clip(A, -1, 1) + 1) / 2, in [0, 1]. rewards and views: as in `advantages`."""
    return (advantages(rewards, epsilon, views).clamp(-1, 1) + 1) / 2


def select_best_and_worst(rewards: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` best and `keep` worst of K rewards (K,), in ascending order. All indices if keep is 0."""
    if keep == 0:
        return torch.arange(len(rewards))
    order = torch.argsort(rewards, stable=True)
    return torch.cat([order[:keep], order[-keep:]]).sort().values

"""Visual rewards of candidates (paper 3.4, Eq. 3-5), per clip or at a finer credit granularity."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from persistworld.config.post_training import RewardConfig
from persistworld.evaluation.frame_metrics import SsimTarget, psnr_of, squared_error_map, ssim_map, ssim_target, valid_mean
from persistworld.evaluation.perceptual import PerceptualDistance
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.model import autocast
from persistworld.world_model.views import split_views

DECIBELS = 10 / math.log(10)  # dPSNR = -DECIBELS dMSE / MSE
MSE_FLOOR = 1e-6  # 60 dB: avoids a division by 0 for a group of perfect frames


@dataclass(frozen=True)
class Target:
    """Ground truth of one group: images (M, 3, H, W) in [0, 1] with M = frames * V, and precomputed inputs of the metrics."""

    images: Tensor
    ssim: SsimTarget
    features: list[Tensor]


@dataclass(frozen=True)
class Rewards:
    """Rewards of the K candidates of one group.

    clip: (K,), each candidate's total reward (Eq. 5); credit: (K, frames or 1, C or 1, Vh or 1, w or 1), the rewards from which the
    advantages are computed; views: number of views stacked by height in `credit`, 1 for rewards per clip.
    """

    clip: Tensor
    credit: Tensor
    views: int


class RewardModel:
    """Decodes candidates and compares them with the ground truth in every view, on the device of the two networks."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        perceptual: PerceptualDistance,
        settings: RewardConfig,
        views: tuple[str, ...],
        ssim_window: int,
        precision: str,
    ) -> None:
        self.autoencoder, self.perceptual, self.settings = autoencoder, perceptual, settings
        self.window, self.precision = ssim_window, precision
        weights = torch.tensor([settings.view_weights.get(v, 1.0) for v in views])
        self.view_weights = (weights / weights.sum()).to(perceptual.device)  # Eq. 4 with equal weights, Table 8 otherwise

    def target(self, images: Tensor) -> Target:
        """images: (M, 3, H, W) in [0, 1], M = frames * V, view fastest."""
        images = images.to(self.perceptual.device)
        return Target(images, ssim_target(images, self.window), self._features(images, len(images)))

    def decode(self, stacked: Tensor) -> Tensor:
        """Stacked latents (N, C, Vh, w) to images (N * V, 3, H, W) in [0, 1], view fastest."""
        latents = split_views(stacked, len(self.view_weights)).flatten(0, 1)
        with autocast(self.perceptual.device, self.precision):
            images = torch.cat([self.autoencoder.decode(part) for part in latents.split(128)])
        return (images.float().clamp(-1, 1) + 1) / 2

    @torch.no_grad()
    def score(self, candidates: Tensor, target: Target) -> Rewards:
        """candidates: (K, frames, C, Vh, w) stacked latents of one group."""
        count, frames, _, _, width = candidates.shape
        images = self.decode(candidates.flatten(0, 1))
        features = self._features(images, len(target.images))
        similarity = ssim_map(images, target.ssim)
        error = squared_error_map(images, target.images)
        per_frame = self._per_frame(features, similarity, error, target).reshape(count, frames, len(self.view_weights))
        clip = (per_frame.mean(dim=1) * self.view_weights).sum(dim=1)
        if self.settings.credit == "clip":
            return Rewards(clip, clip.reshape(-1, 1, 1, 1, 1), views=1)
        if self.settings.credit == "element":
            return Rewards(clip, self._element_shares(candidates, target), len(self.view_weights))
        views = len(self.view_weights)
        cells = candidates.shape[3] // views
        if self.settings.credit == "view_frame":
            return Rewards(clip, per_frame.repeat_interleave(cells, dim=2)[:, :, None, :, None], views)
        size = (cells, width)
        # A cell's share of its frame's reward. LPIPS and SSIM are means over pixels. PSNR is not: it is linearised around the
        # group's mean error in the frame.
        frame_error = error.mean(dim=(1, 2)).reshape(count, -1).mean(dim=0).clamp(min=MSE_FLOOR).repeat(count)
        local = self._combine(
            _pool(self.perceptual.spatial(features, target.features, images.shape[-2:]), size),
            _pool(similarity, size),
            -DECIBELS * _pool(error, size) / frame_error[:, None, None],
        )
        return Rewards(clip, local.reshape(count, frames, 1, -1, width), views)

    def _element_shares(self, candidates: Tensor, target: Target) -> Tensor:
        """What each latent element adds to a candidate's reward: (K, frames, C, Vh, w).

        To first order, a candidate's reward exceeds that of the group's mean latent by the sum over elements of gradient times
        deviation. The gradient is taken halfway between the two, which is exact for quadratic rewards (integrated gradients,
        Sundararajan et al. 2017, with one point).
        """
        mean = candidates.mean(dim=0, keepdim=True)
        halfway = (candidates + mean) / 2
        shares = []
        for point, candidate in zip(halfway, candidates, strict=True):
            with torch.enable_grad():
                point = point.requires_grad_()
                images = self.decode(point)
                maps = ssim_map(images, target.ssim), squared_error_map(images, target.images)
                total = self._per_frame(self._features(images, len(images)), *maps, target).sum()
            shares.append(torch.autograd.grad(total, point)[0] * (candidate - mean[0]))
        return torch.stack(shares)

    def _per_frame(self, features: list[Tensor], similarity: Tensor, error: Tensor, target: Target) -> Tensor:
        """The reward of each image (Eq. 3): (N,)."""
        lpips = self.perceptual.distance(features, target.features)
        return self._combine(lpips, valid_mean(similarity, self.window), psnr_of(error.mean(dim=(1, 2))))

    def _features(self, images: Tensor, batch: int) -> list[Tensor]:
        # One candidate at a time keeps the feature maps in the CPU cache: twice as fast as all candidates at once.
        with autocast(images.device, self.precision):
            parts = [self.perceptual.features(part * 2 - 1) for part in images.split(batch)]
        return [torch.cat(maps).float() for maps in zip(*parts, strict=True)]

    def _combine(self, lpips: Tensor, ssim: Tensor, psnr: Tensor) -> Tensor:
        s = self.settings
        return -s.lpips * lpips + s.ssim * ssim + s.psnr * psnr


def latent_rewards(candidates: Tensor, target: Tensor, views: int) -> Rewards:
    """Negative squared error of every latent element. Nothing is decoded, and each element gets its own credit.

    candidates: (K, frames, C, Vh, w); target: the ground truth's latents (frames, C, Vh, w).
    """
    credit = -((candidates - target) ** 2)
    return Rewards(credit.mean(dim=(1, 2, 3, 4)), credit, views)


def _pool(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean of maps (N, H, W) over each latent cell: (N, h, w)."""
    return F.adaptive_avg_pool2d(values[:, None], size)[:, 0]

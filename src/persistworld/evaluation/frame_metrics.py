"""SSIM, PSNR and squared error of image batches, full frame and over masks (paper 3.4 and 4; Ctrl-World's
conventions).

Images are float32 (N, 3, H, W) in [0, 1]. If K candidates share M ground-truth images, they are ordered
candidate-major: image k * M + m is compared with ground truth m. All functions run without gradients.

SSIM follows Wang et al. with a uniform window, K1 = 0.01, K2 = 0.03, data range 1, and the sample covariance (n - 1 in
the denominator). These are the defaults of scikit-image's `structural_similarity`, which Ctrl-World's evaluation calls.
torchmetrics differs: it uses a Gaussian window and the population covariance, and includes (reflected) border pixels in
the mean.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

K1, K2 = 0.01, 0.03
# dB; just above the 58.9 dB of 8-bit rounding. The ceiling keeps means finite when a frame equals its target.
PSNR_CEILING = 60.0


@dataclass(frozen=True)
class SsimTarget:
    """The ground truth's statistics for SSIM, computed once: images, local means and local variances, all (M, 3, H, W)."""

    images: Tensor
    mean: Tensor
    variance: Tensor
    window: int


def ssim_target(y: Tensor, window: int = 7) -> SsimTarget:
    """The statistics of ground-truth images (M, 3, H, W) in [0, 1] for a `window` x `window` box."""
    with torch.no_grad():
        mean, square = box_mean(torch.cat([y, y * y]), window).chunk(2)
        return SsimTarget(y, mean, (square - mean * mean) * _sample_factor(window), window)


def ssim_map(x: Tensor, y: Tensor | SsimTarget, window: int = 7) -> Tensor:
    """SSIM at every pixel, averaged over channels: (N, H, W).

    x: (N, 3, H, W); y: (M, 3, H, W) with N a multiple of M, or its `SsimTarget` (whose window is then used). At the
    border, where the window does not fit, the image is reflected. Only masked scores use these pixels; `ssim` does not.
    """
    target = y if isinstance(y, SsimTarget) else ssim_target(y, window)
    # One candidate at a time, so that the intermediate images stay in the CPU cache.
    return torch.cat([_ssim_map(candidate, target) for candidate in _by_candidate(x, target.images)])


def _ssim_map(x: Tensor, target: SsimTarget) -> Tensor:
    """`ssim_map` for M images, as many as the target has."""
    factor = _sample_factor(target.window)
    mean, square, cross = box_mean(torch.cat([x, x * x, x * target.images]), target.window).chunk(3)
    c1, c2 = K1**2, K2**2
    covariance = (cross - mean * target.mean) * factor
    variance = (square - mean * mean) * factor
    top = (2 * mean * target.mean + c1) * (2 * covariance + c2)
    bottom = (mean * mean + target.mean * target.mean + c1) * (variance + target.variance + c2)
    return (top / bottom).mean(dim=1)


def ssim(x: Tensor, y: Tensor | SsimTarget, window: int = 7) -> Tensor:
    """SSIM per image (N,): the mean of `ssim_map` over the pixels where the whole window lies within the image, as in
    scikit-image.
    """
    return valid_mean(ssim_map(x, y, window), y.window if isinstance(y, SsimTarget) else window)


def valid_mean(values: Tensor, window: int) -> Tensor:
    """Mean over the pixels of an SSIM map (N, H, W) that lie at least half a window from the border: (N,)."""
    edge = window // 2
    return values[:, edge : values.shape[1] - edge, edge : values.shape[2] - edge].mean(dim=(1, 2))


def squared_error_map(x: Tensor, y: Tensor) -> Tensor:
    """Squared error averaged over channels, (N, H, W). x: (N, 3, H, W), y: (M, 3, H, W), N a multiple of M."""
    return (_by_candidate(x, y) - y).square().mean(dim=2).flatten(0, 1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """PSNR per image in dB, data range 1, at most `PSNR_CEILING`: (N,)."""
    return psnr_of(squared_error_map(x, y).mean(dim=(1, 2)))


def psnr_of(mean_squared_error: Tensor) -> Tensor:
    """PSNR in dB of mean squared errors (any shape, data range 1), at most `PSNR_CEILING`; NaN stays NaN."""
    return -10 * torch.log10(mean_squared_error.clamp(min=10 ** (-PSNR_CEILING / 10)))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of maps (N, H, W) over the true pixels of `mask` (N, H, W): (N,), NaN where the mask is empty."""
    with torch.no_grad():
        weight = mask.to(values.dtype)
        return (values * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def box_mean(x: Tensor, window: int) -> Tensor:
    """Mean over a window x window box around every pixel of (N, C, H, W), with reflection at the border. Keeps the shape.

    The box is separable. Sums over 1, 2, 4, ... pixels are combined, which takes about log2(window) additions per axis. In
    contrast to cumulative sums, the rounding error does not grow with the image.
    """
    edge = window // 2
    padded = F.pad(x, (edge, edge, edge, edge), mode="reflect")
    return _sliding_sum(_sliding_sum(padded, window, 3), window, 2) / window**2


def _sliding_sum(x: Tensor, window: int, dim: int) -> Tensor:
    length = x.shape[dim] - window + 1
    total, covered, power, block = None, 0, 1, x
    while power <= window:
        if window & power:
            part = block.narrow(dim, covered, length)
            total = part if total is None else total + part
            covered += power
        if 2 * power <= window:
            block = block.narrow(dim, 0, block.shape[dim] - power) + block.narrow(dim, power, block.shape[dim] - power)
        power *= 2
    return total


def _sample_factor(window: int) -> float:
    return window**2 / (window**2 - 1)


def _by_candidate(x: Tensor, y: Tensor) -> Tensor:
    """(K * M, 3, H, W) as (K, M, 3, H, W), which broadcasts against (M, 3, H, W)."""
    return x.reshape(-1, *y.shape)

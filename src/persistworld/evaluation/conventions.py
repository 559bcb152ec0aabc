"""The conventions of SSIM and PSNR; `evaluation.convention` selects one.

ctrl_world: SSIM with a uniform window and the sample covariance, averaged over the pixels where the whole window fits. This is
scikit-image's default, which Ctrl-World and the paper use.
torchmetrics: that library's defaults. SSIM with a Gaussian window (sigma 1.5) and the population covariance, averaged over all pixels;
the image is reflected at its border.

In both, PSNR is per frame with data range 1, and at most `PSNR_CEILING`. Neither library defines masked scores. Masked SSIM is the mean
of the convention's SSIM map over the mask's pixels. Masked PSNR is the PSNR of the mean squared error over the mask's pixels.
"""

from typing import Protocol

from torch import Tensor

from persistworld.evaluation.frame_metrics import psnr, ssim_map, ssim_target, valid_mean


class Comparison(Protocol):
    """Compares videos (`film`) with one target. All are float32 (T, 3, H, W) in [0, 1]."""

    def ssim(self, film: Tensor) -> tuple[Tensor, Tensor]:
        """SSIM per frame (T,) and its map (T, H, W), averaged over channels."""

    def psnr(self, film: Tensor) -> Tensor:
        """PSNR per frame in dB (T,)."""


class CtrlWorldComparison:
    """The convention ctrl_world. The target's local means and variances are computed once for all videos."""

    def __init__(self, target: Tensor, window: int) -> None:
        self._target, self._window = ssim_target(target, window), window

    def ssim(self, film: Tensor) -> tuple[Tensor, Tensor]:
        similarity = ssim_map(film, self._target)
        return valid_mean(similarity, self._window), similarity

    def psnr(self, film: Tensor) -> Tensor:
        return psnr(film, self._target.images)


def comparison(target: Tensor, convention: str, window: int) -> Comparison:
    """The comparison with `target` in a convention. Only ctrl_world uses `window`, the side of its SSIM window in pixels."""
    if convention == "ctrl_world":
        return CtrlWorldComparison(target, window)
    # Imported here, because the import takes seconds and the default convention does not need it.
    from persistworld.evaluation.torchmetrics_convention import TorchmetricsComparison

    return TorchmetricsComparison(target)

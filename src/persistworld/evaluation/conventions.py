"""Which SSIM and PSNR the scores hold: the convention that `evaluation.convention` names.

ctrl_world: SSIM under a uniform window with the sample covariance, averaged over the pixels where the whole window fits. This is
scikit-image's default, with which Ctrl-World and the paper score.
torchmetrics: that library's defaults. SSIM under a Gaussian window (sigma 1.5) with the population covariance, averaged over all pixels;
the image is reflected at its border.

PSNR is per frame with data range 1 in both, and at most `PSNR_CEILING`. Neither library defines masked scores: those are means over the
mask's pixels of the convention's own SSIM map, and PSNR of the mean squared error there.
"""

from typing import Protocol

from torch import Tensor

from persistworld.evaluation.frame_metrics import psnr, ssim_map, ssim_target, valid_mean


class Comparison(Protocol):
    """Compares films with one target. Images are float32 (T, 3, H, W) in [0, 1]."""

    def ssim(self, film: Tensor) -> tuple[Tensor, Tensor]:
        """SSIM per frame (T,) and its map (T, H, W), averaged over channels."""

    def psnr(self, film: Tensor) -> Tensor:
        """PSNR per frame in dB (T,)."""


class CtrlWorldComparison:
    """The target's local means and variances are computed once for all films."""

    def __init__(self, target: Tensor, window: int) -> None:
        self._target, self._window = ssim_target(target, window), window

    def ssim(self, film: Tensor) -> tuple[Tensor, Tensor]:
        similarity = ssim_map(film, self._target)
        return valid_mean(similarity, self._window), similarity

    def psnr(self, film: Tensor) -> Tensor:
        return psnr(film, self._target.images)


def comparison(target: Tensor, convention: str, window: int) -> Comparison:
    """The comparison with `target` in a convention; `window` is ctrl_world's."""
    if convention == "ctrl_world":
        return CtrlWorldComparison(target, window)
    # Imported here: the library takes seconds to import, which scoring in the default convention does not need.
    from persistworld.evaluation.torchmetrics_convention import TorchmetricsComparison

    return TorchmetricsComparison(target)

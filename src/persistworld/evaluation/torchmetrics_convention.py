"""SSIM and PSNR as torchmetrics computes them by default."""

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from persistworld.evaluation.frame_metrics import PSNR_CEILING


class TorchmetricsComparison:
    """Compares videos (`film`) with one target (a Comparison). All are float32 (T, 3, H, W) in [0, 1]."""

    def __init__(self, target: Tensor) -> None:
        self._target = target

    @torch.no_grad()
    def ssim(self, film: Tensor) -> tuple[Tensor, Tensor]:
        """SSIM per frame (T,) and its map (T, H, W), averaged over channels."""
        whole, pixels = structural_similarity_index_measure(film, self._target, data_range=1.0, reduction="none", return_full_image=True)
        return whole, pixels.mean(dim=1)

    @torch.no_grad()
    def psnr(self, film: Tensor) -> Tensor:
        """PSNR per frame in dB (T,). For equal frames, torchmetrics gives infinity; the ceiling keeps means finite."""
        return peak_signal_noise_ratio(film, self._target, data_range=1.0, reduction="none", dim=(1, 2, 3)).clamp(max=PSNR_CEILING)

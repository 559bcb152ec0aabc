"""SSIM and PSNR in both conventions, against scikit-image's values, scipy's filters and torchmetrics."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from persistworld.evaluation.conventions import comparison
from persistworld.evaluation.frame_metrics import (
    PSNR_CEILING,
    box_mean,
    masked_mean,
    psnr,
    psnr_of,
    squared_error_map,
    ssim,
    ssim_map,
    ssim_target,
    valid_mean,
)

# scikit-image 0.26, structural_similarity(x, y, win_size=w, data_range=1, channel_axis=2) and peak_signal_noise_ratio
# of `pair(seed)`.
SKIMAGE_SSIM = {
    (0, 7): 0.684268176939084, (0, 5): 0.6763539136337248, (0, 11): 0.6924290499601348,
    (1, 7): 0.6829395060544879, (1, 5): 0.6787139257483169, (1, 11): 0.6841063653169028,
}  # fmt: skip
SKIMAGE_PSNR = {0: 12.011601546961714, 1: 12.090908077938494}


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A noisy image and its clean one, (1, 3, 24, 40)."""
    rng = np.random.default_rng(seed)
    x = rng.random((24, 40, 3)).astype(np.float32)
    y = np.clip(x + 0.3 * rng.standard_normal(x.shape), 0, 1).astype(np.float32)
    return tuple(torch.from_numpy(image).permute(2, 0, 1)[None] for image in (x, y))


@pytest.mark.parametrize(("seed", "window"), SKIMAGE_SSIM)
def test_ssim_equals_scikit_image(seed, window):
    assert ssim(*pair(seed), window).item() == pytest.approx(SKIMAGE_SSIM[seed, window], abs=2e-6)


def test_ssim_map_equals_the_formula_with_scipy_filters_up_to_the_border():
    x, y = pair(3)
    a, b = x[0].double().numpy(), y[0].double().numpy()

    def mean(image):
        return np.stack([scipy.ndimage.uniform_filter(channel, 7, mode="mirror") for channel in image])

    factor = 49 / 48
    va, vb, vab = (factor * (mean(p * q) - mean(p) * mean(q)) for p, q in ((a, a), (b, b), (a, b)))
    top = (2 * mean(a) * mean(b) + 1e-4) * (2 * vab + 9e-4)
    bottom = (mean(a) ** 2 + mean(b) ** 2 + 1e-4) * (va + vb + 9e-4)
    np.testing.assert_allclose(ssim_map(x, y)[0].numpy(), (top / bottom).mean(0), atol=2e-5)


@pytest.mark.parametrize("window", [3, 5, 7, 9, 11])
def test_box_mean_is_the_mean_over_the_window(window):
    image = pair(4)[0]
    expected = scipy.ndimage.uniform_filter(image[0, 0].double().numpy(), window, mode="mirror")
    np.testing.assert_allclose(box_mean(image, window)[0, 0].numpy(), expected, atol=1e-6)


def test_candidates_share_the_statistics_of_their_ground_truth():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(4, 3, 16, 20, generator=generator)
    candidates = torch.rand(3 * 4, 3, 16, 20, generator=generator)  # candidate-major
    together = ssim(candidates, ssim_target(truth))
    apart = torch.cat([ssim(candidates[4 * k : 4 * k + 4], truth) for k in range(3)])
    assert torch.allclose(together, apart, atol=1e-6)
    errors = torch.cat([squared_error_map(candidates[4 * k : 4 * k + 4], truth) for k in range(3)])
    assert torch.equal(squared_error_map(candidates, truth), errors)
    assert together.shape == (12,)


def test_psnr_equals_scikit_image_and_torchmetrics():
    for seed, expected in SKIMAGE_PSNR.items():
        x, y = pair(seed)
        assert psnr(x, y).item() == pytest.approx(expected, abs=1e-4)
        assert psnr(x, y).item() == pytest.approx(peak_signal_noise_ratio(x, y, data_range=1.0).item(), abs=1e-4)


def test_equal_images_score_the_ceiling():
    image = pair(0)[0]
    assert ssim(image, image).item() == pytest.approx(1, abs=1e-6)
    assert psnr(image, image).item() == pytest.approx(PSNR_CEILING)


def test_masks_take_the_pixels_they_name_and_empty_masks_are_nan():
    x, y = pair(5)
    mask = torch.zeros(1, 24, 40, dtype=torch.bool)
    mask[:, 3:9, 5:17] = True
    error = squared_error_map(x, y)
    expected = (x[0, :, 3:9, 5:17] - y[0, :, 3:9, 5:17]).square().mean()
    assert masked_mean(error, mask).item() == pytest.approx(expected.item(), rel=1e-6)
    assert psnr_of(masked_mean(error, torch.ones_like(mask))).item() == pytest.approx(psnr(x, y).item(), abs=1e-5)
    assert torch.isnan(psnr_of(masked_mean(error, torch.zeros_like(mask)))).all()
    assert valid_mean(ssim_map(x, y), 7).item() == pytest.approx(ssim(x, y).item())


def gaussian_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """SSIM's formula with scipy's Gaussian filter: sigma 1.5, cut off at 5 pixels, population covariance; (H, W) of one channel."""

    def mean(image):
        return scipy.ndimage.gaussian_filter(image, 1.5, mode="mirror", radius=5)

    vx, vy, vxy = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2, mean(x * y) - mean(x) * mean(y)
    top = (2 * mean(x) * mean(y) + 1e-4) * (2 * vxy + 9e-4)
    return top / ((mean(x) ** 2 + mean(y) ** 2 + 1e-4) * (vx + vy + 9e-4))


def test_the_torchmetrics_convention_is_the_formula_with_scipys_gaussian_filter():
    x, y = (torch.cat([pair(seed)[place] for seed in (0, 1)]) for place in (0, 1))
    found = comparison(y, "torchmetrics", 7)
    whole, pixels = found.ssim(x)
    a, b = x.double().numpy(), y.double().numpy()
    expected = np.stack([np.mean([gaussian_ssim(p, q) for p, q in zip(*image, strict=True)], axis=0) for image in zip(a, b, strict=True)])
    np.testing.assert_allclose(pixels.numpy(), expected, atol=2e-5)
    np.testing.assert_allclose(whole.numpy(), expected.mean((1, 2)), atol=2e-5)
    assert found.psnr(x).tolist() == pytest.approx([SKIMAGE_PSNR[0], SKIMAGE_PSNR[1]], abs=1e-4)
    assert found.psnr(y).tolist() == [PSNR_CEILING] * 2


def test_the_ctrl_world_convention_is_scikit_images():
    x, y = (torch.cat([pair(seed)[place] for seed in (0, 1)]) for place in (0, 1))
    found = comparison(y, "ctrl_world", 7)
    whole, pixels = found.ssim(x)
    assert whole.tolist() == pytest.approx([SKIMAGE_SSIM[0, 7], SKIMAGE_SSIM[1, 7]], abs=2e-6)
    assert torch.equal(pixels, ssim_map(x, y)) and torch.equal(found.psnr(x), psnr(x, y))

"""The Euler sampler on Karras sigmas, as in SVD's scheduler configuration (EDM, Karras et al. 2022, Eq. 5 and Alg. 1)."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from persistworld.config.world_model import SamplerConfig

# (x_sigma, sigma) -> x0_hat; x: (B, L, C, h, w), sigma: scalar tensor
Denoiser = Callable[[Tensor, Tensor], Tensor]


def karras_sigmas(sampler: SamplerConfig) -> Tensor:
    """(steps + 1,) decreasing from sigma_max to sigma_min, then 0 (EDM Eq. 5)."""
    ramp = torch.linspace(0, 1, sampler.steps, dtype=torch.float64)
    high, low = sampler.sigma_max ** (1 / sampler.rho), sampler.sigma_min ** (1 / sampler.rho)
    return torch.cat([(high + ramp * (low - high)) ** sampler.rho, torch.zeros(1, dtype=torch.float64)]).float()


def guidance_scale(sampler: SamplerConfig, frames: int) -> Tensor:
    """(1, frames, 1, 1, 1): Ctrl-World's ramp from 1 to `guidance` over the future frames."""
    return torch.linspace(1, sampler.guidance, frames).reshape(1, -1, 1, 1, 1)


def euler_sample(denoise: Denoiser, noise: Tensor, sampler: SamplerConfig) -> Tensor:
    """Integrate from unit-variance `noise` (B, L, C, h, w) to a sample of the same shape.

    The initial state is noise * sqrt(sigma_max^2 + 1), as in SVD ("leading" spacing).
    """
    sigmas = karras_sigmas(sampler).to(noise.device)
    x = noise * (sigmas[0] ** 2 + 1).sqrt()
    for sigma, sigma_next in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        x = x + slope * (sigma_next - sigma)
    return x

"""EDM preconditioning for the variance-preserving-in-unit-data form that SVD and Ctrl-World use (paper Eq. 8).

All functions take sigma > 0 of any shape and are elementwise.
"""

import torch
from torch import Tensor


def c_skip(sigma: Tensor) -> Tensor:
    """Weight of the noisy input in x0_hat."""
    return 1 / (sigma**2 + 1)


def c_out(sigma: Tensor) -> Tensor:
    """Weight of the network's output in x0_hat."""
    return -sigma / (sigma**2 + 1).sqrt()


def c_in(sigma: Tensor) -> Tensor:
    """Scale that brings x_sigma to unit variance before the network."""
    return 1 / (sigma**2 + 1).sqrt()


def c_noise(sigma: Tensor) -> Tensor:
    """The noise level as the network is told it: its timestep."""
    return sigma.log() / 4


def loss_weight(sigma: Tensor) -> Tensor:
    """(sigma^2 + 1) / sigma^2: the x0 error in units of the network's output error, since it equals 1 / c_out^2."""
    return (sigma**2 + 1) / sigma**2


def predict_x0(network_output: Tensor, x_sigma: Tensor, sigma: Tensor) -> Tensor:
    """Paper Eq. 8: x0_hat = c_out(sigma) m + c_skip(sigma) x_sigma."""
    return c_out(sigma) * network_output + c_skip(sigma) * x_sigma


def sample_log_normal(shape: tuple[int, ...], mean: float, std: float, generator: torch.Generator) -> Tensor:
    """sigma with ln sigma ~ N(mean, std^2)."""
    return (mean + std * torch.randn(shape, generator=generator)).exp()

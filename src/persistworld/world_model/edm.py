"""EDM preconditioning for data of unit variance, in the form of SVD and Ctrl-World (paper Eq. 8).

All functions are elementwise and take sigma > 0 of any shape.
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
    """Scale that gives the network's input x_sigma unit variance."""
    return 1 / (sigma**2 + 1).sqrt()


def c_noise(sigma: Tensor) -> Tensor:
    """The noise level as network input (its timestep)."""
    return sigma.log() / 4


def loss_weight(sigma: Tensor) -> Tensor:
    """(sigma^2 + 1) / sigma^2 = 1 / c_out^2: converts the squared x0 error to the squared error of the network's output."""
    return (sigma**2 + 1) / sigma**2


def predict_x0(network_output: Tensor, x_sigma: Tensor, sigma: Tensor) -> Tensor:
    """Paper Eq. 8: x0_hat = c_out(sigma) m + c_skip(sigma) x_sigma."""
    return c_out(sigma) * network_output + c_skip(sigma) * x_sigma


def sample_log_normal(shape: tuple[int, ...], mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Draw sigma with ln sigma ~ N(mean, std^2)."""
    return (mean + std * torch.randn(shape, generator=generator)).exp()

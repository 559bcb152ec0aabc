"""The teacher-forcing loss of Ctrl-World: EDM denoising of the future, given a ground-truth history with a little noise."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from persistworld.config.training import BaseTrainingConfig
from persistworld.world_model import edm
from persistworld.world_model.model import Context, WorldModel


@dataclass(frozen=True)
class Draws:
    """All random numbers of one loss evaluation, so that a test can fix them. B is the batch size."""

    sigma: Tensor  # (B,)
    noise: Tensor  # (B, L, C, Vh, w)
    history_sigma: Tensor  # (B,), signed
    history_noise: Tensor  # (B, H, C, Vh, w)
    current_sigma: Tensor  # (B,)
    current_noise: Tensor  # (B, C, Vh, w)
    keep_action: Tensor  # (B,), 0 or 1

    def take(self, rows: slice) -> "Draws":
        return Draws(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw(history: Tensor, future: Tensor, training: BaseTrainingConfig, rng: torch.Generator) -> Draws:
    """Sample the random numbers for latents history (B, H, C, Vh, w) and future (B, L, C, Vh, w)."""
    batch = len(future)
    return Draws(
        sigma=edm.sample_log_normal((batch,), training.sigma_mean, training.sigma_std, rng),
        noise=torch.randn(future.shape, generator=rng),
        history_sigma=training.history_noise * torch.randn(batch, generator=rng),
        history_noise=torch.randn(history.shape, generator=rng),
        current_sigma=training.current_noise * torch.rand(batch, generator=rng),
        current_noise=torch.randn(future[:, 0].shape, generator=rng),
        keep_action=(torch.rand(batch, generator=rng) >= training.action_dropout).float(),
    )


def condition(history: Tensor, current: Tensor, tokens: Tensor, draws: Draws) -> Context:
    """Add noise (sigma_h) to the history and rescale it to unit variance, add noise to the current frame, drop action tokens at random."""
    s = draws.history_sigma.reshape(-1, 1, 1, 1, 1)
    noised = (history + s * draws.history_noise) / (s**2 + 1).sqrt()
    seen = current + draws.current_sigma.reshape(-1, 1, 1, 1) * draws.current_noise
    return Context(noised, seen, tokens * draws.keep_action[:, None, None])


def teacher_forcing_loss(model: WorldModel, history: Tensor, future: Tensor, tokens: Tensor, draws: Draws) -> Tensor:
    """Mean over the future of (sigma^2 + 1) / sigma^2 * (x0_hat - x0)^2."""
    context = condition(history, future[:, 0], tokens, draws)
    sigma = draws.sigma.reshape(-1, 1, 1, 1, 1)
    x0_hat = model.predict_x0(future + sigma * draws.noise, draws.sigma, context)
    return (edm.loss_weight(sigma) * (x0_hat - future) ** 2).mean()

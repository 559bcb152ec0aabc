"""Trains the small networks that look at frames: grasp reader, eyes and judge."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from persistworld.runtime.progress import track
from persistworld.runtime.randomness import generator


def fit(
    network: nn.Module, loss: Callable[[torch.Generator], Tensor], steps: int, rate: float, weight_decay: float, seed: int, purpose: str,
    label: str,
) -> None:  # fmt: skip
    """Minimise `loss` with AdamW under a one-cycle schedule that peaks at `rate`.

    loss: computes one step's loss. It draws examples and augmentation from the generator that it gets, which depends only on seed, purpose
    and step. label: of the progress line.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    for step in track(range(steps), steps, label):
        optimizer.zero_grad(set_to_none=True)
        loss(generator(seed, purpose, step)).backward()
        optimizer.step()
        schedule.step()


def varied(images: Tensor, rng: torch.Generator) -> Tensor:
    """Augment images (N, V, 3, H, W) in [-1, 1] with brightness, contrast, blur and noise: world models blur and shift colours."""
    count, views = images.shape[:2]

    def draw() -> Tensor:
        return torch.rand(count, 1, 1, 1, 1, generator=rng)

    blurred = F.avg_pool2d(F.pad(images.flatten(0, 1), (1, 1, 1, 1), mode="replicate"), 3, stride=1).unflatten(0, (count, views))
    images = torch.lerp(images, blurred, (draw() < 0.5) * draw())
    noise = 0.1 * (draw() < 0.3) * torch.randn(images.shape, generator=rng)
    return (images * (0.85 + 0.3 * draw()) + 0.2 * (draw() - 0.5) + noise).clamp(-1, 1)

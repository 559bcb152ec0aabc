"""Muon for matrices, AdamW for the rest (paper section 4: Muon; Jordan et al. 2024)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from persistworld.params import Optimizer as Settings


class MatrixOptimizer:
    """torch.optim.Muon on every parameter with two or more axes, flattened to a matrix, and AdamW on vectors.

    torch's Muon takes 2-D parameters only; a convolution kernel is handed over as a view (out, in * kernel) of itself.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: Settings) -> None:
        self.rate, self.clip_norm = settings.learning_rate, settings.clip_norm
        self.parameters = [p for p in parameters if p.requires_grad]
        matrices = [p for p in self.parameters if p.ndim >= 2] if settings.name == "muon" else []
        vectors = [p for p in self.parameters if not any(p is m for m in matrices)]
        self._views = [(p, nn.Parameter(p.data.view(p.shape[0], -1))) for p in matrices]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(
                torch.optim.Muon(
                    [view for _, view in self._views],
                    lr=settings.learning_rate,
                    weight_decay=settings.weight_decay,
                    adjust_lr_fn=settings.adjust_lr,
                )
            )
        if vectors:
            self._parts.append(
                torch.optim.AdamW(vectors, lr=settings.learning_rate, weight_decay=settings.weight_decay)
            )

    def step(self, rate_share: float = 1.0) -> float:
        """Clip, update at `rate_share` of the rate, clear the gradients; returns the norm before clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm).item()
        for parameter, view in self._views:
            view.grad = None if parameter.grad is None else parameter.grad.view_as(view)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = self.rate * rate_share
            part.step()
        for parameter in self.parameters:
            parameter.grad = None
        return norm

    def state_dict(self) -> dict[str, dict]:
        return {type(part).__name__: part.state_dict() for part in self._parts}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        for part in self._parts:
            part.load_state_dict(state[type(part).__name__])


def learning_rate_share(step: int, steps: int, warmup: int = 0, decay_from: float = 1.0) -> float:
    """Share of the full rate: a linear rise over `warmup` steps, constant, a linear fall to 0 after `decay_from` of the steps."""
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if decay_from >= 1:
        return rising
    return rising * min(1.0, (steps - step) / max(1.0, (1 - decay_from) * steps))


def ema_update(average: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * current, in place."""
    with torch.no_grad():
        for mean, value in zip(average, current, strict=True):
            mean.lerp_(value, 1 - decay)

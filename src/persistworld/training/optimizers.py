"""Muon for matrices, AdamW for the rest (paper section 4: Muon; Jordan et al. 2024)."""

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from persistworld.config.training import OptimizerConfig as Settings
from persistworld.runtime.errors import UserError


class Muon(torch.optim.Muon):
    """torch's Muon, but the Newton-Schulz iterations run in the gradient's precision and are batched over matrices of the same shape.

    torch runs them in bfloat16. Most CPUs only emulate bfloat16, which makes a step of the tabletop's base training eight times slower. The
    rounding also amplifies differences in summation order of the gradients, so that runs on one and on two processes drift apart.
    """

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            momentum, alike = group["momentum"], defaultdict(list)
            parameters = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in parameters]
            for parameter in parameters:
                if not self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            buffers = [self.state[p]["momentum_buffer"] for p in parameters]
            # One call for all matrices: many small kernels would leave a GPU idle.
            torch._foreach_lerp_(buffers, gradients, 1 - momentum)
            updates = torch._foreach_lerp(gradients, buffers, momentum) if group["nesterov"] else buffers
            for parameter, update in zip(parameters, updates, strict=True):
                alike[parameter.shape].append((parameter, update))
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for (rows, columns), pairs in alike.items():
                parameters, updates = zip(*pairs, strict=True)
                directions = orthogonalise(torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"])
                if group["adjust_lr_fn"] == "match_rms_adamw":
                    rate = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
                else:
                    rate = group["lr"] * math.sqrt(max(1, rows / columns))
                torch._foreach_sub_(parameters, (rate * directions).unbind())


def orthogonalise(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Move all singular values of matrices (N, A, B) near 1 with `steps` quintic Newton-Schulz iterations (Jordan et al. 2024)."""
    a, b, c = coefficients
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


class MatrixOptimizer:
    """Muon on every parameter with two or more axes, flattened to a matrix, and AdamW on vectors.

    torch's Muon takes 2-D parameters only, so a convolution kernel is passed as a view (out, in * kernel).
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
                Muon(
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
        """Clip the gradients, update with `rate_share` times the learning rate, clear the gradients. Returns the norm before clipping.

        Raises UserError if the norm is not finite: broken weights would be saved, and would be scored as black frames.
        """
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm).item()
        if not math.isfinite(norm):
            raise UserError(
                f"the gradient's norm is {norm}: the training diverged; lower optimizer.learning_rate (it is {self.rate:g}), or compute in "
                "float32 (precision). The state that was last saved is kept"
            )
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
    """Factor on the learning rate: linear warmup over `warmup` steps, constant, linear decay to 0 from the fraction `decay_from` on."""
    rising = min(1.0, (step + 1) / warmup) if warmup else 1.0
    if decay_from >= 1:
        return rising
    return rising * min(1.0, (steps - step) / max(1.0, (1 - decay_from) * steps))


def ema_update(average: Iterable[Tensor], current: Iterable[Tensor], decay: float) -> None:
    """average <- decay * average + (1 - decay) * current, in place."""
    with torch.no_grad():
        torch._foreach_lerp_(list(average), list(current), 1 - decay)

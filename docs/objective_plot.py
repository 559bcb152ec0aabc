"""Draws docs/objective.png: the theorem of docs/objective.md on a mixture of three Gaussians, with our own loss.

    python docs/objective_plot.py

Curves are the theorem's, by numerical integration; dots minimise a Monte Carlo estimate of the loss over samples that
were drawn, scored and noised as in training.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

from persistworld.post_training.objective import nft_loss

WEIGHTS, MEANS, WIDTHS = (0.35, 0.4, 0.25), (-2.0, 0.3, 2.2), (0.5, 0.6, 0.45)
SIGMA = 0.9
BETAS = {0.5: "#9ecae1", 1.0: "#3182bd", 2.0: "#08306b"}
SAMPLES, BINS = 4_000_000, 33
OLD, GOOD, BAD = "#444444", "#2a9d4a", "#c8502e"


def density(x0: Tensor) -> Tensor:
    """pi_old(x0), not normalised."""
    parts = zip(WEIGHTS, MEANS, WIDTHS, strict=True)
    return sum(w / s * torch.exp(-0.5 * ((x0 - m) / s) ** 2) for w, m, s in parts)


def reward_weight(x0: Tensor) -> Tensor:
    """r(x0): candidates near 1 are liked."""
    return torch.exp(-0.5 * ((x0 - 1.0) / 1.1) ** 2)


def posterior_means(x_sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha, mu_old, mu_plus and mu_minus at each x_sigma (N,), by a sum over a grid of x0."""
    x0 = torch.linspace(-7, 7, 4001, dtype=torch.float64)
    weight = density(x0) * torch.exp(-0.5 * ((x_sigma[:, None] - x0) / SIGMA) ** 2)
    weight = weight / weight.sum(dim=1, keepdim=True)
    r = reward_weight(x0)
    alpha = (weight * r).sum(dim=1)
    mu_plus, mu_minus = (weight * r * x0).sum(dim=1) / alpha, (weight * (1 - r) * x0).sum(dim=1) / (1 - alpha)
    return alpha, (weight * x0).sum(dim=1), mu_plus, mu_minus


def noised_samples() -> tuple[Tensor, Tensor]:
    """Candidates x0 ~ pi_old and x_sigma = x0 + sigma * noise, (SAMPLES,) each."""
    rng = torch.Generator().manual_seed(0)
    part = torch.multinomial(torch.tensor(WEIGHTS), SAMPLES, replacement=True, generator=rng)
    means, widths = torch.tensor(MEANS)[part], torch.tensor(WIDTHS)[part]
    x0 = means + widths * torch.randn(SAMPLES, generator=rng)
    return x0, x0 + SIGMA * torch.randn(SAMPLES, generator=rng)


def minimisers(beta: float, edges: Tensor) -> tuple[Tensor, Tensor]:
    """In each bin of x_sigma: its mean, and the shift of the reference's prediction that minimises the mean loss."""
    x0, x_sigma = noised_samples()
    bins = torch.bucketize(x_sigma, edges) - 1
    inside = (bins >= 0) & (bins < len(edges) - 1)
    x0, x_sigma, bins = x0[inside].double(), x_sigma[inside].double(), bins[inside]
    grid = torch.linspace(float(edges[0]), float(edges[-1]), 400, dtype=torch.float64)
    old = _interpolate(x_sigma, grid, posterior_means(grid)[1])

    def gradient(shift: float) -> Tensor:
        shifts = torch.full((len(edges) - 1,), shift, dtype=torch.float64, requires_grad=True)
        args = [t[:, None] for t in (old + shifts[bins], old, x0, reward_weight(x0))]
        nft_loss(*args, beta, "plain", torch.full_like(x0, SIGMA)).sum().backward()
        return shifts.grad

    at_zero, at_one = gradient(0.0), gradient(1.0)  # the loss is a parabola in each shift
    count = torch.zeros(len(edges) - 1, dtype=torch.float64).index_add_(0, bins, torch.ones_like(x0))
    mean = torch.zeros_like(count).index_add_(0, bins, x_sigma) / count
    return mean, -at_zero / (at_one - at_zero)


def _interpolate(x: Tensor, grid: Tensor, values: Tensor) -> Tensor:
    place = ((x - grid[0]) / (grid[1] - grid[0])).clamp(0, len(grid) - 1.001)
    low = place.long()
    return values[low] + (place - low) * (values[low + 1] - values[low])


def main() -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.9), constrained_layout=True)
    x0 = torch.linspace(-4, 4, 500, dtype=torch.float64)
    p, r = density(x0), reward_weight(x0)
    step = float(x0[1] - x0[0])
    left.plot(x0, p / p.sum() / step, color=OLD, label=r"$\pi_{old}$")
    left.plot(x0, p * r / (p * r).sum() / step, color=GOOD, label=r"$\pi^+ \propto r\,\pi_{old}$")
    left.plot(x0, p * (1 - r) / (p * (1 - r)).sum() / step, color=BAD, label=r"$\pi^- \propto (1-r)\,\pi_{old}$")
    left.plot(x0, r * 0.2, color="#bbbbbb", linestyle=":", label=r"$r$ (scaled)")
    left.set(xlabel=r"$x_0$", title="One reference, split by the reward", yticks=[])
    left.legend(frameon=False, fontsize=8)

    x_sigma = torch.linspace(-4, 4, 200, dtype=torch.float64)
    alpha, old, plus, minus = posterior_means(x_sigma)
    middle.plot(x_sigma, old, color=OLD, label=r"$\mu_{old}$")
    middle.plot(x_sigma, plus, color=GOOD, label=r"$\mu^+$")
    middle.plot(x_sigma, minus, color=BAD, label=r"$\mu^-$")
    middle.plot(x_sigma, old + 2 * alpha * (plus - old), color=BETAS[1.0], label=r"optimum, $\beta = 1$")
    middle.set(xlabel=r"$x_\sigma$", title=rf"Predictions of $x_0$ at $\sigma = {SIGMA}$")
    middle.legend(frameon=False, fontsize=8)

    edges = torch.linspace(-4, 4, BINS + 1)
    for beta, colour in BETAS.items():
        shift = 2 / beta * alpha * (plus - old)
        right.plot(x_sigma, shift, color=colour, label=rf"$(2/\beta)\,\Delta$, $\beta = {beta:g}$")
        right.plot(*minimisers(beta, edges), "o", color=colour, markersize=3.5)
    right.axhline(0, color="#dddddd", linewidth=1, zorder=0)
    right.set(xlabel=r"$x_\sigma$", title="Shift: by the theorem, and minimised loss (dots)")
    right.legend(frameon=False, fontsize=8)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_name("objective.png"), dpi=130)


if __name__ == "__main__":
    main()

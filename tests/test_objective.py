"""The objective against its own theorem (paper, appendix A), hand numbers and the formulas of DiffusionNFT."""

import pytest
import torch

from persistworld.post_training.objective import (
    advantages,
    branches,
    nft_loss,
    reward_weights,
    select_best_and_worst,
)
from persistworld.world_model import edm

WEIGHTINGS = ["plain", "edm", "self_normalised"]


def draws(seed: int = 0, count: int = 5) -> tuple[torch.Tensor, ...]:
    """theta's and old's predictions, candidates (count, 2, 3), reward weights (count, 1, 1) and sigma (count,)."""
    rng = torch.Generator().manual_seed(seed)
    theta, old, x0 = torch.randn(3, count, 2, 3, generator=rng, dtype=torch.float64)
    r = torch.rand(count, 1, 1, generator=rng, dtype=torch.float64)
    return theta, old, x0, r, torch.rand(count, generator=rng, dtype=torch.float64) + 0.2


def test_branches_are_mirror_images_around_the_reference():
    """Paper Eq. 12."""
    theta, old, *_ = draws()
    positive, negative = branches(theta, old, 0.3)
    torch.testing.assert_close(positive + negative, 2 * old)
    torch.testing.assert_close(positive - negative, 2 * 0.3 * (theta - old))


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.0])
def test_loss_by_the_formula(beta):
    """Eq. 2 written out sample by sample."""
    theta, old, x0, r, sigma = draws()
    loss = nft_loss(theta, old, x0, r, beta, "plain", sigma)
    for i in range(len(x0)):
        positive = ((1 - beta) * old[i] + beta * theta[i] - x0[i]).square().mean()
        negative = ((1 + beta) * old[i] - beta * theta[i] - x0[i]).square().mean()
        torch.testing.assert_close(loss[i], r[i].squeeze() * positive + (1 - r[i].squeeze()) * negative)


def test_self_normalised_by_the_formula():
    """Each branch over its own mean absolute error, the whole over beta; no error is no division by 0."""
    theta, old, x0, r, sigma = draws()
    theta[0] = old[0] = x0[0]
    loss = nft_loss(theta, old, x0, r, 0.5, "self_normalised", sigma)
    assert loss[0] < 1e-20
    for i in range(1, len(x0)):
        parts = [(branch[i] - x0[i]) for branch in branches(theta, old, 0.5)]
        positive, negative = (part.square().mean() / part.abs().mean() / 0.5 for part in parts)
        torch.testing.assert_close(loss[i], r[i].squeeze() * positive + (1 - r[i].squeeze()) * negative)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_at_the_reference_the_loss_does_not_depend_on_the_reward(weighting):
    _, old, x0, r, sigma = draws()
    losses = [nft_loss(old, old, x0, value, 0.7, weighting, sigma) for value in (r, 1 - r, torch.zeros_like(r))]
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_at_the_reference_the_gradient_is_proportional_to_2r_minus_1(weighting):
    _, old, x0, r, sigma = draws()

    def gradient(value: torch.Tensor) -> torch.Tensor:
        theta = old.clone().requires_grad_()
        nft_loss(theta, old, x0, value, 0.7, weighting, sigma).sum().backward()
        return theta.grad

    torch.testing.assert_close(gradient(r), (2 * r - 1) * gradient(torch.ones_like(r)))
    assert gradient(torch.full_like(r, 0.5)).abs().max() < 1e-12
    if weighting == "plain":  # 2 beta (2r - 1) (old - x0), over the mean's six elements
        torch.testing.assert_close(gradient(r), 2 * 0.7 * (2 * r - 1) * (old - x0) / 6)


def mixture(sigma: float, x_sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Places x0 on a fine grid, and pi_old(x0 | x_sigma) there: two Gaussians, conditioned by Bayes' rule."""
    x0 = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    prior = 0.6 * torch.exp(-0.5 * ((x0 + 1) / 0.5) ** 2) / 0.5 + 0.4 * torch.exp(-0.5 * ((x0 - 1.5) / 0.8) ** 2) / 0.8
    posterior = prior * torch.exp(-0.5 * ((x_sigma - x0) / sigma) ** 2)
    return x0, posterior / posterior.sum()


def minimiser(x0: torch.Tensor, weight: torch.Tensor, r: torch.Tensor, beta: float, weighting: str, sigma: float):
    """argmin over a constant prediction (D,) of the expected loss; x0, r: (N, D). The loss is a parabola in each place,
    so two gradients give it.
    """
    old = (weight[:, None] * x0).sum(0)

    def gradient(theta: torch.Tensor) -> torch.Tensor:
        theta = theta.requires_grad_()
        losses = nft_loss(theta.expand_as(x0), old.expand_as(x0), x0, r, beta, weighting, torch.full((len(x0),), sigma))
        (weight * losses).sum().backward()
        return theta.grad

    at_zero, at_one = gradient(torch.zeros_like(old)), gradient(torch.ones_like(old))
    return -at_zero / (at_one - at_zero)


@pytest.mark.parametrize("weighting", ["plain", "edm"])
@pytest.mark.parametrize(("beta", "sigma"), [(1.0, 0.7), (0.25, 0.7), (2.0, 0.3), (1.0, 3.0)])
def test_theorem_on_an_analytic_mixture(beta, sigma, weighting):
    """Eq. 28: the minimiser is mu_old + (2 / beta) Delta, with Delta from the positive and the negative posterior."""
    for x_sigma in (-2.0, 0.1, 1.0):
        x0, weight = mixture(sigma, torch.tensor(x_sigma))
        r = torch.sigmoid(2 * x0)  # a reward for being on the right
        alpha = (weight * r).sum()
        mu_old = (weight * x0).sum()
        mu_plus, mu_minus = (weight * r * x0).sum() / alpha, (weight * (1 - r) * x0).sum() / (1 - alpha)
        delta = alpha * (mu_plus - mu_old)
        torch.testing.assert_close(delta, (1 - alpha) * (mu_old - mu_minus))  # Eq. 26
        found = minimiser(x0[:, None], weight, r[:, None], beta, weighting, sigma)
        torch.testing.assert_close(found[0], mu_old + 2 / beta * delta)


def test_theorem_holds_coordinate_by_coordinate():
    """A reward of its own for each coordinate: each moves by 2 / beta times its own covariance with its own reward."""
    axis, weight = mixture(0.8, torch.tensor(0.3))
    axis, weight = axis[::40], weight[::40] / weight[::40].sum()
    x0 = torch.cartesian_prod(axis, axis)
    x0 = torch.stack([x0[:, 0], x0[:, 1] + 0.5 * x0[:, 0]], dim=1)  # correlated coordinates
    weight = torch.outer(weight, weight).flatten()
    r = torch.sigmoid(torch.stack([x0[:, 0] - x0[:, 1], -3 * x0[:, 1]], dim=1))  # each looks at what it likes
    mean = (weight[:, None] * x0).sum(0)
    covariance = (weight[:, None] * r * (x0 - mean)).sum(0)
    torch.testing.assert_close(minimiser(x0, weight, r, 0.5, "plain", 0.8), mean + 2 / 0.5 * covariance)


def test_advantages_and_reward_weights_by_hand():
    """Eq. 6 and 7 on 1, 2, 3, 6: mean 3, population standard deviation sqrt(14 / 4)."""
    rewards = torch.tensor([1.0, 2.0, 3.0, 6.0])
    torch.testing.assert_close(advantages(rewards, 0.0), torch.tensor([-2.0, -1.0, 0.0, 3.0]) / 3.5**0.5)
    weights = torch.tensor([0.0, 0.5 - 0.5 / 3.5**0.5, 0.5, 1.0])
    torch.testing.assert_close(reward_weights(rewards, 0.0), weights)
    torch.testing.assert_close(reward_weights(100 + 7 * rewards, 0.0), weights)  # neither scale nor level matters
    assert reward_weights(torch.ones(4), 1e-4).tolist() == [0.5] * 4  # no difference, no gradient


def test_finer_rewards_have_their_own_means_and_a_common_spread():
    """Two places with variances 1 and 9 / 16 of it: the spread is the root of their mean, and a place without difference gets 1/2."""
    place = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    rewards = torch.stack([5 + place, 2 + 0.75 * place, torch.full((4,), 7.0)], dim=1)
    spread = ((1 + 0.5625 + 0) / 3) ** 0.5
    expected = torch.stack([place, 0.75 * place, 0 * place], dim=1) / spread
    torch.testing.assert_close(advantages(rewards, 0.0), expected)
    found = reward_weights(rewards, 1e-4)
    assert found.min() >= 0 and found.max() <= 1 and found[:, 2].tolist() == [0.5] * 4


def test_each_view_has_a_spread_of_its_own():
    """Three views of 2 x 2 cells, one a thousand times as loud: each is normalised as if it were alone."""
    rewards = torch.randn(4, 5, 2, 3, 2, 2, generator=torch.Generator().manual_seed(0))  # K, frames, C, V, h, w
    rewards[:, :, :, 1] *= 1000
    alone = torch.stack([advantages(rewards[:, :, :, view], 1e-4) for view in range(3)], dim=3)
    stacked = rewards.flatten(3, 4)
    torch.testing.assert_close(advantages(stacked, 1e-4, views=3), alone.flatten(3, 4))
    assert advantages(stacked, 1e-4)[:, :, :, :2].abs().max() < 0.02  # one spread for all would silence the first view


def test_best_and_worst_by_hand():
    rewards = torch.tensor([0.3, -1.0, 5.0, 0.1, 2.0, 0.2])
    assert select_best_and_worst(rewards, 1).tolist() == [1, 2]
    assert select_best_and_worst(rewards, 2).tolist() == [1, 2, 3, 4]
    assert select_best_and_worst(rewards, 3).tolist() == select_best_and_worst(rewards, 0).tolist() == list(range(6))


def test_edm_preconditioning():
    """c_skip and c_out make a unit-variance target; the loss weight is 1 / c_out^2."""
    sigma = torch.tensor([0.002, 0.1, 1.0, 7.0, 700.0], dtype=torch.float64)
    torch.testing.assert_close(edm.loss_weight(sigma), 1 / edm.c_out(sigma) ** 2)
    torch.testing.assert_close(edm.c_skip(sigma) + edm.c_out(sigma) ** 2, torch.ones_like(sigma))
    torch.testing.assert_close(edm.c_in(sigma) ** 2, edm.c_skip(sigma))
    torch.testing.assert_close(edm.c_noise(sigma).exp() ** 4, sigma)
    x_sigma, output = torch.tensor(2.0).double(), torch.tensor(0.5).double()
    found = edm.predict_x0(output, x_sigma, torch.tensor(3.0).double())  # -3 / sqrt(10) / 2 + 2 / 10
    assert found.item() == pytest.approx(0.2 - 1.5 / 10**0.5)


def test_log_normal_sigma():
    rng = torch.Generator().manual_seed(0)
    logarithm = edm.sample_log_normal((20_000,), 0.7, 1.6, rng).log()
    assert logarithm.mean().item() == pytest.approx(0.7, abs=0.05)
    assert logarithm.std().item() == pytest.approx(1.6, abs=0.05)

"""Rewards against a naive computation with the public metrics, and where credit goes."""

import pytest
import torch
import torch.nn.functional as F
from tiny import VIEWS
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.config.post_training import RewardConfig
from persistworld.evaluation.frame_metrics import psnr, ssim
from persistworld.post_training.objective import reward_weights
from persistworld.post_training.rewards import RewardModel, latent_rewards
from persistworld.post_training.targets import decoded_images, raw_images
from persistworld.world_model.views import split_views, stack_views

K, CLIP = 3, 5


class FoldedPixels:
    """A decoder without a receptive field: 4 x 4 pixels of colour are the 48 channels of a cell."""

    device = torch.device("cpu")

    def decode(self, latents: Tensor) -> Tensor:
        return F.pixel_shuffle(latents, 4)


def model(autoencoder, perceptual, **reward) -> RewardModel:
    return RewardModel(autoencoder, perceptual, RewardConfig(**reward), VIEWS, ssim_window=7, precision="float32")


@pytest.fixture
def candidates(store) -> Tensor:
    """K noisy versions of the first frames of episode 0, (K, CLIP, 4, 12, 4)."""
    noise = torch.randn(K, CLIP, 4, 12, 4, generator=torch.Generator().manual_seed(0))
    return store.latents(0, range(CLIP)) + torch.tensor([0.1, 0.3, 0.5]).reshape(-1, 1, 1, 1, 1) * noise


def naive(rewards: RewardModel, candidates: Tensor, truth: Tensor) -> Tensor:
    """-w LPIPS + w SSIM + w PSNR of every candidate, frame and view, one image at a time: (K, CLIP, V)."""
    found = torch.empty(len(candidates), CLIP, len(VIEWS))
    s = rewards.settings
    for k, clip in enumerate(candidates):
        for frame, stacked in enumerate(clip):
            for view in range(len(VIEWS)):
                latents = torch.stack([stacked, truth[frame]])
                a, b = (rewards.autoencoder.decode(split_views(latents, 3)[:, view]).clamp(-1, 1) + 1).split(1)
                a, b = a / 2, b / 2
                lpips = rewards.perceptual(2 * a - 1, 2 * b - 1)
                found[k, frame, view] = (-s.lpips * lpips + s.ssim * ssim(a, b) + s.psnr * psnr(a, b)).item()
    return found


@pytest.mark.parametrize("view_weights", [{}, {"wrist": 4.0, "exterior_2": 0.0}])
def test_clip_reward_is_the_mean_over_frames_then_views(autoencoder, perceptual, store, candidates, view_weights):
    """Eq. 3-5; Table 8's weights, with 1 for a view that is not named."""
    rewards = model(autoencoder, perceptual, view_weights=view_weights)
    truth = store.latents(0, range(CLIP))
    found = rewards.score(candidates, rewards.target(decoded_images(store, rewards.decode)(0, range(CLIP))))
    weights = torch.tensor([view_weights.get(v, 1.0) for v in VIEWS])
    expected = (naive(rewards, candidates, truth).mean(dim=1) * weights).sum(dim=1) / weights.sum()
    torch.testing.assert_close(found.clip, expected, rtol=1e-4, atol=1e-5)
    assert found.credit.shape == (K, 1, 1, 1, 1) and torch.equal(found.credit.flatten(), found.clip)
    assert found.clip.argsort().tolist() == [2, 1, 0]  # less noise, more reward


def test_a_perfect_candidate_has_the_highest_possible_reward(autoencoder, perceptual, store):
    """SSIM 1, PSNR at its ceiling of 60 dB, LPIPS 0."""
    rewards = model(autoencoder, perceptual)
    truth = store.latents(0, range(CLIP))
    found = rewards.score(truth[None], rewards.target(rewards.decode(truth)))
    assert found.clip.item() == pytest.approx(1 + 60 / 32, abs=1e-4)


def test_credit_per_view_and_frame(autoencoder, perceptual, store, candidates):
    """The reward of a frame of a view stands at all its latents' rows."""
    rewards = model(autoencoder, perceptual, credit="view_frame")
    truth = store.latents(0, range(CLIP))
    found = rewards.score(candidates, rewards.target(rewards.decode(truth)))
    assert found.credit.shape == (K, CLIP, 1, 12, 1)
    rows = found.credit.reshape(K, CLIP, 3, 4)
    expected = naive(rewards, candidates, truth)[..., None].expand_as(rows)
    torch.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weights", [{"lpips": 0.0}, {}])
def test_credit_per_cell_goes_to_the_cell_that_is_better(perceptual, weights):
    """Two candidates that differ in one cell of one frame of the wrist view, where the second is right."""
    rewards = model(FoldedPixels(), perceptual, credit="cell", **weights)
    rng = torch.Generator().manual_seed(3)
    truth = stack_views(torch.rand(2, 3, 48, 8, 8, generator=rng) - 0.5)  # 2 frames, 3 views of 32 x 32 pixels
    candidates = truth + 0.05 * torch.randn(truth.shape, generator=rng)
    candidates = torch.stack([candidates, candidates])
    frame, row, column = 1, 2 * 8 + 1, 6
    candidates[1, frame, :, row, column] = truth[frame, :, row, column]
    found = rewards.score(candidates, rewards.target(rewards.decode(truth)))
    assert found.credit.shape == (2, 2, 1, 24, 8)
    r = reward_weights(found.credit, epsilon=1e-4)[:, :, 0]
    assert r[1, frame, row, column] > 0.98 and r[0, frame, row, column] < 0.02
    assert found.clip[1] > found.clip[0]
    other = torch.ones(2, 24, 8, dtype=torch.bool)
    reach = slice(None) if not weights else slice(column - 1, column + 2)  # SSIM's window reaches one cell further
    other[frame, row - 1 : row + 2, reach] = False
    if weights:
        assert (r[:, other] == 0.5).all()
    else:  # the perceptual network sees further, but neither another frame nor another view
        assert (r[:, 0] == 0.5).all() and (r[:, frame, :16] == 0.5).all()


@pytest.mark.parametrize(("weights", "more"), [({"lpips": 0.0, "ssim": 0.0, "psnr": 1.0}, 0.01), ({"ssim": 0.0, "psnr": 0.0}, 0.5)])
def test_cells_are_shares_of_the_clip(perceptual, weights, more):
    """The mean over cells ranks candidates as the clip's reward does, by as much to first order (PSNR), or exactly (LPIPS)."""
    rewards = model(FoldedPixels(), perceptual, credit="cell", **weights)
    truth = torch.zeros(1, 48, 24, 8)
    error = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    candidates = torch.stack([truth + 0.3 * error, truth + 0.3 * (1 + more) * error])
    found = rewards.score(candidates, rewards.target(rewards.decode(truth)))
    shares = found.credit.mean(dim=(1, 2, 3, 4))
    assert (shares[0] - shares[1]).item() == pytest.approx((found.clip[0] - found.clip[1]).item(), rel=2e-3)
    assert found.clip[0] > found.clip[1]


@pytest.mark.parametrize("weights", [{}, {"psnr": 0.0}, {"ssim": 0.0}])
def test_elements_share_what_a_candidate_has_over_the_mean(perceptual, weights):
    """Their sum is the difference between the candidate's reward and that of the group's mean latent.

    Without LPIPS: on noise, a network of four channels is no smooth function.
    """
    rewards = model(FoldedPixels(), perceptual, credit="element", lpips=0.0, **weights)
    rng = torch.Generator().manual_seed(0)
    truth, error = 0.2 * torch.randn(2, 2, 48, 24, 8, generator=rng)
    candidates = truth + torch.tensor([0.98, 1.0, 1.04]).reshape(3, 1, 1, 1, 1) * error
    target = rewards.target(rewards.decode(truth))
    found = rewards.score(candidates, target)
    mean = rewards.score(candidates.mean(dim=0, keepdim=True), target).clip
    frames_and_views = 2 * len(VIEWS)
    assert found.credit.shape == candidates.shape
    assert (found.credit.sum(dim=(1, 2, 3, 4)) / frames_and_views).tolist() == pytest.approx((found.clip - mean).tolist(), rel=0.02)


def test_an_elements_share_is_its_gradient_times_its_deviation(perceptual):
    rewards = model(FoldedPixels(), perceptual, credit="element")
    rng = torch.Generator().manual_seed(0)
    truth = torch.zeros(1, 48, 24, 8)
    candidates = 0.3 * torch.randn(2, *truth.shape, generator=rng)
    target, place = rewards.target(rewards.decode(truth)), (0, 5, 11, 3)
    found = rewards.score(candidates, target).credit
    mean, step = candidates.mean(dim=0), torch.zeros_like(truth)
    step[place] = 0.01
    halfway = (candidates[0] + mean) / 2
    higher, lower = rewards.score(torch.stack([halfway + step, halfway - step]), target).clip * len(VIEWS)
    slope = (higher - lower) / 0.02
    assert found[0][place].item() == pytest.approx((slope * (candidates[0] - mean)[place]).item(), rel=0.05)


def test_latent_credit_is_each_elements_own_error(store):
    truth = store.latents(0, range(CLIP))
    candidates = torch.stack([truth, truth])
    candidates[1, 2, 3, 7, 1] += 0.5
    found = latent_rewards(candidates, truth, views=3)
    assert found.credit[1, 2, 3, 7, 1].item() == pytest.approx(-0.25) and found.credit.count_nonzero() == 1
    assert found.clip.tolist() == [0.0, pytest.approx(-0.25 / truth.numel())]


class TwoEpisodes:
    """Six frames an episode, each of one colour: 20 * view + 3 * frame + 100 * episode; 10 frames a second."""

    views, fps = VIEWS, 10.0

    def frame_batches(self, index: int, view: str, stride: int, batch: int):
        colours = 20 * VIEWS.index(view) + 3 * torch.arange(6)[::stride] + 100 * index
        yield from colours.reshape(-1, 1, 1, 1).expand(-1, 4, 8, 3).to(torch.uint8).numpy()[None]


def test_raw_targets_are_the_data_sets_frames():
    """At the model's frame rate, view fastest, in [0, 1]."""
    settings = EpisodesConfig(height=4, width=8, fps=5.0)
    images = raw_images(TwoEpisodes(), settings)(1, [0, 2])
    assert images.shape == (6, 3, 4, 8)
    expected = [100 + 20 * view + 6 * frame for frame in (0, 2) for view in range(3)]
    assert (images[:, 1, 2, 3] * 255).round().int().tolist() == expected


def test_raw_targets_are_kept_up_to_a_number_of_bytes():
    """Of the episodes used last as many as fit, and always the one that is asked for."""

    class Counting(TwoEpisodes):
        read: tuple[int, ...] = ()

        def frame_batches(self, index: int, view: str, stride: int, batch: int):
            self.read += (index,) if view == VIEWS[0] else ()
            yield from super().frame_batches(index, view, stride, batch)

    settings, each = EpisodesConfig(height=4, width=8, fps=5.0), 3 * 3 * 4 * 8 * 3  # frames, views, pixels, colours
    for room, read in ((2 * each, (0, 1, 2, 1)), (3 * each, (0, 1, 2)), (1, (0, 1, 0, 2, 0, 1))):
        source = Counting()
        images = raw_images(source, settings, room)
        for episode in (0, 1, 0, 2, 0, 1):
            images(episode, [0])
        assert source.read == read


def test_decoded_targets_are_what_the_autoencoder_makes_of_the_latents(autoencoder, perceptual, store):
    rewards = model(autoencoder, perceptual)
    images = decoded_images(store, rewards.decode)(2, [4, 1])
    assert images.shape == (6, 3, 16, 16) and images.min() >= 0 and images.max() <= 1
    one = autoencoder.decode(split_views(store.latents(2, [1]), 3)[:, 2])
    torch.testing.assert_close(images[5:], (one.clamp(-1, 1) + 1) / 2, rtol=1e-4, atol=1e-5)

"""Trains the small autoencoder of the tabletop preset. The full-scale setting uses SVD's pretrained autoencoder."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from persistworld.config.training import BaseTrainingConfig
from persistworld.config.world_model import AutoencoderConfig as Sizes
from persistworld.runtime.distributed import device
from persistworld.runtime.progress import track
from persistworld.runtime.randomness import generator, normal
from persistworld.training.optimizers import MatrixOptimizer, learning_rate_share
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.model import autocast
from persistworld.world_model.views import images_to_float

KL_WEIGHT = 1e-4  # per latent dimension: keeps the latents near unit scale without hurting reconstruction


def train_autoencoder(frames: Tensor, sizes: Sizes, training: BaseTrainingConfig, seed: int) -> Autoencoder:
    """Fit an autoencoder to `frames` (N, H, W, 3) uint8 with a pixel loss and a KL penalty.

    The scaling factor of the returned autoencoder gives the latents of the training frames unit variance, as in SVD.
    """
    torch.manual_seed(seed)
    place = device()
    autoencoder = Autoencoder(sizes).to(place)
    optimizer = MatrixOptimizer(autoencoder.parameters(), training.autoencoder_optimizer)
    steps = training.autoencoder_steps
    for step in track(range(steps), steps, "autoencoder"):
        chosen = torch.randint(len(frames), (training.autoencoder_batch,), generator=generator(seed, "frames", step))
        images = images_to_float(frames[chosen].to(place))
        with autocast(place, training.precision):
            mean, std = autoencoder.moments(images)
            latents = mean + std * normal(tuple(mean.shape), seed, "posterior", step).to(place)
            decoded = autoencoder.decode(latents * sizes.scaling_factor).float()
        mean, std = mean.float(), std.float()
        divergence = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).mean()
        loss = F.l1_loss(decoded, images) + 2 * F.mse_loss(decoded, images) + KL_WEIGHT * divergence
        loss.backward()
        optimizer.step(learning_rate_share(step, steps, 50, training.autoencoder_optimizer.decay_from))
        if (step + 1) % 200 == 0:
            psnr = -10 * (F.mse_loss(decoded.detach(), images) / 4).log10()
            print(f"autoencoder step {step + 1}: {psnr:.2f} dB, KL {divergence:.3f}", flush=True)
    return _scaled(autoencoder, frames[:: max(1, len(frames) // 512)])


@torch.no_grad()
def _scaled(autoencoder: Autoencoder, frames: Tensor) -> Autoencoder:
    mean, _ = autoencoder.moments(images_to_float(frames))
    scaled = Autoencoder(dataclasses.replace(autoencoder.sizes, scaling_factor=round(1 / mean.std().item(), 5)))
    scaled.load_state_dict(autoencoder.state_dict())
    return scaled.eval().requires_grad_(False)

"""The image autoencoder: a small interface to diffusers' AutoencoderKLTemporalDecoder (SVD's class).

Images are encoded one by one. The latents of V views are stacked along the height, as in Ctrl-World.
"""

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from persistworld.config.reading import build_section
from persistworld.config.world_model import AutoencoderConfig
from persistworld.runtime.files import read_json, write_json
from persistworld.runtime.tensor_files import load_weights, write_tensors
from persistworld.world_model.views import images_to_uint8, split_views

WEIGHTS, CONFIG = "autoencoder.safetensors", "autoencoder.json"


class Autoencoder(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] <-> scaled latents (N, C, H / f, W / f), with f = patch * 2^(levels - 1).

    Takes tensors from any device. The results are on the autoencoder's device.
    """

    def __init__(self, sizes: AutoencoderConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.vae = AutoencoderKLTemporalDecoder(
            in_channels=3 * sizes.patch**2,
            out_channels=3 * sizes.patch**2,
            down_block_types=("DownEncoderBlock2D",) * len(sizes.channels),
            block_out_channels=tuple(sizes.channels),
            layers_per_block=sizes.layers,
            latent_channels=sizes.latent_channels,
            scaling_factor=sizes.scaling_factor,
        )

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along each axis."""
        return self.sizes.factor

    @property
    def device(self) -> torch.device:
        return self.vae.encoder.conv_in.weight.device

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior, unscaled. images: (N, 3, H, W) in [-1, 1]; returns two (N, C, h, w)."""
        posterior = self.vae.encode(F.pixel_unshuffle(images.to(self.device), self.sizes.patch)).latent_dist
        return posterior.mean, posterior.std

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (N, C, h, w): the posterior's mean, or mean + std * noise when `noise` (same shape) is given."""
        mean, std = self.moments(images)
        return self.sizes.scaling_factor * (mean if noise is None else mean + std * noise.to(self.device))

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, 3, H, W), about [-1, 1] and not clipped, from scaled latents (N, C, h, w). Each frame is decoded independently."""
        decoded = self.vae.decode(latents.to(self.device) / self.sizes.scaling_factor, num_frames=1).sample
        return F.pixel_shuffle(decoded, self.sizes.patch)


@torch.no_grad()
def decode_views(autoencoder: Autoencoder, stacked: Tensor, views: int, batch: int = 128) -> Tensor:
    """Stacked latents (T, C, V * h, w) -> uint8 frames (T, V, H, W, 3) on the CPU, `batch` images at a time."""
    latents = split_views(stacked, views).flatten(0, 1)
    frames = torch.cat([images_to_uint8(autoencoder.decode(part)).cpu() for part in latents.split(batch)])
    return frames.reshape(stacked.shape[0], views, *frames.shape[1:])


def save_autoencoder(autoencoder: Autoencoder, folder: Path, half: bool = False) -> None:
    """Write weights (float16 when `half`) and sizes into `folder`."""
    write_tensors(autoencoder.state_dict(), folder / WEIGHTS, half)
    write_json(folder / CONFIG, dataclasses.asdict(autoencoder.sizes))


def load_autoencoder(folder: str | Path) -> Autoencoder:
    """Load the autoencoder of a checkpoint folder in float32 and evaluation mode. Raises UserError for missing or wrong keys."""
    folder = Path(folder)
    sizes = build_section(AutoencoderConfig, read_json(folder / CONFIG), CONFIG)
    with init_empty_weights(include_buffers=False):
        autoencoder = Autoencoder(sizes)
    load_weights(autoencoder, folder / WEIGHTS)
    return autoencoder.eval().requires_grad_(False)

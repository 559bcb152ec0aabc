"""The image autoencoder: diffusers' AutoencoderKLTemporalDecoder (SVD's class) behind one small interface.

Images are encoded one by one; a stack of V views is V latents on top of each other along the height, as Ctrl-World stacks them.
"""

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from persistworld import params
from persistworld.errors import UserError
from persistworld.files import atomic_path, read_json, write_json

WEIGHTS, CONFIG = "autoencoder.safetensors", "autoencoder.json"


class Autoencoder(nn.Module):
    """Images (N, 3, H, W) in [-1, 1] <-> scaled latents (N, C, H / f, W / f), with f = patch * 2^(levels - 1)."""

    def __init__(self, sizes: params.Autoencoder) -> None:
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
        return self.sizes.patch * 2 ** (len(self.sizes.channels) - 1)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the posterior, unscaled. images: (N, 3, H, W) in [-1, 1]; returns two (N, C, h, w)."""
        posterior = self.vae.encode(F.pixel_unshuffle(images, self.sizes.patch)).latent_dist
        return posterior.mean, posterior.std

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (N, C, h, w): the posterior's mean, or mean + std * noise when `noise` (same shape) is given."""
        mean, std = self.moments(images)
        return self.sizes.scaling_factor * (mean if noise is None else mean + std * noise)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (N, 3, H, W), about [-1, 1] and not clipped, from scaled latents (N, C, h, w), each frame on its own."""
        decoded = self.vae.decode(latents / self.sizes.scaling_factor, num_frames=1).sample
        return F.pixel_shuffle(decoded, self.sizes.patch)


def stack_views(latents: Tensor) -> Tensor:
    """(..., V, C, h, w) -> (..., C, V * h, w): the views on top of each other."""
    *lead, views, channels, height, width = latents.shape
    return latents.transpose(-4, -3).reshape(*lead, channels, views * height, width)


def split_views(stacked: Tensor, views: int) -> Tensor:
    """(..., C, V * h, w) -> (..., V, C, h, w), the inverse of `stack_views`."""
    *lead, channels, height, width = stacked.shape
    return stacked.reshape(*lead, channels, views, height // views, width).transpose(-4, -3)


def images_to_float(frames: Tensor) -> Tensor:
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W) in [-1, 1]."""
    return frames.movedim(-1, -3).float() / 127.5 - 1


def images_to_uint8(images: Tensor) -> Tensor:
    """float (..., 3, H, W) in [-1, 1], clipped -> uint8 (..., H, W, 3)."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).movedim(-3, -1)


@torch.no_grad()
def decode_views(autoencoder: Autoencoder, stacked: Tensor, views: int, batch: int = 128) -> Tensor:
    """Stacked latents (T, C, V * h, w) -> uint8 frames (T, V, H, W, 3), `batch` images at a time."""
    latents = split_views(stacked, views).flatten(0, 1)
    frames = torch.cat([images_to_uint8(autoencoder.decode(part)) for part in latents.split(batch)])
    return frames.reshape(stacked.shape[0], views, *frames.shape[1:])


def save_autoencoder(autoencoder: Autoencoder, folder: Path, half: bool = False) -> None:
    """Write weights (float16 when `half`) and sizes into `folder`."""
    write_tensors(autoencoder.state_dict(), folder / WEIGHTS, half)
    write_json(folder / CONFIG, dataclasses.asdict(autoencoder.sizes))


def load_autoencoder(folder: str | Path) -> Autoencoder:
    """The autoencoder of a checkpoint folder, in float32 and evaluation mode. Raises UserError on missing or wrong keys."""
    folder = Path(folder)
    sizes = params.build_section(params.Autoencoder, read_json(folder / CONFIG), CONFIG)
    autoencoder = Autoencoder(sizes)
    load_weights(autoencoder, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return autoencoder.eval().requires_grad_(False)


def write_tensors(tensors: dict[str, Tensor], path: Path, half: bool = False) -> None:
    """Write a safetensors file atomically; floating tensors as float16 when `half`: a shipped checkpoint is half the size."""
    with atomic_path(path) as part:
        save_file({k: _stored(v, half) for k, v in tensors.items()}, part)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file's tensors, floating ones as float32. Raises UserError when it is missing or damaged."""
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it first") from None
    except Exception as error:  # safetensors raises its own Rust-side type
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or make it again") from None
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def load_weights(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load `tensors` into `module`; anything missing, left over or of another shape is one UserError that names it."""
    own = module.state_dict()
    for problem, names in (
        ("missing", own.keys() - tensors.keys()),
        ("not known to this model", tensors.keys() - own.keys()),
        ("of another shape", {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape}),
    ):
        if names:
            some = ", ".join(sorted(names)[:3])
            raise UserError(f"{path}: {len(names)} keys {problem}, e.g. {some}; is this the checkpoint of another model?")
    module.load_state_dict(tensors)


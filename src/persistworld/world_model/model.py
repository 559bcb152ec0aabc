"""The world model: U-Net, action encoder and instruction encoder (Ctrl-World's architecture).

Latents are scaled and stacked by height: (C, V * h, w). The model sees H history frames and L future frames. The first
future frame is the current frame.
"""

import contextlib
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from persistworld.config.world_model import SamplerConfig, WorldModelConfig
from persistworld.world_model import edm
from persistworld.world_model.action_encoder import ActionEncoder
from persistworld.world_model.poses import PoseStatistics
from persistworld.world_model.sampler import euler_sample, guidance_scale
from persistworld.world_model.text import InstructionEncoder
from persistworld.world_model.unet import build_unet

FPS, MOTION_BUCKET = 7, 127  # SVD's added_time_ids, with the values of Ctrl-World


@dataclass(frozen=True)
class Condition:
    """The condition of a chunk, before encoding.

    history: (B, H, C, Vh, w) and current: (B, C, Vh, w), scaled latents; poses: (B, H + L, D), normalised; text: (B, E)
    or None.
    """

    history: Tensor
    current: Tensor
    poses: Tensor
    text: Tensor | None

    def take(self, index: Tensor | slice) -> "Condition":
        return Condition(*(None if t is None else t[index] for t in (self.history, self.current, self.poses, self.text)))


@dataclass(frozen=True)
class Context:
    """An encoded condition: the action encoder's tokens (B, H + L, D) replace poses and text."""

    history: Tensor
    current: Tensor
    tokens: Tensor


class WorldModel(nn.Module):
    """An action-conditioned, multi-view latent video diffusion model."""

    def __init__(
        self,
        config: WorldModelConfig,
        views: Sequence[str],
        statistics: PoseStatistics,
        text_encoder: InstructionEncoder | None,
    ) -> None:
        super().__init__()
        self.config, self.views, self.statistics = config, tuple(views), statistics
        sizes = config.autoencoder
        self.scaling_factor = sizes.scaling_factor
        self.unet = build_unet(config.unet, sizes.latent_channels, config.history + config.future)
        self.action_encoder = ActionEncoder(len(statistics.low), config.unet.cross_attention_dim)
        self.text_encoder = text_encoder

    @property
    def device(self) -> torch.device:
        """The device of the model. Conditions and noise must be on it."""
        return self.unet.conv_in.weight.device

    def encode_instructions(self, sentences: Sequence[str]) -> Tensor | None:
        """(B, E) embeddings without gradient, or None if the model takes no text."""
        if self.text_encoder is None:
            return None
        with torch.no_grad():
            return self.text_encoder(sentences).clone()

    def normalise_poses(self, poses: ArrayLike) -> Tensor:
        """Poses (..., P) in m, rad, 0..1, on the CPU -> (..., D) in [-1, 1], on the model's device; see `PoseStatistics.normalise`."""
        poses = np.asarray(poses)
        found = self.statistics.normalise(poses.reshape(-1, poses.shape[-1]))
        return torch.from_numpy(found.reshape(*poses.shape[:-1], -1)).to(self.device)

    def context(self, condition: Condition) -> Context:
        """Encode a condition's poses and text. Called once per chunk, not once per sampler step."""
        tokens = self.action_encoder(condition.poses, condition.text)
        return Context(condition.history, condition.current, tokens)

    def predict_x0(self, x_sigma: Tensor, sigma: Tensor, context: Context, noise_aug: float = 0.0) -> Tensor:
        """Predict the clean future from x_sigma (paper Eq. 8).

        x_sigma: (B, L, C, Vh, w) = x0 + sigma * noise; sigma: (B,). The history, clean or already rescaled, precedes the
        future along the frame axis. The current frame, divided by the scaling factor, is repeated over all frames and
        concatenated along the channels (Ctrl-World's convention).
        """
        s = sigma.reshape(-1, 1, 1, 1, 1)
        frames = torch.cat([context.history, x_sigma * edm.c_in(s)], dim=1)
        current = (context.current / self.scaling_factor)[:, None].expand(-1, frames.shape[1], -1, -1, -1)
        # Created on the model's device: a copy from the CPU would stall a GPU in every sampler step.
        ids = torch.stack([torch.full_like(sigma, value) for value in (FPS, MOTION_BUCKET, noise_aug)], dim=1)
        output = self.unet(torch.cat([frames, current], dim=2), edm.c_noise(sigma), context.tokens, ids)
        return edm.predict_x0(output[:, context.history.shape[1] :].float(), x_sigma, s)

    @torch.no_grad()
    def sample(self, condition: Condition, noise: Tensor, sampler: SamplerConfig, precision: str = "float32") -> Tensor:
        """Sample future latents (B, L, C, Vh, w) from unit-variance `noise` of the same shape."""
        batch, frames = noise.shape[:2]
        scale = guidance_scale(sampler, frames).to(noise.device)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            level = sigma.expand(batch)
            x0 = self.predict_x0(x, level, context, sampler.noise_aug)
            if uncondition is None:
                return x0
            free = self.predict_x0(x, level, uncondition, sampler.noise_aug)
            return free + scale * (x0 - free)

        with autocast(noise.device, precision):
            context = self.context(condition)
            uncondition = None
            if sampler.guidance > 1:
                uncondition = Context(context.history, context.current, torch.zeros_like(context.tokens))
            return euler_sample(denoise, noise, sampler)

    @torch.no_grad()
    def sample_chunk(
        self,
        history: Tensor,
        current: Tensor,
        poses: np.ndarray,
        instructions: Sequence[str] | None = None,
        sampler: SamplerConfig | None = None,
        noise: Tensor | None = None,
        precision: str = "float32",
    ) -> Tensor:
        """Sample one chunk from raw inputs: L future latents (B, L, C, Vh, w). The first repeats the current frame.

        history: (B, H, C, Vh, w) and current: (B, C, Vh, w), scaled latents; poses: (B, H + L, 7) in m, rad, 0..1;
        instructions: B sentences (default: empty); sampler: default SVD's 50 steps, which do not suit a tabletop
        checkpoint; noise: (B, L, C, Vh, w), unit variance (default: drawn from torch's global generator).
        """
        batch = current.shape[0]
        text = self.encode_instructions(instructions or [""] * batch)
        if noise is None:
            noise = torch.randn(batch, self.config.future, *current.shape[1:], device=current.device)
        condition = Condition(history, current, self.normalise_poses(poses), text)
        return self.sample(condition, noise, sampler or SamplerConfig(), precision)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager:
    """bfloat16 autocast, or a null context for float32."""
    if precision == "float32":
        return contextlib.nullcontext()
    if device.type == "cpu":
        warn_of_emulation()
    return torch.autocast(device.type, torch.bfloat16)


@functools.cache
def warn_of_emulation() -> None:
    """Print one warning if the CPU has no native bfloat16 matrix products."""
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        print("precision: bfloat16 is emulated on this processor, ten times slower than float32 here", file=sys.stderr, flush=True)



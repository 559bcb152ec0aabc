"""Tiny sizes and random parts of real classes that the tests share. Weights are random, latents smooth; nothing is trained."""

import math

import numpy as np
import torch

from persistworld.config.world_model import (
    AutoencoderConfig,
    RolloutConfig,
    SamplerConfig,
    TextEncoderConfig,
    UNetConfig,
    WorldModelConfig,
)
from persistworld.world_model.model import WorldModel
from persistworld.world_model.poses import pose_statistics
from persistworld.world_model.text import InstructionEncoder, train_tokenizer

VIEWS = ("exterior_1", "exterior_2", "wrist")
HISTORY_INDEX = (0, 0, -8, -6, -4, -2)
FRAMES = 33  # of every episode: room for 8 chunks
INSTRUCTIONS = ("push the red cube", "lift the blue cup", "", "push the cup left")
# 16 x 16 pixels a view become 4 x 4 cells of 4 channels; three views stacked: (4, 12, 4).
SIZES = WorldModelConfig(
    autoencoder=AutoencoderConfig(patch=4, latent_channels=4, channels=(32,), layers=1, scaling_factor=0.5),
    unet=UNetConfig(channels=(32, 32), heads=(1, 2), layers=1, cross_attention_dim=32, addition_time_embed_dim=16),
    text_encoder=TextEncoderConfig(hidden=16, layers=1, heads=1, projection=16, vocabulary=40, length=8),
    rotation="continuous",
)
LATENT_SHAPE = (4, 12, 4)
SAMPLER = SamplerConfig(steps=2, sigma_max=20.0, sigma_min=0.3)
ROLLOUT = RolloutConfig(sampler=SAMPLER, history_index=HISTORY_INDEX, precision="float32")


def random_poses(episode: int) -> np.ndarray:
    """A smooth path, (FRAMES, 7) float32 in m, rad, 0..1."""
    rng = np.random.default_rng(episode)
    phase = np.linspace(0, 3, FRAMES)[:, None] + rng.uniform(0, 6, 7)
    parts = [0.3 * np.sin(phase[:, :3]), np.sin(phase[:, 3:6]), np.cos(phase[:, 6:]) ** 2]
    return np.concatenate(parts, axis=1).astype(np.float32)


def random_latents(episode: int) -> torch.Tensor:
    """Latents that change slowly over time, (FRAMES, 4, 12, 4)."""
    rng = torch.Generator().manual_seed(episode)
    first, last = torch.randn(2, *LATENT_SHAPE, generator=rng)
    angle = torch.linspace(0, math.pi / 2, FRAMES).reshape(-1, 1, 1, 1)
    return angle.cos() * first + angle.sin() * last


def make_model(seed: int, use_text: bool = True) -> WorldModel:
    """A frozen world model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    text = None
    if use_text:
        text = InstructionEncoder(SIZES.text_encoder, train_tokenizer(INSTRUCTIONS, SIZES.text_encoder))
    statistics = pose_statistics(np.concatenate([random_poses(e) for e in range(4)]), SIZES.rotation)
    return WorldModel(SIZES, VIEWS, statistics, text).eval().requires_grad_(False)

"""Reads frames at the frame rate and size of the world model."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import EpisodeSource, frame_stride

FEW = 4  # images that are resized at once: their floats fit in the CPU cache, which is three times as fast as a whole batch


def resized_batches(source: EpisodeSource, index: int, settings: EpisodesConfig, view: str, batch: int) -> Iterator[Tensor]:
    """One view at the frame rate and size of the world model, in batches (B, H, W, 3) uint8 with B = `batch`; the last may be smaller.

    Raises BadEpisode when it reaches a frame that cannot be decoded, and at the end when the video has another length.
    """
    size = (settings.height, settings.width)
    for part in source.frame_batches(index, view, frame_stride(source.fps, settings.fps), batch):
        frames = torch.from_numpy(part)
        yield frames if frames.shape[1:3] == size else torch.cat([resized(few, size) for few in frames.split(FEW)])


def resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (T, h, w, 3) -> uint8 (T, *size, 3), bilinear with antialiasing."""
    images = F.interpolate(frames.movedim(-1, 1).float(), size, mode="bilinear", antialias=True, align_corners=False)
    return images.round().clamp(0, 255).to(torch.uint8).movedim(1, -1)


def resized_frames(source: EpisodeSource, index: int, settings: EpisodesConfig, view: str) -> Tensor:
    """All frames of the view, (T, H, W, 3) uint8. Raises BadEpisode."""
    return torch.cat(list(resized_batches(source, index, settings, view, batch=64)))

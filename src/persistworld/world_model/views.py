"""Converts images between uint8 and float, and stacks views by height as in Ctrl-World. Needs no model and none of its libraries."""

import torch
from torch import Tensor


def stack_views(latents: Tensor) -> Tensor:
    """(..., V, C, h, w) -> (..., C, V * h, w): views stacked by height."""
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

"""Evaluation rollouts: replay the recorded poses in the model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from persistworld.config.world_model import RolloutConfig
from persistworld.rollouts.rollout import Rollout, Starts
from persistworld.world_model.model import WorldModel


def rollout(
    model: WorldModel, starts: Starts, poses: Tensor, episodes: Sequence[int], seed: int, settings: RolloutConfig, rows: int = 0
) -> Tensor:
    """All distinct frames (B, chunks * (L - 1) + 1, C, Vh, w) of one rollout per start.

    poses: (B, chunks * (L - 1), P) after the first frame, in m, rad, 0..1. The noise depends only on (seed, episode, chunk): not on the
    model, the batch size or the other rollouts of the batch. `rows` pads the batch to a fixed size for a compiled model
    (`compilation.compile_unet`), which would be recompiled for another size.
    """
    new = model.config.future - 1
    places = [*range(len(episodes)), *[len(episodes) - 1] * (rows - len(episodes))]
    batch = Rollout(model, settings)
    batch.reset(starts.take(places), [(seed, "rollout", episodes[place]) for place in places])
    parts = []
    for chunk in range(settings.chunks):
        frames = batch.step(poses[places, new * chunk : new * (chunk + 1)])
        parts.append(frames if not parts else frames[:, 1:])
    return torch.cat(parts, dim=1)[: len(episodes)]

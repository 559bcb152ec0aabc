"""Starts and poses of rollouts that replay recorded episodes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.rollouts.rollout import Starts
from persistworld.world_model.model import WorldModel


def starts_of(model: WorldModel, store: LatentStore, episodes: Sequence[Entry], rows: Sequence[int] | None = None) -> Starts:
    """One start per episode, at frame `rows` of each (default: 0). Latents and text are on the model's device."""
    frames = [(entry.index, [row]) for entry, row in zip(episodes, rows or [0] * len(episodes), strict=True)]
    return Starts(
        first=torch.cat([store.latents(*frame) for frame in frames]).to(model.device),
        pose=torch.cat([store.poses(*frame) for frame in frames]),
        text=model.encode_instructions([entry.instruction for entry in episodes]),
    )


def poses_after(store: LatentStore, episodes: Sequence[Entry], count: int, rows: Sequence[int] | None = None) -> Tensor:
    """(B, count, P): the recorded poses of the `count` frames that follow frame `rows` of each episode (0 by default)."""
    begins = rows or [0] * len(episodes)
    return torch.stack([store.poses(e.index, range(row + 1, row + 1 + count)) for e, row in zip(episodes, begins, strict=True)])

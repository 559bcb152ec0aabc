"""Starting points from the data: first latent, poses to replay, instruction."""

from collections.abc import Sequence

import torch

from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.rollouts.engine import Starts
from persistworld.world_model.model import WorldModel


def starts_of(
    model: WorldModel, store: LatentStore, episodes: Sequence[Entry], frames: int, first_rows: Sequence[int] | None = None
) -> Starts:
    """One start per episode, on the model's device: `frames` poses from `first_rows` (0 by default), the latent of that first frame."""
    rows = first_rows or [0] * len(episodes)
    poses = [store.poses(e.index, range(r, r + frames)).numpy() for e, r in zip(episodes, rows, strict=True)]
    return Starts(
        first=torch.cat([store.latents(e.index, [r]) for e, r in zip(episodes, rows, strict=True)]).to(model.device),
        poses=torch.stack([torch.from_numpy(model.statistics.normalise(p)) for p in poses]).to(model.device),
        text=model.encode_instructions([e.instruction for e in episodes]),
    )

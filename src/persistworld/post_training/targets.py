"""Ground-truth images that candidates are scored against: the dataset's frames, or what the autoencoder makes of them."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from persistworld import params
from persistworld.data.episodes import EpisodeSource
from persistworld.data.latents import LatentStore, resized_frames

# (episode, rows) -> images (len(rows) * V, 3, H, W) in [0, 1], view fastest
TargetImages = Callable[[int, Sequence[int]], Tensor]

CACHED_EPISODES = 128  # 2 MB each at tabletop size; decoding a video again costs more than a reward


def decoded_images(store: LatentStore, decode: Callable[[Tensor], Tensor]) -> TargetImages:
    """Images decoded from the ground truth's latents by `decode` (RewardModel.decode)."""
    return lambda episode, rows: decode(store.latents(episode, rows))


def raw_images(source: EpisodeSource, settings: params.Episodes) -> TargetImages:
    """The dataset's own frames."""

    @lru_cache(maxsize=CACHED_EPISODES)
    def frames(episode: int) -> Tensor:
        return torch.stack([resized_frames(source, episode, settings, v) for v in settings.views], dim=1)

    def images(episode: int, rows: Sequence[int]) -> Tensor:
        chosen = frames(episode)[list(rows)].flatten(0, 1)
        return chosen.movedim(-1, 1).float() / 255

    return images

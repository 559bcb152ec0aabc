"""Ground-truth images for scoring candidates: the dataset's frames, or their reconstructions by the autoencoder."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import EpisodeSource
from persistworld.data.frames import resized_frames
from persistworld.data.latents import LatentStore

# (episode, rows) -> images (len(rows) * V, 3, H, W) in [0, 1], view fastest
TargetImages = Callable[[int, Sequence[int]], Tensor]

CACHED_BYTES = 2**30  # per process; an episode takes 1 MB (tabletop) or 50 MB (DROID); decoding a video costs more than a reward


def decoded_images(store: LatentStore, decode: Callable[[Tensor], Tensor]) -> TargetImages:
    """Images that `decode` (RewardModel.decode) makes from the ground-truth latents."""
    return lambda episode, rows: decode(store.latents(episode, rows))


def raw_images(source: EpisodeSource, settings: EpisodesConfig, cached_bytes: int = CACHED_BYTES) -> TargetImages:
    """The dataset's frames. The most recently used episodes are cached, up to `cached_bytes`."""
    kept: OrderedDict[int, Tensor] = OrderedDict()  # most recently used last

    def frames(episode: int) -> Tensor:
        if episode not in kept:
            kept[episode] = torch.stack([resized_frames(source, episode, settings, v) for v in settings.views], dim=1)
            while len(kept) > 1 and sum(each.nbytes for each in kept.values()) > cached_bytes:
                kept.popitem(last=False)
        kept.move_to_end(episode)
        return kept[episode]

    def images(episode: int, rows: Sequence[int]) -> Tensor:
        chosen = frames(episode)[list(rows)].flatten(0, 1)
        return chosen.movedim(-1, 1).float() / 255

    return images

"""Masks that the simulator recorded with the episodes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT, BadEpisode, EpisodeSource, frame_stride
from persistworld.evaluation.masks import ViewMasks


class SimulatorMasks:
    """The recorded labels, subsampled to the world model's frame rate and resized to its frame size (nearest neighbour)."""

    def __init__(self, episodes: EpisodeSource, settings: EpisodesConfig, frames: int | None = None) -> None:
        self._episodes, self._settings, self._frames = episodes, settings, frames

    def masks(self, index: int, view: str) -> ViewMasks:
        """One view of one episode. Raises BadEpisode when the episode has no masks."""
        labels = self._episodes.masks(index)
        if labels is None:
            raise BadEpisode(index, "carries no masks, as simulated ones do; set masks.source to roboengine or none")
        stride = frame_stride(self._episodes.fps, self._settings.fps)
        thinned = torch.from_numpy(labels[::stride, self._episodes.views.index(view)][: self._frames])
        resized = resize_labels(thinned, self._settings.height, self._settings.width)
        return ViewMasks(resized == ROBOT, resized == MANIPULATED_OBJECT)


def resize_labels(labels: Tensor, height: int, width: int) -> Tensor:
    """(T, H, W) uint8 -> (T, height, width) uint8 by nearest neighbour, so that labels are not interpolated."""
    if labels.shape[1:] == (height, width):
        return labels
    return F.interpolate(labels[:, None].float(), (height, width), mode="nearest-exact")[:, 0].to(torch.uint8)

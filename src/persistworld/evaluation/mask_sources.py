"""Creates the mask source that `masks.source` names."""

from persistworld.config.params import Params
from persistworld.data.episodes import EpisodeSource
from persistworld.evaluation.masks import MaskSource
from persistworld.evaluation.recorded_masks import SimulatorMasks
from persistworld.evaluation.roboengine import RoboEngineMasks


def open_mask_source(settings: Params, episodes: EpisodeSource, frames: int | None) -> MaskSource | None:
    """The source that `masks.source` names, for the first `frames` frames of each episode (None: all). Returns None for 'none'.

    Raises UserError when the source is RoboEngine and it is not installed.
    """
    if settings.masks.source == "simulator":
        return SimulatorMasks(episodes, settings.episodes, frames)
    if settings.masks.source == "roboengine":
        return RoboEngineMasks(episodes, settings.episodes, settings.compute.mask_batch, frames)
    return None

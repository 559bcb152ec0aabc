"""Start frames of environments: one frame in all views, the robot's pose, and the instruction."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import BadEpisode, EpisodeSource, frame_stride
from persistworld.data.frames import resized, resized_batches
from persistworld.robot.kinematics import Tool, tool_of
from persistworld.runtime.errors import UserError

POSE = 7  # numbers in a Panda's pose


@dataclass(frozen=True)
class StartFrame:
    """views: (V, H, W, 3) uint8 in the model's order; pose: (P,) raw; joints: (7,) rad, or None if unknown.

    episode: the number in the noise key of rollouts from this start, as in the workflow's rollouts.
    """

    views: np.ndarray
    pose: np.ndarray
    joints: np.ndarray | None
    instruction: str
    episode: int


class EpisodeStarts:
    """Start frames from the episodes of a data set, in any supported layout."""

    def __init__(self, source: EpisodeSource, settings: EpisodesConfig) -> None:
        """Raises UserError if the source lacks a view of `settings`."""
        if missing := [view for view in settings.views if view not in source.views]:
            raise UserError(f"{source.root}: no view {missing[0]} (it has {', '.join(source.views)}); change episodes.views")
        self.source, self.settings = source, settings

    def indices(self) -> list[int]:
        return self.source.indices()

    def instruction(self, index: int) -> str:
        return self.source.episode(index).instruction

    def tool(self) -> Tool | None:
        """The point of a Panda that the poses describe, from the first readable episode. None for another robot or without joints."""
        for index in self.indices():
            with contextlib.suppress(BadEpisode):
                episode = self.source.episode(index)
                known = episode.joints is not None and episode.pose.shape[1] == POSE
                return tool_of(episode.joints, episode.pose) if known else None
        return None

    def start(self, index: int, row: int = 0) -> StartFrame:
        """Frame `row` (at the model's frame rate) of an episode. Raises UserError if the episode or frame does not exist."""
        episode, stride = self.source.episode(index), frame_stride(self.source.fps, self.settings.fps)
        if not 0 <= row * stride < len(episode.pose):
            raise UserError(f"episode {index}: no frame {row}; it has {-(-len(episode.pose) // stride)} at {self.settings.fps:g} a second")
        pose, joints = episode.pose[row * stride], None if episode.joints is None else episode.joints[row * stride]
        views = [_frame(self.source, index, self.settings, view, row) for view in self.settings.views]
        return StartFrame(np.stack(views), pose.astype(np.float64), joints, episode.instruction, index)


def _frame(source: EpisodeSource, index: int, settings: EpisodesConfig, view: str, row: int) -> np.ndarray:
    """One frame of a view, (H, W, 3) uint8, resized as in the workflow. All earlier frames are decoded as well."""
    for frames in resized_batches(source, index, settings, view, batch=1):
        if row == 0:
            return frames[0].numpy()
        row -= 1
    raise UserError(f"episode {index}: the video of {view} is shorter than its poses")


def start_from_images(
    images: Mapping[str, str | Path | np.ndarray], pose: Sequence[float], instruction: str, settings: EpisodesConfig,
    joints: Sequence[float] | None = None, episode: int = 0,
) -> StartFrame:  # fmt: skip
    """A custom start: one image (a file, or (h, w, 3) uint8 RGB) for each of the model's views. The images are resized.

    Raises UserError if a view is missing, a file is not an image, or `pose` is not a row of finite numbers.
    """
    if missing := [view for view in settings.views if view not in images]:
        raise UserError(f"start: no image for the view {missing[0]}; give one for each of {', '.join(settings.views)}")
    size = (settings.height, settings.width)
    views = [resized(torch.from_numpy(_pixels(view, images[view]))[None], size)[0].numpy() for view in settings.views]
    numbers = np.asarray(pose, np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise UserError("start: the pose must be a row of finite numbers (x, y, z, Euler xyz, gripper)")
    angles = None if joints is None else np.asarray(joints, np.float64)
    return StartFrame(np.stack(views), numbers, angles, instruction, episode)


def _pixels(view: str, image: str | Path | np.ndarray) -> np.ndarray:
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise UserError(f"start: the image of {view} is {image.shape} {image.dtype}, expected (h, w, 3) uint8")
        return image
    try:
        return np.array(Image.open(image).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{image}: no image that can be read for the view {view} ({error})") from None


# Gives an environment its starts, from a random generator and the options of `reset`.
StartSource = Callable[[np.random.Generator, Mapping[str, Any]], StartFrame]


def drawn_from(starts: EpisodeStarts) -> StartSource:
    """Starts at episode `options["episode"]` (default: random) and frame `options["frame"]` (default: 0)."""

    def draw(random: np.random.Generator, options: Mapping[str, Any]) -> StartFrame:
        episode = options.get("episode")
        if episode is None:
            indices = starts.indices()
            episode = indices[int(random.integers(len(indices)))]
        return starts.start(int(episode), int(options.get("frame", 0)))

    return draw

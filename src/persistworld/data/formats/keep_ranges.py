"""DROID without idle time: cuts each episode to the longest range that a public list keeps.

The list is keep_ranges_1_0_1.json of KarlP/droid on the model hub (droid_sample_ranges_v1_0_1.json of openpi). It maps each recording of
DROID 1.0.1 to ranges [first, end) of its frames at 15 Hz in which the robot moves. Its keys contain the recording's folder
(`.../r2d2-data-full/AUTOLab/success/.../recordings/MP4--...`). The data set's list of episodes must hold that folder as `episode_id`, as
nvidia/Cosmos3-DROID's does. Only one range is used per episode, because a concatenation of ranges would contain jumps.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from persistworld.data.episodes import BadEpisode, Episode, EpisodeSource
from persistworld.data.formats.reading import odd_file, read_mapping
from persistworld.runtime.errors import UserError

RELEASE = "r2d2-data-full/"  # the root folder of DROID's raw release: keys begin above it, episode_id below it
ENDS = ("/recordings/MP4", "/trajectory.h5")
NOTE = "idle time is left out"


class Recorded(EpisodeSource, Protocol):
    """A source that knows the folder of each episode in DROID's raw release."""

    def recording(self, index: int) -> str | None:
        """The folder, such as AUTOLab/success/2023-07-07/Fri_Jul__7_09:42:23_2023; None when it is not known."""


class KeptRanges:
    """A source's episodes, each cut to its longest kept range (EpisodeSource). Episodes without a kept range are left out."""

    def __init__(self, source: EpisodeSource, path: Path) -> None:
        """Raises UserError when the list is missing or malformed, or contains none of the episodes."""
        if not hasattr(source, "recording"):
            raise UserError(f"episodes.keep_ranges = {path}: is for DROID in a LeRobot layout, not for {source.root}")
        self._source, self.keep_ranges = source, path
        self.root, self.views, self.fps = source.root, source.views, source.fps
        raw = read_mapping(path)
        with odd_file(path, "expected lists of [first, end) for each recording"):
            kept = {folder_of(key): _longest(ranges) for key, ranges in raw.items()}
        self._ranges = {}
        for index in source.indices():
            recording = source.recording(index)
            found = None if recording is None else kept.get(folder_of(recording))
            if found is not None:
                self._ranges[index] = found
        if not self._ranges:
            raise UserError(
                f"episodes.keep_ranges = {path}: knows none of the {len(source.indices())} episodes of {source.root}; their list must name "
                "each one's recording as episode_id, as nvidia/Cosmos3-DROID does"
            )

    def indices(self) -> list[int]:
        """The indices of the episodes that have a kept range, ascending."""
        return sorted(self._ranges)

    def split(self, index: int) -> str | None:
        """The source's split of the episode."""
        return self._source.split(index)

    def episode(self, index: int) -> Episode:
        """The kept rows of one episode. Raises BadEpisode."""
        episode = self._source.episode(index)
        first, end = self._span(index, len(episode.pose))
        parts = {name: None if (rows := getattr(episode, name)) is None else rows[first:end] for name in ("pose", "joints", "action")}
        return dataclasses.replace(episode, **parts, notes=(*episode.notes, NOTE))

    def frames(self, index: int, view: str) -> np.ndarray:
        """One view, (T, H, W, 3) uint8. Raises BadEpisode."""
        return np.concatenate(list(self.frame_batches(index, view)))

    def frame_batches(self, index: int, view: str, stride: int = 1, batch: int = 64) -> Iterator[np.ndarray]:
        """Every `stride`-th of the kept frames, in batches of `batch`. Raises BadEpisode."""
        first, end = self._range(index)
        number, found = 0, []
        for frames in self._source.frame_batches(index, view, 1, batch):
            for frame in frames:
                if first <= number < end and (number - first) % stride == 0:
                    found.append(frame)
                number += 1
                if len(found) == batch:
                    yield np.stack(found)
                    found = []
        self._span(index, number)
        if found:
            yield np.stack(found)

    def masks(self, index: int) -> np.ndarray | None:
        """The source's masks of the kept frames. Raises BadEpisode."""
        masks = self._source.masks(index)
        return None if masks is None else masks[slice(*self._span(index, len(masks)))]

    def _range(self, index: int) -> tuple[int, int]:
        if index not in self._ranges:
            raise BadEpisode(index, f"{self.keep_ranges} keeps nothing of it")
        return self._ranges[index]

    def _span(self, index: int, length: int) -> tuple[int, int]:
        """The kept rows [first, end) of an episode with `length` rows.

        Raises BadEpisode when the range ends more than one row after the episode: then it belongs to another recording.
        """
        first, end = self._range(index)
        if end > length + 1:
            raise BadEpisode(index, f"{self.keep_ranges} keeps frames {first} to {end}, the episode has {length}")
        return first, min(end, length)


def folder_of(text: str) -> str:
    """The recording's folder below DROID's root, from a key of the list or from an `episode_id`."""
    folder = text.partition("--")[0].rpartition(RELEASE)[2].strip().rstrip("/")
    for end in ENDS:
        folder = folder.removesuffix(end)
    return folder


def _longest(ranges: list) -> tuple[int, int] | None:
    found = [(int(first), int(end)) for first, end in ranges if 0 <= int(first) < int(end)]
    return max(found, key=lambda r: (r[1] - r[0], -r[0]), default=None)

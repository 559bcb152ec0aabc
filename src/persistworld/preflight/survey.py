"""Reports what a run will use, leave out and convert of a data set. It reads the data set's index and a few whole episodes."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from persistworld.config.data import EpisodesConfig
from persistworld.config.reading import nearest
from persistworld.data.episodes import BadEpisode, Episode, EpisodeSource, frame_stride
from persistworld.data.manifest import split_indices
from persistworld.data.ranges import Range, check_ranges, closed_at_first, pose_ranges
from persistworld.runtime.errors import UserError
from persistworld.world_model.poses import PoseStatistics

SAMPLE = 5  # episodes that are read completely


@dataclass
class Survey:
    """The result of a survey: all wanted episodes by split, and what was found in a sample of them.

    Frames are counted at the world model's frame rate.
    """

    listed: int
    splits: dict[str, list[int]]
    stride: int
    views: tuple[str, ...]
    frames: dict[int, int] = field(default_factory=dict)  # of the sample: index -> frames
    size: tuple[int, int] | None = None  # height and width as recorded
    bad: dict[int, str] = field(default_factory=dict)
    notes: Counter = field(default_factory=Counter)
    ranges: list[Range] = field(default_factory=list)
    seconds: float = 0.0  # time to read one episode on one core

    @property
    def wanted(self) -> list[int]:
        return sorted(index for indices in self.splits.values() for index in indices)

    @property
    def mean_frames(self) -> float:
        return float(np.mean(list(self.frames.values()))) if self.frames else 0.0


def survey(source: EpisodeSource, settings: EpisodesConfig, statistics: PoseStatistics | None, path: str) -> Survey:
    """Survey a data set. statistics: the pose statistics of the checkpoint that will be used; None if not known yet.

    Raises UserError when a view is missing, the frame rate does not fit, no episode is wanted, no episode of the sample can be
    used, or the poses have other units than the checkpoint's.
    """
    for view in settings.views:
        if view not in source.views:
            raise UserError(f"episodes.views = {view}: {path} has no such view; {nearest(view, source.views)}")
    stride = frame_stride(source.fps, settings.fps)
    found = Survey(len(source.indices()), split_indices(settings, source), stride, source.views)
    wanted = found.wanted
    if not wanted:
        raise UserError(f"{path}: none of its {found.listed} episodes is asked for; see episodes.count and .splits")
    began, episodes = time.perf_counter(), []
    for index in chosen(wanted):
        try:
            episodes.append(_read(source, index, settings, found))
        except BadEpisode as error:
            found.bad[index] = error.reason
    found.seconds = (time.perf_counter() - began) / len(chosen(wanted))
    if not episodes:
        first = "; ".join(f"episode {index}: {reason}" for index, reason in list(found.bad.items())[:3])
        raise UserError(f"{path}: none of {len(found.bad)} episodes that were tried can be used ({first})")
    if statistics is not None:
        found.ranges = pose_ranges(statistics, np.concatenate([episode.pose for episode in episodes]))
        check_ranges(found.ranges, path)
        if note := closed_at_first([episode.pose[0] for episode in episodes], statistics):
            found.notes[note] += 1
    return found


def chosen(indices: Sequence[int]) -> list[int]:
    """At most SAMPLE of the indices, evenly spaced from the first to the last."""
    places = np.linspace(0, len(indices) - 1, min(SAMPLE, len(indices))).round().astype(int)
    return [indices[place] for place in places]


def _read(source: EpisodeSource, index: int, settings: EpisodesConfig, found: Survey) -> Episode:
    """Read all views of one episode completely, and add what was found to `found`. Raises BadEpisode."""
    episode = source.episode(index)
    counts = {}
    for view in settings.views:
        counts[view] = 0
        for frames in source.frame_batches(index, view, found.stride, 64):
            counts[view] += len(frames)
            found.size = frames.shape[1:3]
    rows = len(episode.pose[:: found.stride])
    if set(counts.values()) != {rows}:
        raise BadEpisode(index, f"{rows} poses but {counts} frames")
    found.frames[index] = rows
    found.notes.update(episode.notes)
    return episode

"""What a run will use of a data set, leave out and convert, found by reading its index and a few episodes to their end."""

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

SAMPLE = 5  # episodes that are read to their end


@dataclass
class Survey:
    """Of a data set: wanted episodes by split, and of a sample what was read, with frames counted at the world model's rate."""

    listed: int
    splits: dict[str, list[int]]
    stride: int
    views: tuple[str, ...]
    frames: dict[int, int] = field(default_factory=dict)  # index -> frames, of the sample
    size: tuple[int, int] | None = None  # height and width as recorded
    bad: dict[int, str] = field(default_factory=dict)
    notes: Counter = field(default_factory=Counter)
    ranges: list[Range] = field(default_factory=list)
    seconds: float = 0.0  # for each episode, on one core

    @property
    def wanted(self) -> list[int]:
        return sorted(index for indices in self.splits.values() for index in indices)

    @property
    def mean_frames(self) -> float:
        return float(np.mean(list(self.frames.values()))) if self.frames else 0.0


def survey(source: EpisodeSource, settings: EpisodesConfig, statistics: PoseStatistics | None, path: str) -> Survey:
    """Look at a data set. `statistics` are those of the checkpoint that will see its poses; None: not known yet.

    Raises UserError when a view is missing, the rate does not fit, no episode is wanted or none of the sample can be used, or
    poses are in other units than the checkpoint's.
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
    """SAMPLE of the indices, from the first to the last."""
    places = np.linspace(0, len(indices) - 1, min(SAMPLE, len(indices))).round().astype(int)
    return [indices[place] for place in places]


def _read(source: EpisodeSource, index: int, settings: EpisodesConfig, found: Survey) -> Episode:
    """One episode to its end, all views of it. Raises BadEpisode."""
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

"""Reads DROID's layout on disk, LeRobot v2.1.

    meta/{info.json,episodes.jsonl,tasks.jsonl,episodes_stats.jsonl}
    data/chunk-000/episode_000000.parquet
    videos/chunk-000/observation.images.{exterior_1_left,exterior_2_left,wrist_left}/episode_000000.mp4
    masks/chunk-000/episode_000000.npz                 (an addition to the layout; only simulated episodes have it)

Episode indices may be sparse.
"""

import dataclasses
import functools
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from persistworld.data.episodes import BadEpisode, Episode
from persistworld.data.formats.lerobot_columns import check_paths, episode_of, read_info
from persistworld.data.formats.lerobot_paths import MASK_PATH, place
from persistworld.data.formats.listing import Listing, cut, rows_of
from persistworld.data.formats.reading import odd_episode, odd_file
from persistworld.data.formats.views import View, length_of, view_batches, view_notes, whole_file
from persistworld.data.formats.words import read_tasks
from persistworld.runtime.errors import UserError


class LeRobotEpisodes:
    """The reader of the layout (EpisodeSource), for simulated episodes and for DROID itself."""

    def __init__(self, root: str | Path):
        """Read the meta files. Raises UserError when they are missing or broken."""
        self.root = Path(root)
        self._info = read_info(self.root)
        check_paths(self.root, self._info, {"episode_chunk": 0, "episode_index": 0}, ("episode_index",))
        self.fps, self.views = self._info.fps, tuple(self._info.video_keys)
        path = self.root / "meta/episodes.jsonl"
        with odd_file(path, "not a list of episodes, one JSON object a line with an episode_index"):
            self._listed = Listing(path, (json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()))
        self._tasks = read_tasks(self.root)
        self._measured = functools.lru_cache(maxsize=4)(self._measure)  # the views of an episode are read one after another

    def indices(self) -> list[int]:
        """The indices of all listed episodes, ascending."""
        return self._listed.indices()

    def split(self, index: int) -> None:
        """None: the layout records no split that matches DROID's, so the index decides."""

    def recording(self, index: int) -> str | None:
        """The episode's folder in DROID's raw release, if the episode list has an `episode_id` (see keep_ranges); None otherwise."""
        found = self._listed[index].get("episode_id")
        return found if isinstance(found, str) else None

    def episode(self, index: int) -> Episode:
        """Read one parquet file. Raises BadEpisode when it is missing, or has other columns, another length or NaN poses."""
        path, listed = self._path(index), self._listed[index]
        with odd_episode(index, path):
            table = pq.read_table(path)
        episode = episode_of(index, table, path, self.fps, listed, self._tasks)
        length, rows, views = self._measured(index)
        notes = (*episode.notes, *view_notes(rows, views, self.fps))
        return cut(dataclasses.replace(episode, notes=notes), length)

    def _path(self, index: int) -> Path:
        self._listed.require(index)
        return place(self.root, self._info.data_path, index, self._info.chunk)

    def _measure(self, index: int) -> tuple[int, int, dict[str, View]]:
        """The episode's common length, its number of rows, and its views. Raises BadEpisode when it has more than one row more or fewer
        than listed."""
        path, rows = self._path(index), self._listed.length(index)
        if path.is_file() or rows is None:
            with odd_episode(index, path):
                rows = rows_of(index, pq.read_metadata(path).num_rows, rows, path, self._listed.path)
        keys = self._info.video_keys
        views = {v: whole_file(place(self.root, self._info.video_path, index, self._info.chunk, key)) for v, key in keys.items()}
        return length_of(rows, views), rows, views

    def frames(self, index: int, view: str) -> np.ndarray:
        """One view, (T, H, W, 3) uint8. Raises BadEpisode when the video is missing, broken or has another length."""
        return np.concatenate(list(self.frame_batches(index, view)))

    def frame_batches(self, index: int, view: str, stride: int = 1, batch: int = 64) -> Iterator[np.ndarray]:
        """Every `stride`-th of these frames, in batches of `batch`. Raises the same errors when it reaches the broken frame."""
        if view not in self.views:
            raise UserError(f"{self.root}: no view {view}; it has {', '.join(self.views)}")
        length, rows, views = self._measured(index)
        return view_batches(index, rows, length, views[view], stride, batch)

    def masks(self, index: int) -> np.ndarray | None:
        """(T, V, H, W) uint8; None when the episode has no mask file. Raises BadEpisode when the file is broken or has another length."""
        path = place(self.root, MASK_PATH, index, self._info.chunk)
        if not path.is_file():
            return None
        try:
            with np.load(path) as file:
                masks = file["masks"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadEpisode(index, f"masks {path} cannot be read ({error})") from None
        length, rows, _ = self._measured(index)
        if len(masks) not in (length, rows):
            raise BadEpisode(index, f"masks {path} hold {len(masks)} frames, the episode {length}")
        return masks[:length]

"""Reads LeRobot v3.0, which stores many episodes per file.

    meta/info.json
    meta/episodes/chunk-000/file-000.parquet    one row per episode: its files, its time span in each video, its tasks
    data/chunk-000/file-000.parquet             the rows of many episodes, distinguished by the column episode_index
    videos/{video_key}/chunk-000/file-000.mp4   many episodes one after another
"""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from persistworld.data.episodes import BadEpisode, Episode
from persistworld.data.formats.lerobot_columns import check_paths, episode_of, read_info
from persistworld.data.formats.listing import Listing, cut, rows_of, whole
from persistworld.data.formats.reading import ODD, odd_episode, odd_file
from persistworld.data.formats.spans import Spans
from persistworld.data.formats.views import View, length_of, view_batches, view_notes
from persistworld.data.formats.words import read_tasks
from persistworld.runtime.errors import UserError


class LeRobotV3Episodes:
    """The reader of the layout (EpisodeSource). It reads the rows and frames of one episode, never a whole file."""

    def __init__(self, root: str | Path) -> None:
        """Read the meta files. Raises UserError when they are missing or broken."""
        self.root = Path(root)
        self._info = read_info(self.root)
        check_paths(self.root, self._info, {"chunk_index": 0, "file_index": 0}, ())
        self.fps, self.views = self._info.fps, tuple(self._info.video_keys)
        self._listed = self._read_listed()
        self._tasks = read_tasks(self.root)
        self._spans = {view: Spans(self._listed, f"videos/{key}", self.fps, self._rows) for view, key in self._info.video_keys.items()}
        self._measured = functools.lru_cache(maxsize=4)(self._measure)

    def _read_listed(self) -> Listing:
        folder = self.root / "meta/episodes"
        paths = sorted(folder.glob("*/*.parquet"))
        if not paths:
            raise UserError(f"{folder}: no parquet files; the data set is not whole")
        rows = []
        for path in paths:
            with odd_file(path, "not a list of episodes; download it again"):
                # Half of the columns are statistics (stats/...), which are not used.
                names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
                rows += pq.read_table(path, columns=names).to_pylist()
        with odd_file(folder, "not a list of episodes; download it again"):
            return Listing(folder, rows)

    def indices(self) -> list[int]:
        """The indices of all listed episodes, ascending."""
        return self._listed.indices()

    def split(self, index: int) -> None:
        """None: the layout records no split that matches DROID's, so the index decides."""

    def recording(self, index: int) -> str | None:
        """The episode's folder in DROID's raw release, such as AUTOLab/success/2023-07-07/Fri_Jul__7_09:42:23_2023; None if the episode
        list has no `episode_id` (nvidia/Cosmos3-DROID's has one)."""
        found = self._listed[index].get("episode_id")
        return found if isinstance(found, str) else None

    def episode(self, index: int) -> Episode:
        """Read one episode's rows. Raises BadEpisode when rows are missing or hold no valid pose."""
        listed = self._listed[index]
        path = self._file(index, self._info.data_path, "data")
        with odd_episode(index, path):
            table = pq.read_table(path, filters=[("episode_index", "=", index)])
        rows_of(index, len(table), self._length(index), path, self._listed.path)
        episode = episode_of(index, table, path, self.fps, listed, self._tasks)
        length, rows, views = self._measured(index)
        notes = (*episode.notes, *view_notes(rows, views, self.fps))
        return cut(dataclasses.replace(episode, notes=notes), length)

    def frames(self, index: int, view: str) -> np.ndarray:
        """One view, (T, H, W, 3) uint8. Raises BadEpisode when its part of the video is missing or cannot be decoded."""
        return np.concatenate(list(self.frame_batches(index, view)))

    def frame_batches(self, index: int, view: str, stride: int = 1, batch: int = 64) -> Iterator[np.ndarray]:
        """Every `stride`-th of these frames, in batches of `batch`. Raises the same errors when it reaches the broken frame."""
        if view not in self.views:
            raise UserError(f"{self.root}: no view {view}; it has {', '.join(self.views)}")
        length, rows, views = self._measured(index)
        return view_batches(index, rows, length, views[view], stride, batch)

    def masks(self, index: int) -> None:
        """The layout has no masks."""

    def _length(self, index: int) -> int:
        """The number of rows that the list gives for an episode. Raises BadEpisode without it: later episodes' frames are located by it."""
        length = self._listed.length(index)
        if length is None:
            raise BadEpisode(index, f"{self._listed.path}: no length; the frames of episodes are counted by it")
        return length

    def _measure(self, index: int) -> tuple[int, int, dict[str, View]]:
        """The episode's common length, its number of rows, and its views. Raises BadEpisode when the list gives no length or no files."""
        rows, listed, views = self._rows(index), self._length(index), {}
        rows = listed if rows is None else rows_of(index, rows, listed, self._file(index, self._info.data_path, "data"), self._listed.path)
        for view, key in self._info.video_keys.items():
            try:
                path = self._file(index, self._info.video_path, f"videos/{key}", video_key=key)
            except BadEpisode:
                views[view] = View(self._listed.path, fault=f"names no file for videos/{key}")
                continue
            views[view] = self._spans[view].view(index, path)
        return length_of(rows, views), rows, views

    def _rows(self, index: int) -> int | None:
        """The number of rows of an episode in its data file; None when the file cannot be read."""
        try:
            return _counted(self._file(index, self._info.data_path, "data")).get(index, 0)
        except (BadEpisode, OSError, *ODD):
            return None

    def _file(self, index: int, template: str, group: str, **more: str) -> Path:
        row = self._listed[index]
        chunk, file = whole(row.get(f"{group}/chunk_index")), whole(row.get(f"{group}/file_index"))
        if chunk is None or file is None:
            raise BadEpisode(index, f"{self._listed.path} names no file for {group}")
        return self.root / template.format(chunk_index=chunk, file_index=file, **more)


@functools.lru_cache(maxsize=16)
def _counted(path: Path) -> dict[int, int]:
    """Episode index -> number of its rows in a data file."""
    counts = pq.read_table(path, columns=["episode_index"])["episode_index"].value_counts().to_pylist()
    return {whole(each["values"]): each["counts"] for each in counts}

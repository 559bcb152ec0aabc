"""LeRobot v3.0: many episodes to a file.

    meta/info.json
    meta/episodes/chunk-000/file-000.parquet    a row per episode: its files, its time span in each video, its tasks
    data/chunk-000/file-000.parquet             the rows of many episodes, told apart by their episode_index
    videos/{video_key}/chunk-000/file-000.mp4   many episodes after each other
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from persistworld.data.episodes import BadEpisode, Episode
from persistworld.data.formats.lerobot_columns import episode_of, read_info
from persistworld.data.video import BrokenVideo, Span, video_batches
from persistworld.runtime.errors import UserError


class LeRobotV3Episodes:
    """The reader of the layout (EpisodeSource). It reads one episode's rows and frames, never a whole file of them."""

    def __init__(self, root: str | Path) -> None:
        """Read the meta files. Raises UserError when they are missing or broken."""
        self.root = Path(root)
        self._info = read_info(self.root)
        self.fps, self.views = self._info.fps, tuple(self._info.video_keys)
        self._listed = self._read_listed()

    def _read_listed(self) -> dict[int, dict]:
        folder = self.root / "meta/episodes"
        paths = sorted(folder.glob("*/*.parquet"))
        if not paths:
            raise UserError(f"{folder}: no parquet files; the data set is not whole")
        listed = {}
        for path in paths:
            try:
                # Half of the columns are statistics (stats/...) that nobody asks for.
                names = [name for name in pq.read_schema(path).names if not name.startswith("stats/")]
                listed |= {int(row["episode_index"]): row for row in pq.read_table(path, columns=names).to_pylist()}
            except (OSError, pa.ArrowInvalid, KeyError) as error:
                raise UserError(f"{path}: not a list of episodes ({error}); download it again") from None
        return listed

    def indices(self) -> list[int]:
        """The indices of all listed episodes, ascending."""
        return sorted(self._listed)

    def split(self, index: int) -> None:
        """The layout records no split that matches DROID's; the index decides."""

    def episode(self, index: int) -> Episode:
        """Read one episode's rows. Raises BadEpisode when they are missing, too few, or not poses."""
        row = self._row(index)
        path = self._file(index, self._info.data_path, "data")
        try:
            table = pq.read_table(path, filters=[("episode_index", "=", index)])
        except FileNotFoundError:
            raise BadEpisode(index, f"listed, but {path} is missing") from None
        except (OSError, pa.ArrowInvalid) as error:
            raise BadEpisode(index, f"{path} cannot be read ({str(error).splitlines()[0]})") from None
        if not len(table) or len(table) != row["length"]:
            raise BadEpisode(index, f"{path} holds {len(table)} of its frames, meta/episodes says {row['length']}")
        if "frame_index" in table.column_names:
            table = table.sort_by("frame_index")
        return episode_of(index, table, path, self.fps, str((row.get("tasks") or [""])[0]))

    def frames(self, index: int, view: str) -> np.ndarray:
        """One view, (T, H, W, 3) uint8. Raises BadEpisode when its span of the video is missing or does not decode."""
        return np.concatenate(list(self.frame_batches(index, view)))

    def frame_batches(self, index: int, view: str, stride: int = 1, batch: int = 64) -> Iterator[np.ndarray]:
        """Every `stride`-th of them, `batch` at a time. Raises the same, when it comes to that frame."""
        if view not in self.views:
            raise UserError(f"{self.root}: no view {view}; it has {', '.join(self.views)}")
        row, group = self._row(index), f"videos/{self._info.video_keys[view]}"
        path = self._file(index, self._info.video_path, group, video_key=self._info.video_keys[view])
        start = row.get(f"{group}/from_timestamp")
        if start is None:
            raise BadEpisode(index, f"meta/episodes has no {group}/from_timestamp")
        try:
            count = yield from video_batches(path, stride, batch, Span(start, self.fps, row["length"]))
        except BrokenVideo as error:
            raise BadEpisode(index, f"video {path} {error}") from None
        if count != row["length"]:
            raise BadEpisode(index, f"video {path} holds {count} frames from {start:g} s on, meta/episodes says {row['length']}")

    def masks(self, index: int) -> None:
        """The layout has no masks."""

    def _row(self, index: int) -> dict:
        if index not in self._listed:
            raise BadEpisode(index, f"not listed in {self.root / 'meta/episodes'}")
        return self._listed[index]

    def _file(self, index: int, template: str, group: str, **more: str) -> Path:
        row = self._row(index)
        chunk, file = row.get(f"{group}/chunk_index"), row.get(f"{group}/file_index")
        if chunk is None or file is None:
            raise BadEpisode(index, f"meta/episodes names no file for {group}")
        return self.root / template.format(chunk_index=int(chunk), file_index=int(file), **more)

"""DROID's layout on disk, LeRobot v2.1: the reader.

    meta/{info.json,episodes.jsonl,tasks.jsonl,episodes_stats.jsonl}
    data/chunk-000/episode_000000.parquet
    videos/chunk-000/observation.images.{exterior_1_left,exterior_2_left,wrist_left}/episode_000000.mp4
    masks/chunk-000/episode_000000.npz                 (an extra that only simulated episodes have)
Episode indices may be sparse.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from persistworld.data.episodes import BadEpisode, Episode
from persistworld.data.formats.lerobot_columns import episode_of, read_info
from persistworld.data.formats.lerobot_paths import MASK_PATH, place
from persistworld.data.video import BrokenVideo, video_batches
from persistworld.runtime.errors import UserError


class LeRobotEpisodes:
    """The reader of the layout (EpisodeSource): simulated episodes and DROID itself."""

    def __init__(self, root: str | Path):
        """Read the meta files. Raises UserError when they are missing or broken."""
        self.root = Path(root)
        self._info = read_info(self.root)
        self.fps, self.views = self._info.fps, tuple(self._info.video_keys)
        self._listed = self._read_listed(self.root / "meta/episodes.jsonl")

    @staticmethod
    def _read_listed(path: Path) -> dict[int, dict]:
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
            return {int(row["episode_index"]): row for row in rows}
        except FileNotFoundError:
            raise UserError(f"{path}: no such file; the data set is not whole") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: not a list of episodes, one JSON object a line with an episode_index") from None

    def indices(self) -> list[int]:
        """The indices of all listed episodes, ascending."""
        return sorted(self._listed)

    def split(self, index: int) -> None:
        """The layout records no split that matches DROID's; the index decides."""

    def episode(self, index: int) -> Episode:
        """Read one parquet. Raises BadEpisode when it is missing or has other columns, another length or NaN poses."""
        table, path = self._table(index)
        return episode_of(index, table, path, self.fps, str((self._listed[index].get("tasks") or [""])[0]))

    def _table(self, index: int) -> tuple[pa.Table, Path]:
        if index not in self._listed:
            raise BadEpisode(index, f"not listed in {self.root / 'meta/episodes.jsonl'}")
        path = place(self.root, self._info.data_path, index, self._info.chunk)
        if not path.is_file():
            raise BadEpisode(index, f"listed, but {path} is missing")
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise BadEpisode(index, f"{path} cannot be read ({str(error).splitlines()[0]})") from None
        length = self._listed[index].get("length", len(table))
        if not len(table) or len(table) != length:
            raise BadEpisode(index, f"{path} holds {len(table)} frames, meta/episodes.jsonl says {length}")
        return table, path

    def frames(self, index: int, view: str) -> np.ndarray:
        """One view, (T, H, W, 3) uint8. Raises BadEpisode when the video is missing, broken or of another length."""
        return np.concatenate(list(self.frame_batches(index, view)))

    def frame_batches(self, index: int, view: str, stride: int = 1, batch: int = 64) -> Iterator[np.ndarray]:
        """Every `stride`-th of them, `batch` at a time. Raises the same, when it comes to that frame."""
        if view not in self.views:
            raise UserError(f"{self.root}: no view {view}; it has {', '.join(self.views)}")
        path = place(self.root, self._info.video_path, index, self._info.chunk, self._info.video_keys[view])
        try:
            count = yield from video_batches(path, stride, batch)
        except BrokenVideo as error:
            raise BadEpisode(index, f"video {path} {error}") from None
        length = self._listed.get(index, {}).get("length", count)
        if count != length:
            raise BadEpisode(index, f"video {path} holds {count} frames, meta/episodes.jsonl says {length}")

    def masks(self, index: int) -> np.ndarray | None:
        """(T, V, H, W) uint8, or None where the data set has none. Raises BadEpisode when the file is broken."""
        path = place(self.root, MASK_PATH, index, self._info.chunk)
        if not path.is_file():
            return None
        try:
            with np.load(path) as file:
                masks = file["masks"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadEpisode(index, f"masks {path} cannot be read ({error})") from None
        length = self._listed.get(index, {}).get("length", len(masks))
        if len(masks) != length:
            raise BadEpisode(index, f"masks {path} hold {len(masks)} frames, meta/episodes.jsonl says {length}")
        return masks

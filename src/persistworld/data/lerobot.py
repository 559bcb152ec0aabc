"""DROID's layout on disk, LeRobot v2.1: the reader, and the writer of single episodes and of the meta files.

    meta/{info.json,episodes.jsonl,tasks.jsonl,episodes_stats.jsonl}
    data/chunk-000/episode_000000.parquet
    videos/chunk-000/observation.images.{exterior_1_left,exterior_2_left,wrist_left}/episode_000000.mp4
    masks/chunk-000/episode_000000.npz                 (an extra that only simulated episodes have)
Episode indices may be sparse. The column `index`
is episode_index * T + frame_index, so that an episode's file does not depend on which others are listed.
"""

import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from persistworld.data.episodes import VIEWS, BadEpisode, Episode
from persistworld.data.lerobot_columns import CHUNK, VIDEO_KEYS, episode_of, read_info
from persistworld.data.tasks import INSTRUCTIONS
from persistworld.data.video import CODEC, BrokenVideo, read_video, video_batches, write_video
from persistworld.errors import UserError
from persistworld.files import atomic_path, write_json

if TYPE_CHECKING:  # reading real episodes does not need the simulator
    from persistworld.data.simulator import SimulatedEpisode

DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
MASK_PATH = "masks/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.npz"
_AXES = {"motors": ["x", "y", "z", "roll", "pitch", "yaw"]}
_JOINTS = {"motors": [f"joint_{k}" for k in range(7)]}
FLOATS = {  # the float columns: width and what LeRobot calls `names`
    "observation.state.cartesian_position": (6, _AXES),
    "observation.state.joint_position": (7, _JOINTS),
    "observation.state.gripper_position": (1, {"motors": ["gripper"]}),
    "action.cartesian_position": (6, _AXES),
    "action.gripper_position": (1, {"motors": ["gripper"]}),
}
INTEGERS = ("frame_index", "episode_index", "index", "task_index")


def file_path(root: Path, template: str, index: int, view: str | None = None) -> Path:
    """Where an episode's file lies under `root` when it is written here, from one of the path templates."""
    return _place(root, template, index, CHUNK, VIDEO_KEYS[view] if view else None)


def _place(root: Path, template: str, index: int, chunk: int, key: str | None = None) -> Path:
    """The same in any data set: `chunk` episodes to a folder, a view's video under `key`."""
    return root / template.format(episode_chunk=index // chunk, episode_index=index, video_key=key)


def write_episode(root: str | Path, simulated: "SimulatedEpisode") -> None:
    """Write one episode's videos, masks and (last: it marks the episode as whole) parquet, each atomically."""
    root, episode = Path(root), simulated.episode
    for view in VIEWS:
        with atomic_path(file_path(root, VIDEO_PATH, episode.index, view)) as part:
            write_video(part, simulated.frames[view], episode.fps)
    with atomic_path(file_path(root, MASK_PATH, episode.index)) as part:
        np.savez_compressed(part, masks=simulated.masks)
    length = len(episode.pose)
    frame = np.arange(length)
    columns = {
        "observation.state.cartesian_position": _rows(episode.pose[:, :6]),
        "observation.state.joint_position": _rows(episode.joints),
        "observation.state.gripper_position": pa.array(episode.pose[:, 6]),
        "action.cartesian_position": _rows(episode.action[:, :6]),
        "action.gripper_position": pa.array(episode.action[:, 6]),
        "is_episode_successful": pa.array([bool(simulated.success)] * length),
        "language_instruction": pa.array([episode.instruction] * length),
        "timestamp": pa.array((frame / episode.fps).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.full(length, episode.index)),
        "index": pa.array(frame + episode.index * length),
        "task_index": pa.array(np.full(length, INSTRUCTIONS.index(episode.instruction))),
    }
    with atomic_path(file_path(root, DATA_PATH, episode.index)) as part:
        pq.write_table(pa.table(columns), part)


def _rows(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def episode_statistics(root: str | Path, index: int) -> dict:
    """One line of episodes_stats.jsonl: min, max, mean, std, count of every numeric column and of every view's pixels.

    Read from the files, so that it is the same whether they were written now or by an earlier run. Raises BadEpisode.
    """
    root = Path(root)
    try:
        table = pq.read_table(file_path(root, DATA_PATH, index))
    except (OSError, pa.ArrowInvalid) as error:
        raise BadEpisode(index, f"its parquet cannot be read ({error})") from None
    stats = {}
    for name in (*FLOATS, "timestamp", *INTEGERS):
        values = np.array(table[name].to_pylist(), dtype=np.float64).reshape(len(table), -1)
        stats[name] = _statistics(values, (values.shape[1],), len(values))
    for view in VIEWS:
        try:
            frames = read_video(file_path(root, VIDEO_PATH, index, view))
        except BrokenVideo as error:
            raise BadEpisode(index, f"video {view} {error}") from None
        pixels = frames.reshape(-1, 3) / 255.0
        stats[VIDEO_KEYS[view]] = _statistics(pixels, (3, 1, 1), len(frames))
    first = table.slice(0, 1).to_pylist()[0]
    task = {"task_index": first["task_index"], "task": first["language_instruction"]}
    return {"episode_index": index, "length": len(table), "shape": list(frames.shape[1:]), "task": task, "stats": stats}


def _statistics(values: np.ndarray, shape: tuple[int, ...], count: int) -> dict:
    kinds = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    return {**{k: v.reshape(shape).tolist() for k, v in kinds.items()}, "count": [count]}


def write_meta(root: str | Path, statistics: Iterable[dict], fps: float) -> None:
    """Write the four meta files for the episodes of `statistics` (from `episode_statistics`); info.json last."""
    root, episodes = Path(root), sorted(statistics, key=lambda s: s["episode_index"])
    if not episodes:
        raise UserError(f"{root}: no episodes to list; ask for at least one")
    tasks = {e["task"]["task_index"]: e["task"]["task"] for e in episodes}
    listed = [{k: e[k] for k in ("episode_index", "length")} | {"tasks": [e["task"]["task"]]} for e in episodes]
    _write_lines(root / "meta/episodes.jsonl", listed)
    _write_lines(root / "meta/tasks.jsonl", [{"task_index": k, "task": tasks[k]} for k in sorted(tasks)])
    _write_lines(root / "meta/episodes_stats.jsonl", [{k: e[k] for k in ("episode_index", "stats")} for e in episodes])
    height, width, channels = episodes[0]["shape"]
    video = {"video.height": height, "video.width": width, "video.fps": fps, "video.channels": channels, **CODEC}
    features = {name: {"dtype": "float32", "shape": [size], "names": names} for name, (size, names) in FLOATS.items()}
    features["is_episode_successful"] = {"dtype": "bool", "shape": [1], "names": None}
    features["language_instruction"] = {"dtype": "string", "shape": [1], "names": None}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    features |= {name: {"dtype": "int64", "shape": [1], "names": None} for name in INTEGERS}
    for key in VIDEO_KEYS.values():
        features[key] = {
            "dtype": "video", "shape": [height, width, channels],
            "names": ["height", "width", "channels"], "info": video,
        }  # fmt: skip
    info = {
        "codebase_version": "v2.1", "robot_type": "Franka Panda (simulated)", "fps": fps, "chunks_size": CHUNK,
        "total_episodes": len(episodes), "total_frames": sum(e["length"] for e in episodes), "total_tasks": len(tasks),
        "total_videos": len(VIEWS) * len(episodes),
        "total_chunks": len({e["episode_index"] // CHUNK for e in episodes}),
        "splits": {"train": f"0:{len(episodes)}"}, "data_path": DATA_PATH, "video_path": VIDEO_PATH,
        "features": features,
    }  # fmt: skip
    write_json(root / "meta/info.json", info)


def _write_lines(path: Path, rows: list[dict]) -> None:
    with atomic_path(path) as part:
        part.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))


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
        path = _place(self.root, self._info.data_path, index, self._info.chunk)
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
        path = _place(self.root, self._info.video_path, index, self._info.chunk, self._info.video_keys[view])
        try:
            count = yield from video_batches(path, stride, batch)
        except BrokenVideo as error:
            raise BadEpisode(index, f"video {path} {error}") from None
        length = self._listed.get(index, {}).get("length", count)
        if count != length:
            raise BadEpisode(index, f"video {path} holds {count} frames, meta/episodes.jsonl says {length}")

    def masks(self, index: int) -> np.ndarray | None:
        """(T, V, H, W) uint8, or None where the data set has none. Raises BadEpisode when the file is broken."""
        path = _place(self.root, MASK_PATH, index, self._info.chunk)
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

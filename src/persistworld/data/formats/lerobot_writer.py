"""Writes episodes and their meta files in DROID's layout, LeRobot v2.1.

The column `index` is episode_index * T + frame_index, so that an episode's file does not depend on which other episodes are listed.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from persistworld.data.episodes import VIEWS, BadEpisode, Episode
from persistworld.data.formats.lerobot_columns import CHUNK, VIDEO_KEYS
from persistworld.data.formats.lerobot_paths import DATA_PATH, MASK_PATH, VIDEO_PATH, file_path
from persistworld.data.video import CODEC, BrokenVideo, read_video, write_video
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, write_json

_AXES = {"motors": ["x", "y", "z", "roll", "pitch", "yaw"]}
_JOINTS = {"motors": [f"joint_{k}" for k in range(7)]}
FLOATS = {  # the float columns: width, and LeRobot's `names`
    "observation.state.cartesian_position": (6, _AXES),
    "observation.state.joint_position": (7, _JOINTS),
    "observation.state.gripper_position": (1, {"motors": ["gripper"]}),
    "action.cartesian_position": (6, _AXES),
    "action.gripper_position": (1, {"motors": ["gripper"]}),
}
STAGE = "stage."  # begins the names of the columns of stage labels: stage.reach and so on
OUTCOME = "outcome"  # the column with a simulated episode's planned outcome
INTEGERS = ("frame_index", "episode_index", "index", "task_index")



def write_episode(
    root: str | Path, episode: Episode, frames: Mapping[str, np.ndarray], masks: np.ndarray | None = None, task_index: int = 0, *,
    stages: Mapping[str, np.ndarray] | None = None, outcome: str | None = None,
) -> None:  # fmt: skip
    """Write one episode's videos, masks and parquet file, each atomically. The parquet file is last: it marks the episode as complete.

    frames: view -> (T, H, W, 3) uint8 RGB; masks: (T, V, H, W) uint8 as in EpisodeSource.masks; task_index: the instruction's row in
    meta/tasks. stages: label -> (T,) bool; outcome: what was planned. All episodes of a folder have both or neither.
    """
    root = Path(root)
    for view in VIEWS:
        with atomic_path(file_path(root, VIDEO_PATH, episode.index, view)) as part:
            write_video(part, frames[view], episode.fps)
    if masks is not None:
        with atomic_path(file_path(root, MASK_PATH, episode.index)) as part:
            np.savez_compressed(part, masks=masks)
    length = len(episode.pose)
    frame = np.arange(length)
    columns = {
        "observation.state.cartesian_position": _rows(episode.pose[:, :6]),
        "observation.state.joint_position": _rows(episode.joints),
        "observation.state.gripper_position": pa.array(episode.pose[:, 6]),
        "action.cartesian_position": _rows(episode.action[:, :6]),
        "action.gripper_position": pa.array(episode.action[:, 6]),
        "is_episode_successful": pa.array([episode.success] * length, pa.bool_()),  # null when success is not known
        "language_instruction": pa.array([episode.instruction] * length),
        "timestamp": pa.array((frame / episode.fps).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.full(length, episode.index)),
        "index": pa.array(frame + episode.index * length),
        "task_index": pa.array(np.full(length, task_index)),
    }
    columns |= {STAGE + name: pa.array(labels) for name, labels in (stages or {}).items()}
    if outcome is not None:
        columns[OUTCOME] = pa.array([outcome] * length)
    with atomic_path(file_path(root, DATA_PATH, episode.index)) as part:
        pq.write_table(pa.table(columns), part)


def _rows(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def episode_statistics(root: str | Path, index: int) -> dict:
    """What `write_meta` lists of one episode: its length, task, labels, and min, max, mean, std and count of every numeric column and of
    every view's pixels.

    Computed from the files on disk, so that the result is the same whether they were written now or by an earlier run. Raises
    BadEpisode when a file cannot be read.
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
    extra = {"stages": [name for name in table.column_names if name.startswith(STAGE)], "outcome": first.get(OUTCOME)}
    task = {"task_index": first["task_index"], "task": first["language_instruction"]}
    return {"episode_index": index, "length": len(table), "shape": list(frames.shape[1:]), "task": task, "stats": stats, **extra}


def _statistics(values: np.ndarray, shape: tuple[int, ...], count: int) -> dict:
    kinds = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    return {**{k: v.reshape(shape).tolist() for k, v in kinds.items()}, "count": [count]}


def write_meta(root: str | Path, statistics: Iterable[dict], fps: float) -> None:
    """Write the four meta files for the episodes in `statistics` (see `episode_statistics`), info.json last. Raises UserError without
    episodes."""
    root, episodes = Path(root), sorted(statistics, key=lambda s: s["episode_index"])
    if not episodes:
        raise UserError(f"{root}: no episodes to list; ask for at least one")
    tasks = {e["task"]["task_index"]: e["task"]["task"] for e in episodes}
    listed = [
        {k: e[k] for k in ("episode_index", "length")} | {"tasks": [e["task"]["task"]]} | ({OUTCOME: e["outcome"]} if e["outcome"] else {})
        for e in episodes
    ]
    _write_lines(root / "meta/episodes.jsonl", listed)
    _write_lines(root / "meta/tasks.jsonl", [{"task_index": k, "task": tasks[k]} for k in sorted(tasks)])
    _write_lines(root / "meta/episodes_stats.jsonl", [{k: e[k] for k in ("episode_index", "stats")} for e in episodes])
    height, width, channels = episodes[0]["shape"]
    video = {"video.height": height, "video.width": width, "video.fps": fps, "video.channels": channels, **CODEC}
    features = {name: {"dtype": "float32", "shape": [size], "names": names} for name, (size, names) in FLOATS.items()}
    features |= {name: {"dtype": "bool", "shape": [1], "names": None} for name in ("is_episode_successful", *episodes[0]["stages"])}
    if episodes[0]["outcome"]:
        features[OUTCOME] = {"dtype": "string", "shape": [1], "names": None}
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

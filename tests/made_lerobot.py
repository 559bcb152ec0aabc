"""LeRobot data sets of three tiny episodes, v2.1 and v3.0, each with the quirk that a test asks for. Every frame has a grey of its own."""

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS, HEIGHT, WIDTH = 15, 16, 24
LENGTHS = (8, 9, 10)
TASKS = ("push the box", "lift the cup", "open the drawer")
KEYS = {"exterior_1": "observation.images.exterior_1_left", "wrist": "observation.images.wrist_left"}
Edit = Callable[[dict], Any]


def grey(episode: int, frame: int) -> int:
    return 20 + 60 * episode + 5 * frame


def write_clip(
    path: Path, greys: Sequence[int], fps: float = FPS, times: Sequence[float] | None = None, codec: str = "libx264",
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> None:  # fmt: skip
    """A video with a frame of each grey, a key frame at every third; `times` (s) are the frames' own, with an uneven clock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crf": "5", "g": "3"} if codec == "libx264" else {"crf": "20", "g": "2"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000 if times is not None else Fraction(fps).limit_denominator(1000), options=options)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for number, value in enumerate(greys):
            frame = av.VideoFrame.from_ndarray(np.full((*size, 3), value, np.uint8), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def greys_of(source: Any, index: int, view: str = "wrist") -> list[float]:
    return source.frames(index, view).mean((1, 2, 3)).tolist()


def own_greys(index: int, length: int | None = None) -> list[int]:
    return [grey(index, frame) for frame in range(length or LENGTHS[index])]


def _state(episode: int, frame: int) -> list[float]:
    return [episode + frame / 100, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5]


def _features(keys: Sequence[str]) -> dict[str, Any]:
    return {key: {"dtype": "video", "shape": [HEIGHT, WIDTH, 3]} for key in keys} | {
        "observation.state": {"dtype": "float32", "shape": [7]}
    }


def _columns(rows: Sequence[tuple[int, int]], fps: float) -> dict[str, Any]:
    return {
        "observation.state": [_state(i, f) for i, f in rows],
        "timestamp": pa.array([f / fps for _, f in rows], pa.float32()),
        "frame_index": [f for _, f in rows], "episode_index": [i for i, _ in rows], "task_index": [i for i, _ in rows],
    }  # fmt: skip


def make_v2(
    root: Path, columns: Callable[[int, int], dict] | None = None, listed: Edit | None = None, info: dict | None = None,
    greys: Callable[[int], Sequence[int]] | None = None, clip: dict | None = None, keys: dict[str, str] = KEYS,
) -> Path:  # fmt: skip
    """LeRobot v2.1. `columns(i, n)`: columns that differ; `listed(row)`: an edited row of episodes.jsonl; `greys(i)`: a video's frames."""
    raw = {
        "codebase_version": "v2.1", "fps": FPS, "features": _features(list(keys.values())), "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    } | (info or {})  # fmt: skip
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(raw))
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    (root / "meta/tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    rows = [{"episode_index": i, "length": n, "tasks": [TASKS[i]]} for i, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(listed(row) if listed else row) + "\n" for row in rows))
    for i, n in enumerate(LENGTHS):
        table = _columns([(i, f) for f in range(n)], FPS) | (columns(i, n) if columns else {})
        pq.write_table(pa.table(table), root / f"data/chunk-000/episode_{i:06d}.parquet")
        for key in keys.values():
            path = root / f"videos/chunk-000/{key}/episode_{i:06d}.mp4"
            write_clip(path, greys(i) if greys else own_greys(i), **(clip or {}))
    return root


def make_v3(
    root: Path, columns: Callable[[list], dict] | None = None, listed: Edit | None = None, info: dict | None = None,
    greys: Sequence[int] | None = None, clip: dict | None = None, keys: dict[str, str] = KEYS, fps: float = FPS,
) -> Path:  # fmt: skip
    """LeRobot v3.0, all episodes in one file. `listed(row)` edits a row of the list, or drops it (None); `greys`: the video's frames."""
    raw = {
        "codebase_version": "v3.0", "fps": fps, "features": _features(list(keys.values())),
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    } | (info or {})  # fmt: skip
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(raw))
    rows = [(i, f) for i, n in enumerate(LENGTHS) for f in range(n)]
    pq.write_table(pa.table(_columns(rows, fps) | (columns(rows) if columns else {})), root / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.table({"task_index": [0, 1, 2], "__index_level_0__": list(TASKS)}), root / "meta/tasks.parquet")
    for key in keys.values():
        write_clip(root / f"videos/{key}/chunk-000/file-000.mp4", greys or [grey(i, f) for i, f in rows], **({"fps": fps} | (clip or {})))
    found, at = [], 0
    for i, n in enumerate(LENGTHS):
        row = {"episode_index": i, "length": n, "tasks": [TASKS[i]], "data/chunk_index": 0, "data/file_index": 0}
        row |= {"dataset_from_index": at, "dataset_to_index": at + n}
        for key in keys.values():
            row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": 0}
            row |= {f"videos/{key}/from_timestamp": at / fps, f"videos/{key}/to_timestamp": (at + n) / fps}
        found.append(listed(row) if listed else row)
        at += n
    pq.write_table(pa.Table.from_pylist([row for row in found if row]), root / "meta/episodes/chunk-000/file-000.parquet")
    return root

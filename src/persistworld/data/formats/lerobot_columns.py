"""What LeRobot's v2.1 and v3.0 have in common: the features of info.json, and an episode's columns as an Episode.

DROID's columns come first: `observation.state.cartesian_position` (6) and `.gripper_position` make the pose, their
`action` twins the action. A data set without them gives its `observation.state` (D numbers) as the pose, and `action`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from persistworld.data.episodes import NO_INSTRUCTION, VIEWS, BadEpisode, Episode, recorded_success
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json

VIDEO_KEYS = {view: f"observation.images.{view}_left" for view in VIEWS}  # DROID's names
_DROID_VIEWS = {key: view for view, key in VIDEO_KEYS.items()}
INFO = "meta/info.json"
CHUNK = 1000  # episodes to a folder (v3.0: files), where info.json does not say


@dataclass(frozen=True)
class Info:
    """Of info.json: the version, frames a second, path templates, episodes to a folder, and view -> video key (DROID's first)."""

    version: str
    fps: float
    data_path: str
    video_path: str
    chunk: int
    video_keys: dict[str, str]


def read_info(root: Path) -> Info:
    """Read meta/info.json. Raises UserError when a key is missing, no feature is a video, or a number is none."""
    path = root / INFO
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not LeRobot's, expected keys with values; is this the data set's own file?")
    version = str(raw.get("codebase_version"))
    lacking = [key for key in ("fps", "data_path", "video_path", "features") if not raw.get(key)]
    if lacking:
        raise UserError(f"{path}: no key {lacking[0]}; this is not a whole LeRobot {version} data set with videos")
    keys = video_keys(raw["features"])
    if not keys:
        raise UserError(f"{path}: no video among its features; pictures that lie in parquet files are not read")
    if not isinstance(raw["fps"], int | float) or not raw["fps"] > 0:
        raise UserError(f"{path}: fps = {raw['fps']}: expected frames a second, e.g. 15")
    chunk = raw.get("chunks_size", CHUNK)
    if not isinstance(chunk, int) or chunk < 1:
        raise UserError(f"{path}: chunks_size = {chunk}: expected the number of episodes to a folder, usually {CHUNK}")
    return Info(version, float(raw["fps"]), raw["data_path"], raw["video_path"], chunk, keys)


def video_keys(features: dict[str, Any]) -> dict[str, str]:
    """View -> feature: DROID's three by their names, others by what follows `observation.images.`."""
    videos = [key for key, feature in features.items() if feature.get("dtype") == "video"]
    found = {view: key for view, key in VIDEO_KEYS.items() if key in videos}
    others = [key for key in videos if key not in _DROID_VIEWS]
    return found | {key.removeprefix("observation.images.").removeprefix("observation."): key for key in others}


def episode_of(index: int, table: pa.Table, path: Path, fps: float, task: str) -> Episode:
    """The numbers and words of one episode from its rows, which were read from `path`. `task` stands in where no column
    holds the instruction.

    Raises BadEpisode, naming `path`, when a column is missing, has another width, or the pose is not finite.
    """
    try:
        return _episode_of(index, table, fps, task)
    except BadEpisode as error:
        raise BadEpisode(index, f"{path}: {error.reason}") from None


def _episode_of(index: int, table: pa.Table, fps: float, task: str) -> Episode:
    pose = _pose(index, table, "observation.state")
    if pose is None:
        raise BadEpisode(index, "no column observation.state.cartesian_position or observation.state")
    if not np.isfinite(pose).all():
        raise BadEpisode(index, f"the pose is not finite at frame {int(np.argmin(np.isfinite(pose).all(1)))}")
    names = table.column_names
    joint = "observation.state.joint_position"
    words = str(table["language_instruction"][0].as_py() or "") if "language_instruction" in names else task
    return Episode(
        index=index,
        instruction=words,
        fps=fps,
        pose=pose,
        joints=_floats(index, table, joint, 7) if joint in names else None,
        action=_pose(index, table, "action"),
        success=recorded_success(index, table["is_episode_successful"][0].as_py()) if "is_episode_successful" in names else None,
        notes=() if words.strip() else (NO_INSTRUCTION,),
    )


def _pose(index: int, table: pa.Table, prefix: str) -> np.ndarray | None:
    """(T, 7) of DROID's two columns, or (T, D) of the one column `prefix`, float32; None without either."""
    cartesian, gripper = f"{prefix}.cartesian_position", f"{prefix}.gripper_position"
    names = table.column_names
    if cartesian in names and gripper in names:
        parts = [_floats(index, table, cartesian, 6), _floats(index, table, gripper, 1)]
        return np.concatenate(parts, axis=1)
    return _floats(index, table, prefix, -1) if prefix in names else None


def _floats(index: int, table: pa.Table, name: str, width: int) -> np.ndarray:
    """A column as (T, width) float32 (-1: any); DROID's exports keep a width of one as a scalar or as a list."""
    try:
        return np.array(table[name].to_pylist(), dtype=np.float32).reshape(len(table), width)
    except (TypeError, ValueError):
        wanted = "equally many" if width < 0 else width
        raise BadEpisode(index, f"column {name} is not {wanted} numbers a frame") from None

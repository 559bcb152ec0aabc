"""The common part of LeRobot v2.1 and v3.0: reads the features of info.json, and turns an episode's columns into an Episode.

DROID's columns are preferred: the pose is `observation.state.cartesian_position` (6) and `.gripper_position` (1), the action
is `action.cartesian_position` and `.gripper_position`. Without them, the pose is `observation.state` (D numbers), and the
action is `action`.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from persistworld.data.episodes import NO_INSTRUCTION, VIEWS, BadEpisode, Episode, recorded_success
from persistworld.data.formats.clocks import check_timestamps
from persistworld.data.formats.reading import check_template, odd_episode, read_mapping
from persistworld.data.formats.words import instruction
from persistworld.runtime.errors import UserError

VIDEO_KEYS = {view: f"observation.images.{view}_left" for view in VIEWS}  # the keys of cadene/droid_1.0.1, which the writer uses, too
# The names of DROID's cameras in its releases: observation.images.exterior_1_left (cadene/droid_1.0.1, lerobot/droid_1.0.1),
# observation.images.exterior_image_1_left (lerobot/droid_100, cadene/droid), observation.image.exterior_image_1_left
# (nvidia/Cosmos3-DROID).
_DROID_CAMERA = re.compile(r"(?:exterior_(?:image_)?(?P<number>[12])|wrist(?:_image)?)_left")
_PREFIX = re.compile(r"observation\.(?:images?\.)?")
JOINTS = ("observation.state.joint_position", "observation.state.joint_positions")  # the plural: nvidia/Cosmos3-DROID
INFO = "meta/info.json"
CHUNK = 1000  # default number of episodes (v3.0: files) per folder, if info.json has none


@dataclass(frozen=True)
class Info:
    """The content of info.json: version, frames per second, path templates, episodes per folder, and view -> video key (DROID's first)."""

    version: str
    fps: float
    data_path: str
    video_path: str
    chunk: int
    video_keys: dict[str, str]


def read_info(root: Path) -> Info:
    """Read meta/info.json. Raises UserError when a key is missing or invalid, or no feature is a video."""
    path = root / INFO
    raw = read_mapping(path)
    version = str(raw.get("codebase_version"))
    lacking = [key for key in ("fps", "data_path", "video_path", "features") if not raw.get(key)]
    if lacking:
        raise UserError(f"{path}: no key {lacking[0]}; this is not a whole LeRobot {version} data set with videos")
    fps, features = raw["fps"], raw["features"]
    if not isinstance(features, dict):
        raise UserError(f"{path}: features is {type(features).__name__}, expected keys with values, one for each column and camera")
    for key, feature in features.items():
        if not isinstance(feature, dict):
            raise UserError(f"{path}: features.{key} = {feature!r}: expected keys with values, such as dtype and shape")
    try:
        keys = video_keys(features)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not keys:
        raise UserError(f"{path}: no video among its features; pictures that lie in parquet files are not read")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise UserError(f"{path}: fps = {fps!r}: expected frames a second as a number, e.g. 15")
    chunk = raw.get("chunks_size", CHUNK)
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise UserError(f"{path}: chunks_size = {chunk!r}: expected the number of episodes to a folder, usually {CHUNK}")
    return Info(version, float(fps), raw["data_path"], raw["video_path"], chunk, keys)


def check_paths(root: Path, info: Info, known: dict[str, object], needed: tuple[str, ...]) -> None:
    """Raise UserError unless the path templates use only the placeholders in `known` (name -> example) and all of those in `needed`."""
    check_template(root / INFO, "data_path", info.data_path, known, needed)
    several = ("video_key",) if len(info.video_keys) > 1 else ()
    check_template(root / INFO, "video_path", info.video_path, known | {"video_key": "camera"}, (*needed, *several))


def video_keys(features: dict[str, Any]) -> dict[str, str]:
    """View -> feature key. DROID's three views are found by any of their names; others are named by what follows `observation.images.`.

    Raises UserError when two features would be the same view.
    """
    found: dict[str, str] = {}
    for key in (key for key, feature in features.items() if feature.get("dtype") == "video"):
        view = _view(key)
        if view in found:
            raise UserError(f"features {found[view]} and {key} would both be the view {view}; rename one of them, or remove it")
        found[view] = key
    return {view: found[view] for view in (*VIEWS, *found) if view in found}


def _view(key: str) -> str:
    name = _PREFIX.sub("", key, count=1) if _PREFIX.match(key) else key
    if camera := _DROID_CAMERA.fullmatch(name):
        return f"exterior_{camera['number']}" if camera["number"] else "wrist"
    return name


def episode_of(index: int, table: pa.Table, path: Path, fps: float, listed: dict[str, Any], tasks: dict[int, str]) -> Episode:
    """The Episode from its rows `table`, which were read from `path`.

    listed: the episode's row in the episode list; tasks: the data set's tasks. Both are used when no column holds the instruction.
    Raises BadEpisode, naming `path`, when a column is missing or has another width, the pose is not finite, or rows are missing.
    """
    try:
        with odd_episode(index, path):
            return _episode_of(index, table, fps, instruction(table, listed, tasks))
    except BadEpisode as error:
        raise error if str(path) in error.reason else BadEpisode(index, f"{path}: {error.reason}") from None


def _episode_of(index: int, table: pa.Table, fps: float, words: str) -> Episode:
    table, notes = _in_order(index, table)
    pose = _pose(index, table, "observation.state")
    if pose is None:
        raise BadEpisode(index, "no column observation.state.cartesian_position or observation.state")
    if not np.isfinite(pose).all():
        raise BadEpisode(index, f"the pose is not finite at frame {int(np.argmin(np.isfinite(pose).all(1)))}")
    names = table.column_names
    if "timestamp" in names:
        notes += check_timestamps(index, _numbers(index, table, "timestamp"), fps)
    joint = next((name for name in JOINTS if name in names), None)
    if not words:
        notes.append(NO_INSTRUCTION)
    return Episode(
        index=index,
        instruction=words,
        fps=fps,
        pose=pose,
        joints=_floats(index, table, joint, 7) if joint else None,
        action=_pose(index, table, "action"),
        success=recorded_success(index, table["is_episode_successful"][0].as_py()) if "is_episode_successful" in names else None,
        notes=tuple(notes),
    )


def _in_order(index: int, table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The rows, sorted by frame, and notes. Raises BadEpisode when rows belong to another episode, are missing or are doubled."""
    names, notes = table.column_names, []
    if "episode_index" in names and (others := set(np.unique(_numbers(index, table, "episode_index"))) - {index}):
        raise BadEpisode(index, f"its rows are of episode {min(others):g} (column episode_index)")
    if "frame_index" not in names:
        return table, notes
    number = _numbers(index, table, "frame_index")
    order = np.argsort(number, kind="stable")
    if (order != np.arange(len(order))).any():
        table, number = table.take(pa.array(order)), number[order]
        notes.append("rows were not in the order of frame_index")
    steps = np.diff(number)
    if not np.isfinite(number).all() or (steps != 1).any():
        wrong = int(np.argmax(steps != 1))
        raise BadEpisode(index, f"frame_index goes from {number[wrong]:g} to {number[wrong + 1]:g}: rows are missing or doubled")
    if number[0] != 0:
        notes.append("frame_index does not begin at 0")
    return table, notes


def _pose(index: int, table: pa.Table, prefix: str) -> np.ndarray | None:
    """The pose or action, float32: (T, 7) from DROID's two columns, or (T, D) from the column `prefix`; None without either."""
    cartesian, gripper = f"{prefix}.cartesian_position", f"{prefix}.gripper_position"
    names = table.column_names
    if cartesian in names and gripper in names:
        parts = [_floats(index, table, cartesian, 6), _floats(index, table, gripper, 1)]
        return np.concatenate(parts, axis=1)
    return _floats(index, table, prefix, -1) if prefix in names else None


def _floats(index: int, table: pa.Table, name: str, width: int, kind: type = np.float32) -> np.ndarray:
    """A column as (T, width) numbers; -1 accepts any width. DROID's exports store a width of one as a scalar or as a list."""
    try:
        return np.array(table[name].to_pylist(), dtype=kind).reshape(len(table), width)
    except (TypeError, ValueError):
        wanted = "equally many" if width < 0 else width
        raise BadEpisode(index, f"column {name} is not {wanted} numbers a frame") from None


def _numbers(index: int, table: pa.Table, name: str) -> np.ndarray:
    """A column with one number per frame as (T,) float64, for times and counts. float32 is not precise enough for them."""
    return _floats(index, table, name, 1, np.float64)[:, 0]

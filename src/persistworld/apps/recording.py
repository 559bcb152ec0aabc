"""Saves a drive or a policy's episode, as a film or as an episode of a data set that this project can read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from persistworld.apps.film import write_film
from persistworld.data.episodes import VIEWS, Episode
from persistworld.data.formats.lerobot_v2 import LeRobotEpisodes
from persistworld.data.formats.lerobot_writer import episode_statistics, write_episode, write_meta
from persistworld.runtime.errors import UserError


@dataclass
class Recording:
    """All frames and poses since the start. frames: by model, (T, V, H, W, 3); poses and commands: by model, (T, 7); joints or None."""

    frames: dict[str, list[np.ndarray]] = field(default_factory=dict)
    poses: dict[str, list[np.ndarray]] = field(default_factory=dict)
    joints: dict[str, list[np.ndarray | None]] = field(default_factory=dict)
    commands: list[np.ndarray] = field(default_factory=list)  # one fewer: a command leads from a frame to the next

    def cut(self, length: int) -> None:
        """Forget all frames after the first `length`."""
        for rows in (*self.frames.values(), *self.poses.values(), *self.joints.values()):
            del rows[length:]
        del self.commands[length - 1 :]


def save_film(path: Path, recording: Recording, fps: float, labels: Mapping[str, str], title: str) -> None:
    """All models side by side, as mp4."""
    columns = {labels.get(name, name): np.stack(frames) for name, frames in recording.frames.items()}
    write_film(path, columns, fps, title=title)


def save_episode(folder: Path, recording: Recording, model: str, views: Sequence[str], fps: float, instruction: str) -> int:
    """Add the drive in `model` to the LeRobot data set `folder`, which is created if needed. Returns the episode's index.

    Raises UserError if the layout cannot hold it: other views than DROID's three, or no recorded joints.
    """
    if tuple(views) != VIEWS:
        raise UserError(f"a LeRobot episode needs the views {', '.join(VIEWS)}; this model has {', '.join(views)}")
    joints = recording.joints[model]
    if any(angles is None for angles in joints):
        raise UserError("a LeRobot episode needs a Panda's joints, which are not known here")
    known = LeRobotEpisodes(folder) if (folder / "meta/info.json").is_file() else None
    if known is not None and known.fps != fps:
        raise UserError(f"{folder}: has {known.fps:g} frames a second, this recording {fps:g}; choose another folder")
    indices = known.indices() if known else []
    index = max(indices, default=-1) + 1
    commands = [*recording.commands, recording.commands[-1] if recording.commands else recording.poses[model][0]]
    arrays = [np.asarray(rows, np.float32) for rows in (recording.poses[model], joints, commands)]
    frames = np.stack(recording.frames[model])
    pictures = {view: np.ascontiguousarray(frames[:, v]) for v, view in enumerate(views)}
    task = _task_index(folder, instruction)
    write_episode(folder, Episode(index, instruction, fps, *arrays, None), pictures, task_index=task)
    write_meta(folder, [episode_statistics(folder, i) for i in [*indices, index]], fps)
    return index


def _task_index(folder: Path, instruction: str) -> int:
    """The instruction's number in the data set, or the next free one."""
    path = folder / "meta/tasks.jsonl"
    tasks = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {row["task"]: row["task_index"] for row in tasks}
    return known.get(instruction, max(known.values(), default=-1) + 1)

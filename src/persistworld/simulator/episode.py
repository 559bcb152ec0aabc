"""One simulated episode: a scene, a script, and what the cameras and the robot's sensors recorded.

The stand-in for DROID: a Franka Panda in PyBullet at `fps` (5 Hz), two external views and a wrist view.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from persistworld.data.episodes import VIEWS, Episode
from persistworld.runtime.errors import UserError
from persistworld.simulator.scene import PHYSICS_STEP, Scene
from persistworld.simulator.tasks import COLOURS, Waypoint, sample_task, script, start_waypoint, succeeded

SIMULATOR_VERSION = 3  # raise it whenever the same (seed, index) gives other bytes
STEPS_PER_COMMAND = 4  # physics steps: the arm is commanded at 30 Hz


@dataclass(frozen=True)
class SimulatedEpisode:
    """`frames` per view (T, H, W, 3) uint8 RGB, `masks` (T, V, H, W) uint8 as in EpisodeSource.masks."""

    episode: Episode
    intent: str
    frames: dict[str, np.ndarray]
    masks: np.ndarray
    success: bool


class _Motion:
    """Smooth motion through waypoints (rest to rest, cosine speed), planned one waypoint at a time."""

    def __init__(self, start: Waypoint, waypoints):
        self._from, self._waypoints, self._time = start, waypoints, 0.0
        self._to = next(waypoints)

    def advance(self, seconds: float) -> tuple[np.ndarray, np.ndarray, float]:
        """The commanded fingertip position (3,), Euler angles (3,) and gripper after `seconds` more."""
        self._time += seconds
        while self._time >= self._to.seconds:
            self._time -= self._to.seconds
            self._from, self._to = self._to, next(self._waypoints)
        s = 0.5 - 0.5 * math.cos(math.pi * self._time / self._to.seconds)
        a, b = self._from, self._to
        position = (1 - s) * np.array(a.position) + s * np.array(b.position)
        x, y = (1 - s) * np.array(a.tilt) + s * np.array(b.tilt)
        grip_share = min(1.0, 2.5 * self._time / self._to.seconds)  # the fingers move first, then the arm is quiet
        gripper = (1 - grip_share) * a.gripper + grip_share * b.gripper
        return position, np.array([math.pi + x, y, (1 - s) * a.yaw + s * b.yaw]), gripper


def simulate_episode(
    index: int, seed: int, *, frames: int, height: int, width: int, fps: float, colours: Sequence[str] = tuple(COLOURS)
) -> SimulatedEpisode:
    """Simulate episode `index` of `frames` frames at `fps`; the same arguments give the same bytes.

    The manipulated object has one of `colours` (keys of COLOURS); everything else keeps its own palette.

    Raises UserError for sizes that cannot be simulated.
    """
    steps = round(1 / fps / PHYSICS_STEP) if fps > 0 else 0
    if steps < STEPS_PER_COMMAND or frames < 1 or min(height, width) < 8:
        raise UserError(f"cannot simulate {frames} frames of {height}x{width} at {fps} fps (from 1, 8x8; fps to 30)")
    rng = np.random.default_rng([seed, index])
    task = sample_task(rng, colours)
    scene = Scene(task, rng, height, width)
    try:
        return _record(index, scene, task, rng, frames, fps, steps)
    finally:
        scene.close()


def _record(index, scene, task, rng, frames, fps, steps) -> SimulatedEpisode:
    start = start_waypoint(rng)
    scene.place_arm(start.position, (math.pi, 0.0, start.yaw), start.gripper)
    motion = _Motion(start, script(task, rng, scene.object_pose))
    first, _ = scene.object_pose()
    poses, joints, actions, pictures, masks = [], [], [], [], []
    for _ in range(frames):
        pose, angles = scene.robot_state()
        picture, mask = scene.render()
        remaining = steps
        while remaining:  # what is commanded during a frame is that frame's action
            count = min(STEPS_PER_COMMAND, remaining)
            position, euler, gripper = motion.advance(count * PHYSICS_STEP)
            scene.command(position, euler, gripper)
            scene.step(count)
            remaining -= count
        poses.append(pose)
        joints.append(angles)
        actions.append([*position, *euler, gripper])
        pictures.append(picture)
        masks.append(mask)
    last, _ = scene.object_pose()
    success = bool(succeeded(task, first, last, scene.holding))
    arrays = [np.asarray(a, dtype=np.float32) for a in (poses, joints, actions)]
    arrays[2][:, 3:6] = (arrays[2][:, 3:6] + np.pi) % (2 * np.pi) - np.pi
    episode = Episode(index, task.instruction, float(fps), *arrays, success)
    stacked = np.stack(pictures)
    views = {view: np.ascontiguousarray(stacked[:, v]) for v, view in enumerate(VIEWS)}
    return SimulatedEpisode(episode, task.intent, views, np.stack(masks), success)

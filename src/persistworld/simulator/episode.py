"""Simulates one episode: runs a script in a scene, and records the cameras and the robot's state.

It serves as a substitute for DROID: a Franka Panda in PyBullet at `fps` (5 Hz), with two external views and a wrist view.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from persistworld.config.data import OUTCOMES, OutcomesConfig
from persistworld.data.episodes import VIEWS, Episode
from persistworld.runtime.errors import UserError
from persistworld.simulator.labels import stages
from persistworld.simulator.scene import PHYSICS_STEP, Scene
from persistworld.simulator.scripts import Waypoint, script, start_waypoint
from persistworld.simulator.tasks import COLOURS, Task, sample_task, succeeded

SIMULATOR_VERSION = 4  # increase it whenever a change gives other bytes for the same (seed, index)
STEPS_PER_COMMAND = 4  # physics steps per command: the arm gets commands at 30 Hz


@dataclass(frozen=True)
class SimulatedEpisode:
    """A simulated episode of `task`.

    `frames`: view -> (T, H, W, 3) uint8 RGB; `masks`: (T, V, H, W) uint8 as in EpisodeSource.masks; `stages`: (T, 5) bool, labels.STAGES in
    each frame. `success` is about the end of the last frame's action, 1 / fps s after the last frame.
    """

    episode: Episode
    task: Task
    frames: dict[str, np.ndarray]
    masks: np.ndarray
    stages: np.ndarray
    success: bool


class _Motion:
    """Smooth motion through waypoints, planned one waypoint at a time. The arm rests at each waypoint and follows a half cosine between."""

    def __init__(self, start: Waypoint, waypoints):
        self._from, self._waypoints, self._time = start, waypoints, 0.0
        self._to = next(waypoints)

    def advance(self, seconds: float) -> tuple[np.ndarray, np.ndarray, float]:
        """The commanded fingertip position (3,) in m, Euler angles (3,) in rad and gripper 0..1, another `seconds` later."""
        self._time += seconds
        while self._time >= self._to.seconds:
            self._time -= self._to.seconds
            self._from, self._to = self._to, next(self._waypoints)
        s = 0.5 - 0.5 * math.cos(math.pi * self._time / self._to.seconds)
        a, b = self._from, self._to
        position = (1 - s) * np.array(a.position) + s * np.array(b.position)
        x, y = (1 - s) * np.array(a.tilt) + s * np.array(b.tilt)
        grip_share = min(1.0, 2.5 * self._time / self._to.seconds)  # the fingers finish moving before the arm does
        gripper = (1 - grip_share) * a.gripper + grip_share * b.gripper
        return position, np.array([math.pi + x, y, (1 - s) * a.yaw + s * b.yaw]), gripper


def simulate_episode(
    index: int, seed: int, *, frames: int, height: int, width: int, fps: float, colours: Sequence[str] = tuple(COLOURS),
    outcomes: OutcomesConfig = OUTCOMES,
) -> SimulatedEpisode:  # fmt: skip
    """Simulate episode `index` with `frames` frames at `fps`. The same arguments give the same bytes.

    The manipulated object gets one of `colours` (keys of COLOURS). All other objects use their own palettes.
    `outcomes`: the shares of the planned outcomes.

    Raises UserError for sizes that cannot be simulated.
    """
    steps = round(1 / fps / PHYSICS_STEP) if fps > 0 else 0
    if steps < STEPS_PER_COMMAND or frames < 1 or min(height, width) < 8:
        raise UserError(f"cannot simulate {frames} frames of {height}x{width} at {fps} fps (from 1, 8x8; fps to 30)")
    rng = np.random.default_rng([seed, index])
    task = sample_task(rng, colours, outcomes)
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
    poses, joints, actions, pictures, masks, labels = [], [], [], [], [], []
    for _ in range(frames):
        pose, angles = scene.robot_state()
        picture, mask = scene.render()
        labels.append(stages(task, first, scene))
        remaining = steps
        while remaining:  # the last command during a frame is the frame's action
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
    return SimulatedEpisode(episode, task, views, np.stack(masks), np.stack(labels), success)

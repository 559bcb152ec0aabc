"""Kinds of actions: the poses of the next frames (absolute, or relative to the current pose), or joint velocities.

An action covers one chunk of the world model: the n = L - 1 frames after the current one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from persistworld.config.checks import require
from persistworld.robot.control import EULER, GRIPPER, Controller
from persistworld.robot.kinematics import JOINTS, Tool, forward, inverse
from persistworld.runtime.errors import UserError

Kind = Literal["absolute", "relative", "joint_velocity"]
KINDS: tuple[Kind, ...] = ("absolute", "relative", "joint_velocity")


@dataclass(frozen=True)
class Reached:
    """The result of a chunk's commands, one row per frame: commanded and reached poses (n, 7), and joints (n, 7) or None."""

    commands: np.ndarray
    poses: np.ndarray
    joints: np.ndarray | None


@dataclass(frozen=True)
class Actions:
    """The actions of one environment: `frames` (n) frames per chunk at `fps`; joint velocities have `rate` rows per second.

    | kind | shape | a row |
    |---|---|---|
    | absolute | (n, 7) | x, y, z (m), Euler xyz (rad), gripper 0..1 (1 = closed) |
    | relative | (n, 7) | the same from the current pose: displacement, rotation about the base's axes; the gripper is absolute |
    | joint_velocity | (n * rate / fps, 8) | seven joint velocities (rad/s), gripper 0..1 |
    """

    kind: Kind
    frames: int
    fps: float
    rate: float = 15.0
    numbers: int = GRIPPER + 1  # in a pose

    def __post_init__(self) -> None:
        require(self.kind in KINDS, "action", self.kind, f"choose from {', '.join(KINDS)}")
        if self.kind != "absolute" and self.numbers != GRIPPER + 1:
            raise UserError(f"action = {self.kind}: poses have {self.numbers} numbers, not 7; choose absolute")
        whole = self.rate > 0 and abs(self.rate / self.fps - round(self.rate / self.fps)) < 1e-9
        require(self.kind != "joint_velocity" or whole, "rate", self.rate, f"must be a multiple of the {self.fps:g} frames a second")

    @property
    def per_frame(self) -> int:
        """Rows of an action for each frame."""
        return round(self.rate / self.fps) if self.kind == "joint_velocity" else 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.frames * self.per_frame, self.numbers if self.kind != "joint_velocity" else JOINTS + 1

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest row: generous limits of what the arm can do. Unlimited for poses of another robot."""
        if self.kind == "joint_velocity":
            high = np.array([*[np.pi] * JOINTS, 1.0])
        elif self.numbers == GRIPPER + 1:
            high = np.array([1.0, 1.0, 1.2, np.pi, np.pi, np.pi, 1.0])
        else:
            high = np.full(self.numbers, np.inf)
        low = -high
        if self.kind == "joint_velocity" or self.numbers == GRIPPER + 1:
            low[-1] = 0.0
        return low, high

    def commands(self, action: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """The commanded poses (n, numbers) of an action that consists of poses, given the current pose."""
        action = self.checked(action)
        if self.kind == "absolute":
            return action
        action[:, :3] += pose[:3]
        turns = Rotation.from_euler("xyz", action[:, EULER]) * Rotation.from_euler("xyz", pose[EULER])
        action[:, EULER] = turns.as_euler("xyz")
        return action

    def reached(
        self, action: np.ndarray, pose: np.ndarray, joints: np.ndarray | None, tool: Tool | None, control: Controller, stop: float = 1.0
    ) -> Reached:
        """Carry out an action from `pose`, and from `joints` (7,) for a Panda whose poses describe `tool`. `stop`: as for Controller.reach.

        Raises UserError for an action of another shape or with numbers that are not finite, and for joint velocities without joints.
        """
        if self.kind != "joint_velocity":
            commands = self.commands(action, pose)
            poses = control.reach(pose, commands, stop)
            return Reached(commands, poses, None if joints is None or tool is None else follow(poses, joints, tool))
        if joints is None or tool is None:
            raise UserError("action = joint_velocity: the start has no joints and its poses are not a Panda's; choose absolute or relative")
        action, every = self.checked(action), slice(self.per_frame - 1, None, self.per_frame)
        wanted = joints + np.cumsum(action[:, :JOINTS] / self.rate, axis=0)
        angles = control.reach_joints(joints, action[:, :JOINTS], self.rate)[every]
        places, grips = forward(angles, tool), action[every, JOINTS:]
        commands = np.concatenate([forward(wanted[every], tool), grips], axis=1)
        # The arm is where its joints are; the gripper follows its own command.
        moved = np.concatenate([places, grips], axis=1)
        poses = np.concatenate([places, control.reach(pose, moved, stop)[:, GRIPPER:]], axis=1)
        return Reached(commands, poses, angles)

    def checked(self, action: np.ndarray) -> np.ndarray:
        """A copy of the action as float64. Raises UserError for another shape, or if a number is not finite."""
        action = np.array(action, np.float64)
        if action.shape != self.shape:
            raise UserError(f"action: shape {action.shape}, expected {self.shape} for {self.kind}")
        if not np.isfinite(action).all():
            raise UserError("action: holds numbers that are not finite")
        return action


def follow(poses: np.ndarray, joints: np.ndarray, tool: Tool) -> np.ndarray:
    """The joints (n, 7) of a Panda whose tool follows `poses` (n, 7), starting at `joints` (7,)."""
    angles = []
    for pose in poses:
        joints = inverse(pose, tool, joints)
        angles.append(joints)
    return np.stack(angles)

"""Controllers: they turn commanded poses into reached poses, on which a world model is conditioned.

An environment takes any object with the methods of `Controller`. The assumptions of a controller affect every closed-loop result, so report
such results together with a replay of poses that were really reached.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

EULER = slice(3, 6)
GRIPPER = 6


class Controller(Protocol):
    """The methods that an environment calls."""

    def reach(self, pose: np.ndarray, commands: np.ndarray, stop: float) -> np.ndarray:
        """The poses (n, 7) reached one frame after each of `commands` (n, 7), starting at `pose` (7,).

        stop: how far the gripper can close, 0..1: its value when the fingers touch the object between them. Without an object, it is 1.
        """

    def reach_joints(self, joints: np.ndarray, velocities: np.ndarray, rate: float) -> np.ndarray:
        """The joint angles (n, 7) reached after each of the commanded `velocities` (n, 7; rad/s), `rate` of them a second."""


@dataclass(frozen=True)
class Follower:
    """An arm that covers a fixed share of the way to each command, and a gripper with a maximum speed.

    reached = previous + pose_share * (command - previous), a rotation along its shortest arc; joints and gripper likewise. The fingers
    move at most `gripper_step` (of 0..1) a frame and close no further than `stop`.
    """

    pose_share: float = 1.0
    joint_share: float = 1.0
    gripper_share: float = 1.0
    gripper_step: float = 1.0

    def reach(self, pose: np.ndarray, commands: np.ndarray, stop: float = 1.0) -> np.ndarray:
        reached = []
        for command in commands:
            following = toward(pose, command, self.pose_share)
            change = np.clip(self.gripper_share * (command[GRIPPER] - pose[GRIPPER]), -self.gripper_step, self.gripper_step)
            following[GRIPPER] = pose[GRIPPER] + change
            if change > 0:
                following[GRIPPER] = min(following[GRIPPER], max(stop, pose[GRIPPER]))
            reached.append(following)
            pose = following
        return np.stack(reached)

    def reach_joints(self, joints: np.ndarray, velocities: np.ndarray, rate: float) -> np.ndarray:
        return joints + np.cumsum(self.joint_share * velocities / rate, axis=0)


EXACT = Follower()
# Measured: docs/step_inside.md says on what, and how near it comes.
TABLETOP = Follower(pose_share=0.93, joint_share=0.93, gripper_share=0.75, gripper_step=0.65)
DROID = Follower(pose_share=0.46, joint_share=0.28, gripper_step=0.25)
CONTROLLERS: dict[str, Follower] = {"exact": EXACT, "tabletop": TABLETOP, "droid": DROID}


def toward(pose: np.ndarray, command: np.ndarray, share: float) -> np.ndarray:
    """`share` of the way from `pose` (7,) to `command` (7,): position and gripper along the line, rotation along the shortest arc.

    Poses that do not have 7 numbers are interpolated linearly in all of them.
    """
    pose, command = np.asarray(pose, np.float64), np.asarray(command, np.float64)
    between = pose + share * (command - pose)
    if len(pose) == GRIPPER + 1:
        start = Rotation.from_euler("xyz", pose[EULER])
        turn = (Rotation.from_euler("xyz", command[EULER]) * start.inv()).as_rotvec()
        between[EULER] = (Rotation.from_rotvec(share * turn) * start).as_euler("xyz")
    return between

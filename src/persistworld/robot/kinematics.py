"""Forward and inverse kinematics of the Franka Panda, on batches.

Data sets describe different points of the arm with a pose: DROID the flange (its poses agree with `forward` of its joints to 1e-7 m and
rad), the tabletop simulator the point between the fingertips. Lengths in m, angles in rad, in the robot's base frame.
"""

from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from persistworld.runtime.errors import UserError

Tool = Literal["flange", "fingertips"]
JOINTS = 7
# From each joint's frame to the next one's: translation, and rotation about x (pybullet_data/franka_panda/panda.urdf).
_LINKS = (
    ((0.0, 0.0, 0.333), 0.0),
    ((0.0, 0.0, 0.0), -np.pi / 2),
    ((0.0, -0.316, 0.0), np.pi / 2),
    ((0.0825, 0.0, 0.0), np.pi / 2),
    ((-0.0825, 0.384, 0.0), -np.pi / 2),
    ((0.0, 0.0, 0.0), np.pi / 2),
    ((0.088, 0.0, 0.0), np.pi / 2),
)
# From the last joint's frame: distance along its axis, and turn about it. The hand is mounted at -45 degrees.
_TOOLS: dict[Tool, tuple[float, float]] = {"flange": (0.107, 0.0), "fingertips": (0.107 + 0.105, -np.pi / 4)}
LOWER = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])  # the manufacturer's joint limits
UPPER = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
REST = np.array([0.0, -0.35, 0.0, -2.5, 0.0, 2.15, 0.785])  # the hand points down; where `inverse` begins without a guess
_SAME = 2e-3  # m and rad: a recorded pose this close to `forward` is of that tool
_DAMPING, _STEPS, _CLOSE = 1e-4, 60, 1e-6


def forward(joints: np.ndarray, tool: Tool) -> np.ndarray:
    """Joint angles (..., 7) -> x, y, z and Euler xyz (..., 6) of the tool."""
    joints = np.asarray(joints, np.float64)
    places, turns, _ = _chain(joints.reshape(-1, JOINTS), tool)
    euler = Rotation.from_matrix(turns).as_euler("xyz")
    return np.concatenate([places, euler], axis=1).reshape(*joints.shape[:-1], 6)


def inverse(pose: np.ndarray, tool: Tool, guess: np.ndarray = REST) -> np.ndarray:
    """Joint angles (7,) that bring the tool to `pose` (6 or more numbers: x, y, z, Euler xyz), near `guess` (7,).

    Damped least squares within the joint limits. For a pose out of reach, the result is the closest that the iteration finds; `forward`
    of it shows how close.
    """
    joints, wanted = np.clip(np.asarray(guess, np.float64), LOWER, UPPER), Rotation.from_euler("xyz", pose[3:6]).as_matrix()
    for _ in range(_STEPS):
        places, turns, axes = _chain(joints[None], tool)
        turn = Rotation.from_matrix(wanted @ turns[0].T).as_rotvec()
        error = np.concatenate([np.asarray(pose[:3], np.float64) - places[0], turn])
        if np.abs(error).max() < _CLOSE:
            break
        points, directions = axes
        jacobian = np.concatenate([np.cross(directions[0], places[0] - points[0]), directions[0]], axis=1).T
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + _DAMPING * np.eye(6), error)
        joints = np.clip(joints + step, LOWER, UPPER)
    return joints


def tool_of(joints: np.ndarray, poses: np.ndarray) -> Tool:
    """The point of the arm that recorded `poses` (T, 6 or more) describe, found from the joints (T, 7) recorded with them.

    Raises UserError if it is neither: the robot is not a Panda, or its base is not the origin of its poses.
    """
    distances = {}
    for tool in _TOOLS:
        found = forward(joints, tool)
        turns = Rotation.from_euler("xyz", found[:, 3:]) * Rotation.from_euler("xyz", poses[:, 3:6]).inv()
        distances[tool] = max(np.abs(found[:, :3] - poses[:, :3]).max(), turns.magnitude().max())
        if distances[tool] < _SAME:
            return tool
    nearest = min(distances, key=distances.__getitem__)
    raise UserError(
        f"the poses are not those of a Panda with these joints (nearest: its {nearest}, {distances[nearest]:.3f} m or rad off); "
        "use absolute or relative poses as actions, which need no joints"
    )


def _chain(joints: np.ndarray, tool: Tool) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Joints (N, 7) -> the tool's place (N, 3) and rotation (N, 3, 3), and each joint's point and axis, (N, 7, 3) each."""
    place, turn = np.zeros((len(joints), 3)), np.broadcast_to(np.eye(3), (len(joints), 3, 3))
    points, axes = [], []
    for k, (offset, roll) in enumerate(_LINKS):
        place = place + turn @ np.array(offset)
        turn = turn @ _about_x(roll)
        points.append(place)
        axes.append(turn[:, :, 2])
        turn = turn @ _about_z(joints[:, k])
    distance, yaw = _TOOLS[tool]
    place = place + distance * turn[:, :, 2]
    return place, turn @ _about_z(np.array([yaw])), (np.stack(points, 1), np.stack(axes, 1))


def _about_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_z(angles: np.ndarray) -> np.ndarray:
    c, s, zero, one = np.cos(angles), np.sin(angles), np.zeros_like(angles), np.ones_like(angles)
    return np.stack([np.stack([c, -s, zero], -1), np.stack([s, c, zero], -1), np.stack([zero, zero, one], -1)], -2)

"""Poses as the world model takes them: representation of the rotation, statistics, normalisation (Ctrl-World, FACTS 1)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

Representation = Literal["euler", "continuous"]


def represent(poses: np.ndarray, rotation: Representation) -> np.ndarray:
    """(T, 7) x y z, Euler xyz, gripper -> (T, 7) as it is, or (T, 10) with the rotation matrix's first two columns.

    Euler angles jump at +-pi, which a gripper that points down crosses; the columns do not (Zhou et al., CVPR 2019).
    """
    if rotation == "euler":
        return poses.astype(np.float32)
    matrix = Rotation.from_euler("xyz", poses[:, 3:6]).as_matrix()
    columns = matrix[:, :, :2].transpose(0, 2, 1).reshape(len(poses), 6)
    return np.concatenate([poses[:, :3], columns, poses[:, 6:]], axis=1).astype(np.float32)


def pose_size(rotation: Representation) -> int:
    """Numbers per pose in a representation, for a pose of 7."""
    return 7 if rotation == "euler" else 10


@dataclass(frozen=True)
class PoseStatistics:
    """1st and 99th percentile of each dimension over the training split, in the representation named."""

    rotation: Representation
    low: tuple[float, ...]
    high: tuple[float, ...]

    def normalise(self, poses: np.ndarray) -> np.ndarray:
        """(T, 7) poses in m, rad, 0..1 -> (T, D) in [-1, 1], clipped."""
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        span = np.maximum(high - low, 1e-6)
        return np.clip(2 * (represent(poses, self.rotation) - low) / span - 1, -1, 1).astype(np.float32)


def pose_statistics(poses: np.ndarray, rotation: Representation) -> PoseStatistics:
    """Statistics of all training poses (N, 7), concatenated over episodes."""
    low, high = np.percentile(represent(poses, rotation), [1, 99], axis=0)
    return PoseStatistics(rotation, tuple(map(float, low)), tuple(map(float, high)))

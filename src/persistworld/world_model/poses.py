"""Poses as the world model takes them: representation of the rotation, statistics, normalisation (Ctrl-World's)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from persistworld.runtime.errors import UserError

Representation = Literal["euler", "continuous"]
EULER = slice(3, 6)  # where `continuous` finds the rotation


def represent(poses: np.ndarray, rotation: Representation) -> np.ndarray:
    """(T, 7) x y z, Euler xyz, gripper -> (T, 7) as it is, or (T, 10) with the rotation matrix's first two columns.

    Euler angles jump at +-pi, which a gripper that points down crosses; the columns do not (Zhou et al., CVPR 2019).
    Poses of another robot, (T, D), pass as they are, or with D + 3 numbers. Raises UserError when they are too short for angles.
    """
    if rotation == "euler":
        return poses.astype(np.float32)
    if poses.shape[1] < EULER.stop:
        raise UserError(
            f"world_model.rotation = continuous: takes the fourth to sixth number of a pose for Euler angles, but poses have "
            f"{poses.shape[1]} numbers; set euler, which passes any pose on as it is"
        )
    matrix = Rotation.from_euler("xyz", poses[:, EULER]).as_matrix()
    columns = matrix[:, :, :2].transpose(0, 2, 1).reshape(len(poses), 6)
    return np.concatenate([poses[:, : EULER.start], columns, poses[:, EULER.stop :]], axis=1).astype(np.float32)


def pose_size(rotation: Representation) -> int:
    """Numbers per pose in a representation, for a pose of 7."""
    return 7 if rotation == "euler" else 10


@dataclass(frozen=True)
class PoseStatistics:
    """1st and 99th percentile of each dimension over the training split, in the representation named."""

    rotation: Representation
    low: tuple[float, ...]
    high: tuple[float, ...]

    def outside(self, poses: np.ndarray) -> np.ndarray:
        """(D,) share of the poses (N, 7), as this represents them, whose number is below `low` or above `high` and would be clipped.

        Of poses like those that the statistics are of it is .02. Raises UserError as `normalise` does.
        """
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        found = self._represented(poses)
        slack = 1e-3 * (high - low) + 1e-5  # rounding; a number that never changes has no span
        return ((found < low - slack) | (found > high + slack)).mean(axis=0)

    def normalise(self, poses: np.ndarray) -> np.ndarray:
        """(T, 7) poses in m, rad, 0..1 -> (T, D) in [-1, 1], clipped.

        Raises UserError when poses have another number of numbers than those that the statistics are of.
        """
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        found = self._represented(poses)
        span = np.maximum(high - low, 1e-6)
        return np.clip(2 * (found - low) / span - 1, -1, 1).astype(np.float32)

    def _represented(self, poses: np.ndarray) -> np.ndarray:
        found = represent(poses, self.rotation)
        if found.shape[1] != len(self.low):  # numpy would take one number for seven
            raise UserError(
                f"poses have {found.shape[1]} numbers (rotation {self.rotation}), but the checkpoint's pose statistics are of "
                f"{len(self.low)}: another robot's checkpoint; choose base_checkpoint or episodes that fit, or train a base model "
                "(base_training)"
            )
        return found


def pose_statistics(poses: np.ndarray, rotation: Representation) -> PoseStatistics:
    """Statistics of all training poses (N, 7), concatenated over episodes."""
    low, high = np.percentile(represent(poses, rotation), [1, 99], axis=0)
    return PoseStatistics(rotation, tuple(map(float, low)), tuple(map(float, high)))


# Ctrl-World's percentiles over DROID at 5 Hz (its stat.json); they belong to its checkpoint and to what is post-trained
# from it.
CTRL_WORLD_STATISTICS = PoseStatistics(
    rotation="euler",
    low=(
        0.2676655471324921,
        -0.441715806722641,
        -0.042784303426742554,
        -3.1373724937438965,
        -1.214390754699707,
        -2.11581574678421,
        0.0,
    ),
    high=(
        0.781050771474838,
        0.4366717040538788,
        0.7843997478485107,
        3.137465238571167,
        0.9039141565561147,
        1.9915846586227417,
        0.9911894202232361,
    ),
)

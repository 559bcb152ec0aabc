"""Poses as inputs of the world model: rotation representation, statistics and normalisation, as in Ctrl-World."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from persistworld.runtime.errors import UserError

Representation = Literal["euler", "continuous"]
EULER = slice(3, 6)  # the rotation that `continuous` converts


def represent(poses: np.ndarray, rotation: Representation) -> np.ndarray:
    """(T, 7) x y z, Euler xyz, gripper -> (T, 7) unchanged, or (T, 10) with the first two columns of the rotation matrix.

    Euler angles jump at +-pi, which a downward gripper crosses. The columns are continuous (Zhou et al., CVPR 2019).
    Poses of another robot (T, D) give (T, D) unchanged or (T, D + 3). Raises UserError if `continuous` gets poses too short for angles.
    """
    if rotation == "euler":
        return poses.astype(np.float32)
    if poses.shape[1] < EULER.stop:
        raise UserError(
            f"world_model.rotation = continuous: takes the fourth to sixth number of a pose for Euler angles, but poses have "
            f"{poses.shape[1]} numbers; set euler, which passes any pose on as it is"
        )
    from scipy.spatial.transform import Rotation  # here, since Euler angles do without, and most stages import this module

    matrix = Rotation.from_euler("xyz", poses[:, EULER]).as_matrix()
    columns = matrix[:, :, :2].transpose(0, 2, 1).reshape(len(poses), 6)
    return np.concatenate([poses[:, : EULER.start], columns, poses[:, EULER.stop :]], axis=1).astype(np.float32)


def pose_size(rotation: Representation) -> int:
    """Size of a represented pose, for a pose of 7 numbers."""
    return 7 if rotation == "euler" else 10


@dataclass(frozen=True)
class PoseStatistics:
    """1st and 99th percentile of each dimension over the training split, in the representation `rotation`."""

    rotation: Representation
    low: tuple[float, ...]
    high: tuple[float, ...]

    def outside(self, poses: np.ndarray) -> np.ndarray:
        """(D,) fraction of the poses (N, 7) that lie below `low` or above `high` in each represented dimension and would be clipped.

        It is about 0.02 for poses from the distribution of the statistics. Raises UserError as `normalise` does.
        """
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        found = self._represented(poses)
        slack = 1e-3 * (high - low) + 1e-5  # tolerance for rounding; a constant dimension has no span
        return ((found < low - slack) | (found > high + slack)).mean(axis=0)

    def normalise(self, poses: np.ndarray) -> np.ndarray:
        """(T, 7) poses in m, rad, 0..1 -> (T, D) in [-1, 1], clipped.

        Raises UserError if the size of the represented poses differs from the size of the statistics.
        """
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        found = self._represented(poses)
        span = np.maximum(high - low, 1e-6)
        return np.clip(2 * (found - low) / span - 1, -1, 1).astype(np.float32)

    def _represented(self, poses: np.ndarray) -> np.ndarray:
        found = represent(poses, self.rotation)
        if found.shape[1] != len(self.low):  # numpy would broadcast one number to seven
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


# Ctrl-World's percentiles over DROID at 5 Hz (its stat.json). They belong to its checkpoint and to checkpoints post-trained
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

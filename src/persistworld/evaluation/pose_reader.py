"""Reads the arm's pose from the views of one frame, to measure whether a world model's arm goes where it was told to go.

A small network, trained on recorded frames of training episodes (training/pose_reader.py). It sees single frames and no commands, so it
cannot read a motion that the frames do not show. Its own error on held-out recorded frames belongs beside every distance that it measures.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, write_json
from persistworld.runtime.tensor_files import load_weights, write_tensors
from persistworld.world_model.poses import represent
from persistworld.world_model.views import images_to_float

WEIGHTS, CONFIG = "pose_reader.safetensors", "pose_reader.json"
CHANNELS, POINTS, HIDDEN = 24, 24, 128
TALLEST = 64  # pixels: larger frames are averaged down to at most this height
NUMBERS = 7  # of a pose: x, y, z (m), Euler xyz (rad), gripper 0..1
OUTPUTS = 10  # the position, two columns of the rotation matrix, the gripper (world_model/poses.py: continuous)
QUANTITIES = ("position_cm", "rotation_degrees", "gripper")
BATCH = 256  # frames


class PoseNetwork(nn.Module):
    """A frame's views -> the pose (N, OUTPUTS).

    It finds points: each view gives heat maps, and each map its mean position (a spatial softmax, Levine et al. 2016, arXiv 1504.00702)
    and its mean height there, which tells whether the point is in view. Each view has convolutions of its own.
    """

    def __init__(self, views: int, height: int, width: int) -> None:
        super().__init__()
        self.size, self.shrink = (views, height, width), -(-height // TALLEST)
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, CHANNELS, 4, stride=2, padding=1), nn.ReLU(),
                nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(),
                nn.Conv2d(CHANNELS, POINTS, 3, padding=1),
            )
            for _ in range(views)
        )  # fmt: skip
        rows, columns = (torch.linspace(-1, 1, side // self.shrink // 2) for side in (height, width))
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)
        self.register_buffer("grid", grid, persistent=False)
        self.joined = nn.Sequential(
            nn.Linear(views * POINTS * 3, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTPUTS)
        )
        self.register_buffer("centre", torch.zeros(3))  # m: mean and standard deviation of the training positions
        self.register_buffer("spread", torch.ones(3))

    def forward(self, images: Tensor) -> Tensor:
        """images: (N, V, 3, H, W) in [-1, 1]. The position is in units of `spread` from `centre`."""
        points = []
        for view, convolutions in zip(images.unbind(1), self.convolutions, strict=True):
            heights = convolutions(F.avg_pool2d(view, self.shrink)).flatten(2)  # (N, POINTS, cells)
            shares = heights.softmax(-1)
            points += [(shares @ self.grid).flatten(1), (shares * heights).sum(-1)]
        return self.joined(torch.cat(points, dim=1))


class PoseReader:
    """Reads poses. `frames` is the number of frames that it learned from."""

    def __init__(self, network: PoseNetwork, frames: int) -> None:
        self.network, self.frames = network.eval().requires_grad_(False), frames

    def __call__(self, frames: Tensor) -> np.ndarray:
        """uint8 (N, V, H, W, 3) -> (N, OUTPUTS) float64: the position in m, two columns of the rotation matrix, the gripper.

        Raises UserError for other views or sizes than it learned from.
        """
        if tuple(frames.shape[1:4]) != self.network.size:
            raise UserError(f"pose reader: trained on views of {self.network.size}, not {tuple(frames.shape[1:4])}; run pose_reader again")
        place = self.network.centre.device
        with torch.no_grad():
            read = torch.cat([self.network(images_to_float(part.to(place))) for part in frames.split(BATCH)])
            read[:, :3] = read[:, :3] * self.network.spread + self.network.centre
        return read.double().cpu().numpy()


def perfect_reading(poses: np.ndarray) -> np.ndarray:
    """What a reader without error would read: poses (N, NUMBERS) -> (N, OUTPUTS) float64."""
    return represent(poses.astype(np.float64), "continuous").astype(np.float64)


def pose_distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How far two readings (N, OUTPUTS) are apart: (N, 3), in the order of QUANTITIES.

    The distance of the positions in cm, the angle of the rotation between the two in degrees, the difference of the gripper values.
    """
    away = 100 * np.linalg.norm(ours[:, :3] - theirs[:, :3], axis=1)
    turned = np.einsum("nij,nij->n", _rotation(ours[:, 3:9]), _rotation(theirs[:, 3:9]))  # the trace of the relative rotation
    angle = np.degrees(np.arccos(np.clip((turned - 1) / 2, -1, 1)))
    return np.stack([away, angle, np.abs(ours[:, 9] - theirs[:, 9])], axis=1)


def _rotation(columns: np.ndarray) -> np.ndarray:
    """Two columns (N, 6), not exactly orthonormal -> rotation matrices (N, 3, 3) by Gram-Schmidt (Zhou et al., CVPR 2019)."""
    first = columns[:, :3] / np.linalg.norm(columns[:, :3], axis=1, keepdims=True)
    second = columns[:, 3:] - (first * columns[:, 3:]).sum(axis=1, keepdims=True) * first
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], axis=2)


def save_pose_reader(reader: PoseReader, folder: Path) -> None:
    """Write weights and sizes into `folder`."""
    write_tensors(reader.network.state_dict(), folder / WEIGHTS)
    sizes = dict(zip(("views", "height", "width"), reader.network.size, strict=True))
    write_json(folder / CONFIG, sizes | {"frames": reader.frames})


def load_pose_reader(folder: str | Path) -> PoseReader:
    """The reader of a folder that `save_pose_reader` wrote. Raises UserError on missing or damaged files."""
    raw = read_json(Path(folder) / CONFIG)
    try:
        network, frames = PoseNetwork(*(int(raw[key]) for key in ("views", "height", "width"))), int(raw["frames"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{Path(folder) / CONFIG}: not a pose reader's ({error!r}); run the stage pose_reader again") from None
    load_weights(network, Path(folder) / WEIGHTS)
    return PoseReader(network, frames)

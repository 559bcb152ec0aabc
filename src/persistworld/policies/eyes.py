"""Perception of the shipped policies: a small network that reads the places of object and goal and the object's yaw from the views.

It finds points: each view gives heat maps, and the mean position of each map is a number pair (a spatial softmax, Levine et al. 2016,
arXiv 1504.00702). Points, brightness and the hand's pose then give the positions on the table.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from persistworld.robot.spaces import Observation
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, write_json
from persistworld.runtime.tensor_files import load_weights, write_tensors
from persistworld.world_model.views import images_to_float

CONFIG = "eyes.json"
CHANNELS, POINTS, HIDDEN = 24, 16, 128
NUMBERS = 6  # object x, y, goal x, y; cosine and sine of four times the object's yaw, because a cube looks the same after a quarter turn
CENTRE, SCALE = (0.49, 0.0, 0.49, 0.0), 0.1  # m: positions about 1 in size
POSE = 6  # numbers of a pose that the network sees


class EyesNetwork(nn.Module):
    """Views and pose -> NUMBERS. `positions` undoes the scaling of the positions."""

    def __init__(self, views: int, height: int, width: int) -> None:
        super().__init__()
        self.size = (views, height, width)
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, CHANNELS, 4, stride=2, padding=1), nn.ReLU(),
                nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(),
                nn.Conv2d(CHANNELS, POINTS, 3, padding=1),
            )
            for _ in range(views)
        )  # fmt: skip
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, height // 2), torch.linspace(-1, 1, width // 2), indexing="ij")
        self.register_buffer("grid", torch.stack([rows, columns], -1).flatten(0, 1), persistent=False)
        self.joined = nn.Sequential(
            nn.Linear(views * POINTS * 2 + POSE, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, NUMBERS)
        )

    def forward(self, images: Tensor, pose: Tensor) -> Tensor:
        """images: (N, V, 3, H, W) in [-1, 1]; pose: (N, POSE), as `pose_numbers` makes it. Returns (N, NUMBERS)."""
        points = []
        for view, convolutions in zip(images.unbind(1), self.convolutions, strict=True):
            heat = convolutions(view).flatten(2).softmax(-1)  # (N, POINTS, cells)
            points.append((heat @ self.grid).flatten(1))
        return self.joined(torch.cat([*points, pose], dim=1))


def pose_numbers(pose: np.ndarray) -> np.ndarray:
    """(N, 7) or (7,) -> (N, POSE) float32, of magnitude about 1: the hand's position and yaw, without the gripper."""
    pose = np.atleast_2d(pose)
    place = (pose[:, :3] - np.array([0.49, 0.0, 0.15])) / SCALE
    return np.concatenate([place, np.sin(pose[:, 5:6]), np.cos(pose[:, 5:6]), pose[:, 4:5]], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Sight:
    """Positions (2,) in m of object and goal, and the object's yaw in rad, from -pi/4 to pi/4."""

    object: np.ndarray
    goal: np.ndarray
    yaw: float

    @staticmethod
    def of(numbers: np.ndarray) -> "Sight":
        """From the network's output (NUMBERS,)."""
        places = numbers[:4].astype(np.float64) * SCALE + CENTRE
        return Sight(places[:2], places[2:], float(np.arctan2(numbers[5], numbers[4])) / 4)

    @property
    def numbers(self) -> np.ndarray:
        """The output (NUMBERS,) that the network should give, float32."""
        places = (np.concatenate([self.object, self.goal]) - CENTRE) / SCALE
        return np.array([*places, np.cos(4 * self.yaw), np.sin(4 * self.yaw)], np.float32)


class Eyes:
    """Reads an observation. scenes: number of training scenes; error: mean distance error in m on other scenes."""

    def __init__(self, network: EyesNetwork, scenes: int, error: float = float("nan")) -> None:
        self.network, self.scenes, self.error = network.eval().requires_grad_(False), scenes, error

    def __call__(self, observation: Observation) -> Sight:
        """The positions of object and goal, and the yaw. Raises UserError for other views or sizes."""
        frames = np.stack(list(observation["views"].values()))
        if frames.shape[:3] != self.network.size:
            raise UserError(f"eyes: trained on views of {self.network.size}, not {frames.shape[:3]}; train others (docs/policies.md)")
        with torch.no_grad():
            images = images_to_float(torch.from_numpy(frames))[None]
            found = self.network(images, torch.from_numpy(pose_numbers(observation["pose"])))[0].numpy()
        return Sight.of(found)


def save_eyes(eyes: dict[str, Eyes], folder: Path) -> None:
    """Write all eyes into `folder`: a safetensors file each (float16), and their sizes as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {}
    for name, each in eyes.items():
        write_tensors(each.network.state_dict(), folder / f"{name}.safetensors", half=True)
        sizes = dict(zip(("views", "height", "width"), each.network.size, strict=True))
        about[name] = sizes | {"scenes": each.scenes, "error": round(each.error, 4)}
    write_json(folder / CONFIG, about)


def load_eyes(folder: str | Path, name: str) -> Eyes:
    """The eyes `name` of a folder that `save_eyes` wrote. Raises UserError if they are missing or damaged."""
    if not Path(folder).is_dir():
        raise UserError(f"{folder}: no eyes are there; train them with persistworld policy-training --output assets (docs/policies.md)")
    about, path = read_json(Path(folder) / CONFIG), Path(folder) / f"{name}.safetensors"
    try:
        network = EyesNetwork(*(int(about[name][key]) for key in ("views", "height", "width")))
        scenes, error = int(about[name]["scenes"]), float(about[name]["error"])
    except (KeyError, TypeError, ValueError) as problem:
        where = Path(folder) / CONFIG
        raise UserError(f"{where}: has no whole entry for {name} ({problem!r}); train them again (docs/policies.md)") from None
    load_weights(network, path)
    return Eyes(network, scenes, error)

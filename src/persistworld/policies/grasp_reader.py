"""Reads from the frames whether closing fingers meet an object. A world model needs this: its condition includes the reached gripper.

In the simulator and on a robot, the gripper's sensor measures it. In a world model, only the frames show it. The reader gets the current
frame and the commands of the next chunk, and returns the gripper value at which the fingers would stop. It does not get the current gripper
value: with that input, it kept answering "caught" after the model had lost the object.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from persistworld.robot.control import GRIPPER
from persistworld.robot.spaces import Observation
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, write_json
from persistworld.runtime.tensor_files import load_weights, write_tensors
from persistworld.world_model.views import images_to_float

WEIGHTS, CONFIG = "grasp_reader.safetensors", "grasp_reader.json"
WIDTHS = (16, 32, 48, 64)  # channels of the convolutions, the first at full size, each next at half the size
HIDDEN = 96
NOTHING = 1.0  # the gripper value of fingers that meet
MOTION = 6  # numbers of a command that the network sees


class GraspNetwork(nn.Module):
    """A frame's views and the commands of the next `frames` frames -> the logit that the fingers stop before they touch each other."""

    def __init__(self, views: int, height: int, width: int, frames: int) -> None:
        super().__init__()
        self.size, self.frames = (views, height, width), frames
        layers, previous = [], 3
        for number, channels in enumerate(WIDTHS):
            layers += [nn.Conv2d(previous, channels, 3, stride=1 if number == 0 else 2, padding=1), nn.ReLU()]
            previous = channels
        self.convolutions = nn.Sequential(*layers)
        with torch.no_grad():
            cells = self.convolutions(torch.zeros(1, 3, height, width)).numel()
        self.joined = nn.Sequential(
            nn.Linear(views * cells + frames * MOTION, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        )

    def forward(self, images: Tensor, motion: Tensor) -> Tensor:
        """images: (N, V, 3, H, W) in [-1, 1]; motion: (N, frames, MOTION), as `motion_of` makes it; logits (N,)."""
        seen = self.convolutions(images.flatten(0, 1)).reshape(len(images), -1)
        return self.joined(torch.cat([seen, motion.flatten(1)], dim=1))[:, 0]


def motion_of(pose: np.ndarray, commands: np.ndarray) -> np.ndarray:
    """(n, MOTION) float32, of magnitude about 1: displacement from `pose` (7,), height, rotation and gripper of the commands (n, 7)."""
    away, turned = 10 * (commands[:, :3] - pose[:3]), commands[:, 5:6] - pose[5]
    turned = (turned + np.pi) % (2 * np.pi) - np.pi
    return np.concatenate([away, 5 * commands[:, 2:3], turned, commands[:, GRIPPER:]], axis=1).astype(np.float32)


class GraspReader:
    """A reader for `Embodiment.grasp`. `stop`: the gripper value at which fingers stop on an object (mean over grasps)."""

    def __init__(self, network: GraspNetwork, stop: float) -> None:
        self.network, self.stop = network.eval().requires_grad_(False), stop

    def __call__(self, observation: Observation, commands: np.ndarray) -> float:
        """The gripper value at which the fingers would stop during `commands` (n, 7). Raises UserError for other views or sizes."""
        frames = np.stack(list(observation["views"].values()))
        if frames.shape[:3] != self.network.size or len(commands) != self.network.frames:
            raise UserError(f"grasp reader: trained on views of {self.network.size}, not {frames.shape[:3]}; train another, or do without")
        motion = torch.from_numpy(motion_of(observation["pose"], commands))[None]
        with torch.no_grad():
            caught = self.network(images_to_float(torch.from_numpy(frames))[None], motion).item() > 0
        return self.stop if caught else NOTHING


def save_grasp_reader(reader: GraspReader, folder: Path) -> None:
    """Write weights (float16), sizes and the stop value into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(reader.network.state_dict(), folder / WEIGHTS, half=True)
    sizes = dict(zip(("views", "height", "width"), reader.network.size, strict=True))
    write_json(folder / CONFIG, sizes | {"frames": reader.network.frames, "stop": round(reader.stop, 4)})


def load_grasp_reader(folder: str | Path) -> GraspReader:
    """The reader of a folder that `save_grasp_reader` wrote. Raises UserError on missing or damaged files."""
    raw = read_json(Path(folder) / CONFIG)
    try:
        network = GraspNetwork(*(int(raw[key]) for key in ("views", "height", "width", "frames")))
        stop = float(raw["stop"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{Path(folder) / CONFIG}: not a grasp reader's ({error!r}); train it again") from None
    load_weights(network, Path(folder) / WEIGHTS)
    return GraspReader(network, stop)

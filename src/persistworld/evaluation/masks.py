"""Defines a mask source, and reads the file with the masks of all evaluation episodes.

The file is in safetensors format. For each episode i it holds tensor "i" (T, V, H, W) uint8 with 0 background, 1 robot,
2 manipulated object, at the world model's frame rate and size. Where robot and object overlap, the label is the object,
because it is smaller.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT
from persistworld.runtime.errors import UserError

ObjectStatus = Literal["masked", "no_instruction", "no_noun"]


@dataclass(frozen=True)
class ViewMasks:
    """One view of one episode: `robot` and `manipulated` are (T, H, W) bool.

    `status` says why no object was segmented: the instruction is empty or has no noun. It is "masked" otherwise.
    """

    robot: Tensor
    manipulated: Tensor
    status: ObjectStatus = "masked"


class MaskSource(Protocol):
    """A source of robot and object masks."""

    def masks(self, index: int, view: str) -> ViewMasks:
        """One view of episode `index` at the world model's frame rate and size. Raises BadEpisode."""


def labels_of(views: Sequence[ViewMasks]) -> Tensor:
    """The class labels of all views of an episode, (T, V, H, W) uint8."""
    robot = torch.stack([v.robot for v in views], dim=1)
    manipulated = torch.stack([v.manipulated for v in views], dim=1)
    labels = robot.to(torch.uint8) * ROBOT
    labels[manipulated] = MANIPULATED_OBJECT
    return labels


def empty_frames(labels: Tensor, label: int) -> list[int]:
    """For each of the V views of `labels` (T, V, H, W), the number of frames without a pixel of the class `label`."""
    return (~(labels == label).flatten(2).any(-1)).sum(0).tolist()


# safetensors writes metadata keys in random order. With one key that holds all metadata as JSON, equal masks give equal files.
ABOUT = "about"


class MaskStore:
    """Reads masks from the file, one episode at a time. Opening raises UserError when the file is missing or damaged."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = safe_open(self.path, "pt")
        except (FileNotFoundError, SafetensorError) as error:
            raise UserError(f"{self.path}: no readable masks ({error}); run the stage masks") from None
        self._known = set(self._file.keys())
        self._about = json.loads(self._file.metadata()[ABOUT])

    @property
    def source(self) -> str:
        """simulator, roboengine or none."""
        return self._about["source"]

    @property
    def counts(self) -> dict[str, int]:
        """The counts episodes, episodes_without_instruction and episodes_without_noun."""
        return {key: value for key, value in self._about.items() if key.startswith("episodes")}

    def masks(self, episode: int) -> Tensor:
        """(T, V, H, W) uint8 with 0 background, 1 robot, 2 object. Raises UserError for an episode that is not in the file."""
        if str(episode) not in self._known:
            what = f"holds no masks of episode {episode} (source: {self.source})"
            raise UserError(f"{self.path}: {what}; run the stage masks")
        return self._file.get_tensor(str(episode))

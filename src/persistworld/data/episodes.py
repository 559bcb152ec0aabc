"""Defines an episode, the protocol of its readers, and the split that it belongs to (DROID's conventions)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from persistworld.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

VIEWS = ("exterior_1", "exterior_2", "wrist")
NO_INSTRUCTION = "no instruction"  # a note, see Episode
SUCCESSES = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
BACKGROUND, ROBOT, MANIPULATED_OBJECT = 0, 1, 2  # the classes of a mask


@dataclass(frozen=True)
class Episode:
    """The numbers and the instruction of one recorded episode of T frames (images are read separately, view by view).

    `pose` is (T, 7) float32: x, y, z (m), Euler xyz (rad, fixed axes), gripper 0..1 (1 = closed). For other robots it is
    (T, D), the D numbers that the data set records. `joints` is (T, 7) in rad. `action` is (T, 7), the commanded pose in
    the units of `pose`. `joints`, `action` and `success` are None when they are not recorded. `notes` holds one phrase for
    each irregularity in the recording that was handled.
    """

    index: int
    instruction: str
    fps: float
    pose: np.ndarray
    joints: np.ndarray | None
    action: np.ndarray | None
    success: bool | None
    notes: tuple[str, ...] = ()


class BadEpisode(UserError):
    """One episode that cannot be used. Holds its `index` and a one-line `reason`."""

    def __init__(self, index: int, reason: str):
        super().__init__(f"episode {index}: {reason}")
        self.index = index
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.index, self.reason)


def recorded_success(index: int, value: object) -> bool | None:
    """Whether an episode succeeded, from the data set's `value`; None when the value is None.

    Accepts true or false, and 0 or 1, also as text or in a list of one. Raises BadEpisode on anything else.
    """
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    if only is None:
        return None
    if str(only).lower() not in SUCCESSES:
        raise BadEpisode(index, f"success is {value!r}, not 0 or 1")
    return SUCCESSES[str(only).lower()]


class EpisodeSource(Protocol):
    """A folder of episodes in any layout."""

    root: Path
    views: tuple[str, ...]
    fps: float

    def indices(self) -> list[int]:
        """The indices of all listed episodes, ascending (they may be sparse)."""

    def split(self, index: int) -> str | None:
        """'train', 'tuning' or 'validation' if the layout records it; None otherwise, then `split_of` decides."""

    def episode(self, index: int) -> Episode:
        """Poses, actions and instruction of one episode. Raises BadEpisode."""

    def frames(self, index: int, view: str) -> np.ndarray:
        """All frames of one view, (T, H, W, 3) uint8 RGB. Raises BadEpisode when the video cannot be decoded to its end."""

    def frame_batches(self, index: int, view: str, stride: int, batch: int) -> Iterator[np.ndarray]:
        """Every `stride`-th of the same frames, in batches of `batch` (the last may be smaller). Only one batch is in memory.

        Raises the same errors as `frames`, but only when it reaches the broken frame: earlier batches are yielded before.
        """

    def masks(self, index: int) -> np.ndarray | None:
        """(T, V, H, W) uint8 with 0 background, 1 robot, 2 manipulated object; None when the episode has no masks."""


@runtime_checkable
class LatentSource(Protocol):
    """The additional method of a source whose layout can hold latents."""

    def latents(self, index: int, view: str) -> "Tensor | None":
        """The recorded, scaled latents of one view, (T, C, h, w) float32; None when there are none. Raises BadEpisode."""


def split_of(index: int, modulus: int, validation: Sequence[int], tuning: Sequence[int]) -> str:
    """'validation', 'tuning' or 'train', chosen by `index % modulus`. DROID's rule is modulus 100, validation [99].

    Raises UserError when a remainder is not in 0..modulus - 1, or is in both lists.
    """
    wrong = [r for r in (*validation, *tuning) if not 0 <= r < modulus]
    if wrong:
        raise UserError(f"split remainder {wrong[0]} is not in 0..{modulus - 1}; choose remainders below the modulus")
    both = set(validation) & set(tuning)
    if both:
        raise UserError(f"split remainder {min(both)} is both validation and tuning; name it once")
    remainder = index % modulus
    if remainder in validation:
        return "validation"
    return "tuning" if remainder in tuning else "train"


def frame_stride(source_fps: float, target_fps: float) -> int:
    """The stride n such that every n-th frame of `source_fps` gives `target_fps`; for DROID, 15 -> 5 gives 3.

    Raises UserError when the ratio is not an integer to within 1 %.
    """
    if source_fps <= 0 or target_fps <= 0:
        raise UserError(f"frame rates must be positive, not {source_fps} and {target_fps}")
    ratio = source_fps / target_fps
    stride = round(ratio)
    if stride < 1 or abs(ratio - stride) > 0.01 * stride:
        wanted = f"choose {source_fps:g}/n fps for a whole number n"
        raise UserError(f"{source_fps:g} fps cannot be thinned to {target_fps:g} fps; {wanted}")
    return stride

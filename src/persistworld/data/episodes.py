"""What an episode is, who can read one, and which split it belongs to (DROID's conventions)."""

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
    """The numbers and words of one recorded episode of T frames (the pictures are read apart, view by view).

    `pose` is (T, 7) float32: x, y, z (m), Euler xyz (rad, fixed axes), gripper 0..1 (1 = closed); of another robot it
    is whatever D numbers its data set records. `joints` is (T, 7) in rad, `action` (T, 7) the commanded pose in the
    units of `pose`; they and `success` are None when not recorded. `notes` says, a phrase each, what is odd in the
    recording and was dealt with.
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
    """One episode that cannot be used: its `index` and the `reason` in a line."""

    def __init__(self, index: int, reason: str):
        super().__init__(f"episode {index}: {reason}")
        self.index = index
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.index, self.reason)


def recorded_success(index: int, value: object) -> bool | None:
    """Whether an episode succeeded, as a data set says it: true or false, 0 or 1, also as text or in a list; None when it says nothing.

    Raises BadEpisode on anything else.
    """
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    if only is None:
        return None
    if str(only).lower() not in SUCCESSES:
        raise BadEpisode(index, f"success is {value!r}, not 0 or 1")
    return SUCCESSES[str(only).lower()]


class EpisodeSource(Protocol):
    """A folder of episodes, whatever its layout."""

    root: Path
    views: tuple[str, ...]
    fps: float

    def indices(self) -> list[int]:
        """The indices of all listed episodes, ascending (they may be sparse)."""

    def split(self, index: int) -> str | None:
        """'train', 'tuning' or 'validation' where the layout records it; None leaves it to `split_of`."""

    def episode(self, index: int) -> Episode:
        """Poses, actions and instruction of one episode. Raises BadEpisode."""

    def frames(self, index: int, view: str) -> np.ndarray:
        """One view, (T, H, W, 3) uint8 RGB. Raises BadEpisode when it cannot be decoded whole."""

    def frame_batches(self, index: int, view: str, stride: int, batch: int) -> Iterator[np.ndarray]:
        """Every `stride`-th of the same frames, `batch` at a time (the last may be fewer), and only one batch in memory.

        Raises what `frames` raises, when it comes to that frame: batches before it have been handed out by then.
        """

    def masks(self, index: int) -> np.ndarray | None:
        """(T, V, H, W) uint8 in 0 background, 1 robot, 2 manipulated object; None when there are none."""


@runtime_checkable
class LatentSource(Protocol):
    """What a source has beside that where its layout has a place for latents."""

    def latents(self, index: int, view: str) -> "Tensor | None":
        """The recorded, scaled latents of one view, (T, C, h, w) float32; None where there are none. Raises BadEpisode."""


def split_of(index: int, modulus: int, validation: Sequence[int], tuning: Sequence[int]) -> str:
    """'validation', 'tuning' or 'train' by `index % modulus`; DROID's rule is modulus 100, validation [99].

    Raises UserError when a remainder cannot occur or stands in both lists.
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
    """Keep every n-th frame to come from `source_fps` to `target_fps`; DROID: 15 -> 5 is 3.

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

"""Compares a data set's poses with the pose statistics of the checkpoint. Poses in other units would be clipped to constants."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persistworld.runtime.errors import UserError
from persistworld.world_model.poses import EULER, PoseStatistics

HALF = 0.5  # a larger share of poses outside the checkpoint's range is an error
FAR, RARELY = 3.0, 0.05  # so is a share above RARELY that lies more than FAR spans outside the range: too many to be outliers
NARROWEST = 1e-3  # a smaller span means that the number hardly changed in training; FAR is then not checked
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
CLOSED, MOSTLY = 0.5, 0.8  # share of the gripper's range above which it is closed; share of episodes above which a note is written
INVERTED = "the gripper is closed at the first frame of {:.0%} of the episodes: 1 is closed; is it inverted here?"


@dataclass(frozen=True)
class Range:
    """One dimension of the poses, in the pose's units.

    `number` is its index. `low` .. `high` is the checkpoint's range. `found` holds the 1st and 99th percentile of the data. `outside` is
    the share of poses outside the checkpoint's range, `far` the share more than FAR spans outside it.
    """

    number: int
    low: float
    high: float
    found: tuple[float, float]
    outside: float
    far: float

    @property
    def name(self) -> str:
        return f"number {self.number + 1}" + (f" ({NAMES[self.number]})" if self.number < len(NAMES) else "")

    @property
    def short_name(self) -> str:
        return NAMES[self.number] if self.number < len(NAMES) else str(self.number + 1)

    @property
    def wrong(self) -> bool:
        return self.outside > HALF or self.far > RARELY

    def __str__(self) -> str:
        low, high = self.found
        return f"{self.name} is {low:.4g} .. {high:.4g}, the checkpoint's {self.low:.4g} .. {self.high:.4g}: {self.outside:.1%} outside"


def pose_ranges(statistics: PoseStatistics, poses: np.ndarray) -> list[Range]:
    """A Range for each dimension of the poses (N, D). Raises UserError when D differs from the statistics'.

    With the continuous rotation representation, every angle is valid. Angles are then compared with -2 pi .. 2 pi.
    """
    outside = statistics.outside(poses)
    width = poses.shape[1]
    places: Sequence[int | None] = range(width)
    if statistics.rotation == "continuous":
        moved = len(outside) - width  # the statistics hold six numbers for the three angles
        places = [None if EULER.start <= k < EULER.stop else k if k < EULER.start else k + moved for k in range(width)]
    found = []
    for k, place in enumerate(places):
        values = poses[:, k]
        low, high = (-2 * math.pi, 2 * math.pi) if place is None else (statistics.low[place], statistics.high[place])
        share = float(((values < low) | (values > high)).mean()) if place is None else float(outside[place])
        span = high - low
        far = float((np.maximum(low - values, values - high) > FAR * span).mean()) if span > NARROWEST else 0.0
        near, end = np.percentile(values, [1, 99])
        found.append(Range(k, low, high, (float(near), float(end)), share, far))
    return found


def check_ranges(ranges: Sequence[Range], path: str | Path) -> None:
    """Raise UserError for the first dimension that is `wrong`, i.e. that the checkpoint would clip. `path` names the data set."""
    for each in ranges:
        if each.wrong:
            looks = looks_like(each, ranges)
            raise UserError(
                f"{path}: {each}{f'; it looks like {looks}' if looks else ''}. Convert the poses (x y z in m, Euler xyz in rad, gripper "
                "0..1, 1 is closed), or train a base model on them (base_training)"
            )


def looks_like(one: Range, ranges: Sequence[Range]) -> str:
    """A guess of the unit of dimension `one`, from how far its values exceed the checkpoint's range; "" without a guess.

    Only poses of seven numbers have known units.
    """
    if len(ranges) != len(NAMES):
        return ""
    largest = max(map(abs, one.found))
    ratio = largest / max(abs(one.low), abs(one.high), 1e-6)
    if one.number < EULER.start:
        return "mm, not m" if ratio > 200 else "cm, not m" if ratio > 20 else ""
    if one.number < EULER.stop:
        return "degrees, not radians" if ratio > 3 else ""
    if one.found[0] < -0.05:
        return "a gripper of -1..1, or an inverted one"
    return "a gripper of 0..255" if largest > 120 else "a gripper of 0..100" if largest > 2 else ""


def closed_at_first(firsts: Sequence[np.ndarray], statistics: PoseStatistics) -> str | None:
    """A one-line note when nearly all episodes begin with a closed gripper, which is rare in teleoperation; None otherwise.

    firsts: the first pose of each episode, 7 numbers each.
    """
    if not firsts or len(firsts[0]) != len(NAMES):
        return None
    low, high = statistics.low[-1], statistics.high[-1]
    share = float(np.mean([pose[-1] > low + CLOSED * (high - low) for pose in firsts]))
    return INVERTED.format(share) if len(firsts) > 2 and high > low and share > MOSTLY else None

"""When closing fingers hold an object, and how firmly.

Two fingers hold an object if each presses on a surface that faces it: the object's outward normal at the contact lies near the direction in
which the fingers close (opposed contacts, as in an antipodal grasp). Closing on a cube's edges, on top or with one finger does not hold.

The arm is strong. A finger that comes down on top of an object pushes it aside, often into the hand. That spoils the grasp: the object is
loose until the open hand has risen above it. If the object's centre lies far off the middle of the pads, the hold is weak, and the object
slips out. Fingers have no friction, so that nothing is lifted that is not held.
"""

import math

import numpy as np

from persistworld.simulator.tasks import Thing

OPPOSED = math.radians(25)  # rad: largest angle between the closing direction and the surface's normal, at either finger
EDGE = 0.003  # m: a contact so near to an edge touches both faces
WEAK = 0.6  # of the object's half width: from here on, a centre beside the pads' middle (across the closing direction) makes the hold weak
SLIP_PATH = (0.03, 0.25)  # m: a weak hold ends after the fingertips moved so far (uniform)
PAD = 0.0087  # m: half the width of a finger's pad, across the closing direction
LANDING = 0.005  # m: a finger over the object comes down on it once the fingertips are this near to its top
SLOPE = 0.7  # of a ball's radius: fingers further out slide down its side
CLEAR = 0.02  # m: the open hand is clear of an object when the fingertips are so far above its top


def opposed(thing: Thing, first: np.ndarray, second: np.ndarray, closing: np.ndarray) -> bool:
    """Whether two fingers hold `thing`, all in the object's own frame (m; the origin is its centre, z its axis).

    first, second: the contacts of each finger, (N, 3) and (M, 3); closing: (3,), the unit vector from the second finger to the first.
    """
    least = math.cos(OPPOSED)
    return any(_facing(thing, p, closing) >= least for p in first) and any(_facing(thing, p, -closing) >= least for p in second)


def landed(thing: Thing, edges: np.ndarray, up: np.ndarray) -> bool:
    """Whether a finger that comes down would stand on `thing`: whether one of `edges` lies more than EDGE inside its outline from above.

    edges: (N, 3), points on the inner edges of the fingers' tips; up: (3,), the unit vector that points up. Both in the object's own frame
    (m), which may have rolled.
    """
    height = edges @ up
    level = edges - height[:, None] * up
    if thing.shape == "cube":
        over = np.abs(level).max(1) < thing.half - EDGE
    else:
        over = np.linalg.norm(level, axis=1) < (SLOPE * thing.half if thing.shape == "ball" else thing.half - EDGE)
    return bool((over & (height < thing.half_height + LANDING)).any())


def _facing(thing: Thing, point: np.ndarray, direction: np.ndarray) -> float:
    return max(_cosines(thing, point, direction))


def _cosines(thing: Thing, point: np.ndarray, direction: np.ndarray) -> list[float]:
    """The cosines between `direction` and the outward normals of the object's surface at `point` (several at an edge)."""
    x, y, z = point
    if thing.shape == "ball":
        return [float(direction @ point / max(np.linalg.norm(point), 1e-9))]
    if thing.shape == "cylinder":
        radius = max(math.hypot(x, y), 1e-9)
        outside = [radius - thing.half, abs(z) - thing.half_height]
        normals = [(x / radius, y / radius, 0.0), (0.0, 0.0, math.copysign(1.0, z))]
    else:
        outside = [abs(x) - thing.half, abs(y) - thing.half, abs(z) - thing.half_height]
        normals = [(math.copysign(1.0, x), 0.0, 0.0), (0.0, math.copysign(1.0, y), 0.0), (0.0, 0.0, math.copysign(1.0, z))]
    return [float(direction @ normal) for normal, far in zip(normals, outside, strict=True) if far >= max(outside) - EDGE]


def is_weak(thing: Thing, across: float) -> bool:
    """Whether the object will slip out; `across` (m) is its centre's distance from the pads' middle across the closing direction."""
    return abs(across) > WEAK * thing.half

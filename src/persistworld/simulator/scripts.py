"""Scripts: the waypoints of the robot for a task and its planned outcome.

Lengths are in m, angles in rad, as in simulator/tasks.py. The fingers close along the hand's y axis; "across" is its x axis.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from persistworld.simulator.tasks import DIRECTIONS, Task

NEAR_MISS = (0.0, 0.05)  # m: from the grasp point, in any direction
PUSH_BESIDE = (0.02, 0.075)  # m: the same for a push, sideways
WRONG_YAW = (math.radians(25), math.radians(65))  # rad
SLIP = {"cube": (0.65, 0.95), "cylinder": (0.65, 0.74), "ball": (0.65, 0.74)}  # of the half width, across: further off, round ones escape
DROP = (0.15, 0.55)  # of the way to the goal
EARLY = (0.02, 0.10)  # m: before the goal
EARLY_HEIGHT = (0.0, 0.08)  # m: above the height of a clean release
SHOVE = (0.07, 0.11)  # m: how far past the object's first position the fingertips go
FIRST_TRY = (0.025, 0.075)  # m: from the grasp point, within 45 degrees of the closing direction, so that it does not hold
STOPS = (0.0, 0.04)  # m: how far a push moves the object that ends too soon


@dataclass(frozen=True)
class Waypoint:
    """A target of the fingertips (position, yaw, tilt about x and y) and the gripper (0..1), reached `seconds` after the last waypoint."""

    position: tuple[float, float, float]
    yaw: float
    gripper: float
    seconds: float
    tilt: tuple[float, float] = (0.0, 0.0)


ObjectPose = Callable[[], tuple[np.ndarray, float]]


def start_waypoint(rng: np.random.Generator) -> Waypoint:
    """The start pose, above and behind the objects, so that the wrist camera sees all of them in the first frame."""
    position = (float(rng.uniform(0.37, 0.42)), float(rng.uniform(-0.05, 0.05)), float(rng.uniform(0.24, 0.30)))
    return Waypoint(position, float(rng.uniform(-0.35, 0.35)), 0.0, 0.0)


def script(task: Task, rng: np.random.Generator, object_pose: ObjectPose) -> Iterator[Waypoint]:
    """Yield the waypoints of a task, then random waypoints above the table without end.

    `object_pose()` returns the current position (3,) and yaw of the manipulated object. A waypoint is planned when the
    one before it has been reached, so that a second grasp goes to the place where the first one left the object.
    """
    tempo = float(rng.uniform(0.85, 1.1)) * (0.85 if task.outcome == "regrasp" else 1.0)
    steps = _push(task, rng, object_pose) if task.intent == "push" else _pick(task, rng, object_pose)
    for step in steps:
        yield Waypoint(step.position, step.yaw, step.gripper, step.seconds * tempo, step.tilt)
    while True:
        x, y = rng.uniform([0.38, -0.18], [0.55, 0.18])
        tilt = tuple(float(t) for t in rng.uniform(-0.15, 0.15, 2))
        height, yaw, gripper = rng.uniform(0.14, 0.30), rng.uniform(-0.9, 0.9), rng.integers(0, 2)
        seconds = float(rng.uniform(1.2, 2.0))
        yield Waypoint((float(x), float(y), float(height)), float(yaw), float(gripper), seconds, tilt)


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice([-1, 1]))


def _tilt(rng: np.random.Generator) -> tuple[float, float]:
    x, y = rng.uniform(-0.1, 0.1, 2)
    return float(x), float(y)


# picking up and carrying ---------------------------------------------------------------------------------------------


def _pick(task: Task, rng: np.random.Generator, object_pose: ObjectPose) -> Iterator[Waypoint]:
    """Grasp, carry and release, with the task's planned outcome. No script looks whether it holds the object."""
    outcome, closing, across, turn = task.outcome, 0.0, 0.0, 0.0
    if outcome == "shove":
        position, _ = object_pose()
        yield from _sweep(task, rng, position, _shove_direction(task, rng, position), float(rng.uniform(*SHOVE)))
        return
    if outcome == "regrasp":
        distance, angle = float(rng.uniform(*FIRST_TRY)), float(rng.uniform(-math.pi / 4, math.pi / 4))
        yield from _grasp(task, rng, object_pose, _sign(rng) * distance * math.cos(angle), distance * math.sin(angle), 0.0)
    elif outcome == "near_miss":
        distance, angle = float(rng.uniform(*NEAR_MISS)), float(rng.uniform(-math.pi, math.pi))
        closing, across = distance * math.cos(angle), distance * math.sin(angle)
    elif outcome == "slip":
        across = _sign(rng) * task.object.half * float(rng.uniform(*SLIP[task.object.shape]))
    elif outcome == "wrong_yaw":
        turn = float(rng.uniform(*WRONG_YAW))
    lifted = yield from _grasp(task, rng, object_pose, closing, across, turn)
    yield from _deliver(task, rng, lifted)


def _grip_yaw(shape: str, yaw: float, rng: np.random.Generator) -> float:
    """A hand yaw with which the fingers close on two faces of a cube. For a cylinder or ball, any yaw works."""
    if shape != "cube":
        return float(rng.uniform(-0.9, 0.9))
    turned = (yaw + math.pi / 4) % (math.pi / 2) - math.pi / 4
    options = [turned + k * math.pi / 2 for k in (-1, 0, 1) if abs(turned + k * math.pi / 2) < 1.1]
    return float(rng.choice(options))


def _grip_height(task: Task) -> float:
    return max(0.018, 0.9 * task.object.half_height)


def _grasp(
    task: Task, rng: np.random.Generator, object_pose: ObjectPose, closing: float, across: float, turn: float
) -> Iterator[Waypoint]:
    """Go down open, close and lift. Returns the last waypoint.

    closing, across: m off the object's centre along the hand's axes; turn: rad off an aligned yaw, towards the arm's middle position.
    """
    position, object_yaw = object_pose()
    yaw = _grip_yaw(task.object.shape, object_yaw, rng)
    yaw -= math.copysign(turn, yaw)
    x = float(position[0]) + across * math.cos(yaw) - closing * math.sin(yaw)
    y = float(position[1]) + across * math.sin(yaw) + closing * math.cos(yaw)
    grip, above, tilt = _grip_height(task), float(rng.uniform(0.12, 0.17)), _tilt(rng)
    yield Waypoint((x, y, above), yaw, 0.0, 1.7, tilt)
    yield Waypoint((x, y, grip), yaw, 0.0, 1.0)
    yield Waypoint((x, y, grip), yaw, 1.0, 0.6)
    lifted = Waypoint((x, y, float(rng.uniform(0.13, 0.2))), yaw, 1.0, 0.9)
    yield lifted
    return lifted


def _deliver(task: Task, rng: np.random.Generator, lifted: Waypoint) -> Iterator[Waypoint]:
    """Carry to the goal, lower, open and rise. Drops on the way and releases too early as planned."""
    turned = float(np.clip(lifted.yaw + rng.uniform(-0.8, 0.8), -1.1, 1.1))
    start, goal = np.array(lifted.position), np.array(task.goal.xy)
    top = 2 * task.goal.half_height if task.goal.shape == "block" else 0.012
    release, over, tilt, carried = top + _grip_height(task) + 0.006, float(rng.uniform(0.14, 0.22)), _tilt(rng), 1.0
    if task.outcome == "early_release":
        back = start[:2] - goal
        angle = math.atan2(back[1], back[0]) + float(rng.uniform(-1.0, 1.0))
        goal = goal + float(rng.uniform(*EARLY)) * np.array([math.cos(angle), math.sin(angle)])
        release += float(rng.uniform(*EARLY_HEIGHT))
    if task.outcome == "drop":  # the hand opens at the start of the next move
        share, carried = float(rng.uniform(*DROP)), 0.0
        x, y, z = start + share * (np.array([*goal, over]) - start)
        yield Waypoint((float(x), float(y), float(z)), lifted.yaw + share * (turned - lifted.yaw), 1.0, 0.4 + 1.3 * share, tilt)
    gx, gy = (float(v) for v in goal)
    yield Waypoint((gx, gy, over), turned, carried, 1.7, tilt)
    yield Waypoint((gx, gy, release), turned, carried, 0.9)
    yield Waypoint((gx, gy, release), turned, 0.0, 0.5)
    yield Waypoint((gx, gy, 0.19), turned, 0.0, 0.9)


# pushing -------------------------------------------------------------------------------------------------------------


def _push(task: Task, rng: np.random.Generator, object_pose: ObjectPose) -> Iterator[Waypoint]:
    """Push with the closed hand, with the task's planned outcome.

    A push near-misses beside the object, slips off its edge, drops it by rising on the way, releases it by stopping early, and shoves it in
    another direction.
    """
    outcome, position = task.outcome, object_pose()[0]
    step, far = np.array(DIRECTIONS[task.direction or "left"]), float(rng.uniform(0.07, 0.11))
    if outcome == "shove":
        yield from _sweep(task, rng, position, _shove_direction(task, rng, position), far)
    elif outcome == "near_miss":
        yield from _sweep(task, rng, position, step, far, beside=_sign(rng) * float(rng.uniform(*PUSH_BESIDE)))
    elif outcome == "slip":
        yield from _sweep(task, rng, position, step, far, beside=_sign(rng) * task.object.half * float(rng.uniform(*SLIP["cube"])))
    elif outcome == "wrong_yaw":
        yield from _sweep(task, rng, position, step, far, turn=float(rng.uniform(*WRONG_YAW)))
    elif outcome in ("drop", "early_release"):
        stop = float(rng.uniform(*STOPS)) - task.object.half - 0.01  # the fingers' half width
        yield from _sweep(task, rng, position, step, stop, rises_to=far if outcome == "drop" else None)
    elif outcome == "regrasp":
        yield from _sweep(task, rng, position, step, 0.0, beside=_sign(rng) * float(rng.uniform(0.065, 0.08)), tempo=0.6)
        yield from _sweep(task, rng, object_pose()[0], step, far, tempo=0.8)
    else:
        yield from _sweep(task, rng, position, step, far)


def _sweep(
    task: Task, rng: np.random.Generator, position: np.ndarray, step: np.ndarray, far: float, *, beside: float = 0.0, turn: float = 0.0,
    rises_to: float | None = None, tempo: float = 1.0,
) -> Iterator[Waypoint]:  # fmt: skip
    """Go down closed behind the object, and move along `step` (2,) until `far` (m) past the object's position.

    beside: m off the line through the object; turn: rad off the usual yaw; rises_to: m, where the hand goes on to in the air.
    """
    line = position[:2] + beside * np.array([-step[1], step[0]])
    behind, end = line - step * (task.object.half + 0.06), line + step * far
    usual = math.atan2(step[1], step[0])
    usual = (usual + math.pi / 2) % math.pi - math.pi / 2  # the hand looks the same after half a turn
    yaw = float(np.clip(usual, -1.1, 1.1)) + float(rng.uniform(-0.2, 0.2))
    yaw -= math.copysign(turn, yaw)
    height = max(0.02, 0.8 * task.object.half_height)
    yield Waypoint((*_floats(behind), float(rng.uniform(0.12, 0.17))), yaw, 1.0, 2.0 * tempo)
    yield Waypoint((*_floats(behind), height), yaw, 1.0, 1.2 * tempo)
    yield Waypoint((*_floats(end), height), yaw, 1.0, float(rng.uniform(2.2, 3.0)) * tempo)
    if rises_to is not None:
        yield Waypoint((*_floats(line + step * (far - 0.02)), 0.14), yaw, 1.0, 0.8)
        yield Waypoint((*_floats(line + step * rises_to), 0.14), yaw, 1.0, 1.2)
        return
    yield Waypoint((*_floats(end - step * 0.03), height), yaw, 1.0, 0.5 * tempo)
    yield Waypoint((*_floats(end - step * 0.05), 0.19), yaw, 0.0, 1.0 * tempo)


def _floats(place: np.ndarray) -> tuple[float, float]:
    return float(place[0]), float(place[1])


def _shove_direction(task: Task, rng: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """A direction (2,) in which the object stays on the table, clear of the goal, and, for a push, not where it should go."""
    while True:
        angle = float(rng.uniform(-math.pi, math.pi))
        step = np.array([math.cos(angle), math.sin(angle)])
        begin, end = position[:2] - 0.1 * step, position[:2] + 0.16 * step
        clear = all(np.linalg.norm(place - task.goal.xy) > 0.13 for place in (begin, end))
        aside = task.direction is None or float(step @ np.array(DIRECTIONS[task.direction])) < 0.2
        if clear and aside and 0.33 < end[0] < 0.66 and abs(end[1]) < 0.28:
            return step

"""Scripted manipulation: the objects on the table, the instruction, and the waypoints of the robot.

Lengths are in m, angles in rad, in the robot's base frame: x forward, y to the robot's left, z up. The table top is at z = 0.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

COLOURS = {
    "red": (0.88, 0.08, 0.08),
    "green": (0.10, 0.70, 0.15),
    "blue": (0.10, 0.25, 0.92),
    "yellow": (0.97, 0.85, 0.08),
    "magenta": (0.88, 0.12, 0.75),
    "orange": (1.00, 0.48, 0.05),
}
CONTAINER_COLOURS = {"white": (0.93, 0.93, 0.93), "grey": (0.45, 0.46, 0.48), "black": (0.13, 0.13, 0.15)}
SHAPES = ("cube", "cylinder", "ball")
CONTAINERS = ("bowl", "tray")
DIRECTIONS = {"left": (0.0, 1.0), "right": (0.0, -1.0), "forward": (1.0, 0.0), "back": (-1.0, 0.0)}
INTENTS = {"place": 0.40, "push": 0.18, "stack": 0.14, "miss": 0.13, "regrasp": 0.15}  # intent -> probability

AREA = ((0.40, 0.58), (-0.19, 0.19))  # x and y range of the objects' positions: all three cameras see it at the start
BLOCK_HALF = (0.045, 0.045, 0.02)  # half extents of the block on which objects are stacked
CONTAINER_HALF = 0.075  # half the inner width of a tray, or the inner radius of a bowl


@dataclass(frozen=True)
class Thing:
    """An object on the table: `shape` (SHAPES, CONTAINERS or 'block'), named colour, half width and half height, position and yaw."""

    shape: str
    colour: str
    half: float
    half_height: float
    xy: tuple[float, float]
    yaw: float


@dataclass(frozen=True)
class Task:
    """One scene and its intent. `goal` is the container or block. `direction` is a key of DIRECTIONS for a push, None otherwise."""

    intent: str
    instruction: str
    object: Thing
    goal: Thing
    distractor: Thing | None
    direction: str | None


@dataclass(frozen=True)
class Waypoint:
    """A target of the fingertips (position, yaw, tilt about x and y) and the gripper (0..1), reached `seconds` after the last waypoint."""

    position: tuple[float, float, float]
    yaw: float
    gripper: float
    seconds: float
    tilt: tuple[float, float] = (0.0, 0.0)


def _instruction(intent: str, shape: str, colour: str, goal: str, goal_colour: str, direction: str | None) -> str:
    if intent == "push":
        return _push_words(shape, colour, direction)
    return f"{'stack' if goal == 'block' else 'put'} the {colour} {shape} {_on(goal)} the {goal_colour} {goal}"


def _push_words(shape: str, colour: str, direction: str | None) -> str:
    where = {"left": "to the left", "right": "to the right", "forward": "forward", "back": "back"}[direction or "left"]
    return f"push the {colour} {shape} {where}"


def _on(goal: str) -> str:
    return "in" if goal == "bowl" else "on"


def _all_instructions() -> tuple[str, ...]:
    words = [_push_words(s, c, d) for s in SHAPES for c in COLOURS for d in DIRECTIONS]
    for goal, intent in (("bowl", "place"), ("tray", "place"), ("block", "stack")):
        words += [_instruction(intent, s, c, goal, g, None) for s in SHAPES for c in COLOURS for g in CONTAINER_COLOURS]
    return tuple(words)


INSTRUCTIONS = _all_instructions()  # all possible instructions; the position in it is LeRobot's task_index


def sample_task(rng: np.random.Generator, colours: Sequence[str] = tuple(COLOURS)) -> Task:
    """Draw a scene and an intent. The manipulated object has one of `colours`; the distractor always has another colour."""
    intent = str(rng.choice(list(INTENTS), p=list(INTENTS.values())))
    shape = str(rng.choice(SHAPES[:2] if intent == "stack" else SHAPES))
    colour = str(rng.choice(list(colours)))
    other = str(rng.choice([c for c in COLOURS if c != colour]))
    goal_shape = "block" if intent == "stack" else str(rng.choice(CONTAINERS))
    goal_colour = str(rng.choice(list(CONTAINER_COLOURS)))
    places = _places(rng)
    half = float(rng.uniform(0.032, 0.035))
    height = float(rng.uniform(0.028, 0.036)) if shape == "cylinder" else half
    thing = Thing(shape, colour, half, height, places[0], float(rng.uniform(-math.pi / 4, math.pi / 4)))
    goal_half, goal_height = (BLOCK_HALF[0], BLOCK_HALF[2]) if goal_shape == "block" else (CONTAINER_HALF, 0.02)
    goal = Thing(goal_shape, goal_colour, goal_half, goal_height, places[1], float(rng.uniform(-0.6, 0.6)))
    other_half = float(rng.uniform(0.022, 0.028))
    other_shape = str(rng.choice(SHAPES[:2]))
    distractor = Thing(other_shape, other, other_half, other_half, places[2], float(rng.uniform(-0.7, 0.7)))
    direction = _direction(rng, thing, goal) if intent == "push" else None
    words = _instruction(intent, shape, colour, goal_shape, goal_colour, direction)
    return Task(intent, words, thing, goal, distractor if rng.random() < 0.4 else None, direction)


def _places(rng: np.random.Generator) -> list[tuple[float, float]]:
    """Positions of object, goal and distractor with a minimum distance between them."""
    low, high = np.array(AREA).T
    while True:
        a, b, c = rng.uniform(low, high, size=(3, 2))
        if np.linalg.norm(a - b) > 0.18 and np.linalg.norm(a - c) > 0.11 and np.linalg.norm(b - c) > 0.15:
            return [(float(p[0]), float(p[1])) for p in (a, b, c)]


def _direction(rng: np.random.Generator, thing: Thing, goal: Thing) -> str:
    """The direction of a push in which the object stays on the table and, if possible, does not hit the container."""
    end = {name: np.array(thing.xy) + 0.16 * np.array(step) for name, step in DIRECTIONS.items()}
    clear = [name for name, place in end.items() if 0.33 < place[0] < 0.66 and abs(place[1]) < 0.28]
    far = [name for name in clear if np.linalg.norm(end[name] - goal.xy) > 0.14]
    return str(rng.choice(far or clear))


def start_waypoint(rng: np.random.Generator) -> Waypoint:
    """The start pose, above and behind the objects, so that the wrist camera sees all of them in the first frame."""
    position = (float(rng.uniform(0.37, 0.42)), float(rng.uniform(-0.05, 0.05)), float(rng.uniform(0.24, 0.30)))
    return Waypoint(position, float(rng.uniform(-0.35, 0.35)), 0.0, 0.0)


def script(
    task: Task, rng: np.random.Generator, object_pose: Callable[[], tuple[np.ndarray, float]]
) -> Iterator[Waypoint]:
    """Yield the waypoints of a task, then random waypoints above the table without end.

    `object_pose()` returns the current position (3,) and yaw of the manipulated object. A waypoint is planned when the
    one before it has been reached, so that a second grasp goes to the place where the first one left the object.
    """
    tempo = float(rng.uniform(0.85, 1.1)) * (0.85 if task.intent == "regrasp" else 1.0)
    steps = _push(task, rng, object_pose) if task.intent == "push" else _pick(task, rng, object_pose)
    for step in steps:
        yield Waypoint(step.position, step.yaw, step.gripper, step.seconds * tempo, step.tilt)
    while True:
        x, y = rng.uniform([0.38, -0.18], [0.55, 0.18])
        tilt = tuple(float(t) for t in rng.uniform(-0.15, 0.15, 2))
        height, yaw, gripper = rng.uniform(0.14, 0.30), rng.uniform(-0.9, 0.9), rng.integers(0, 2)
        seconds = float(rng.uniform(1.2, 2.0))
        yield Waypoint((float(x), float(y), float(height)), float(yaw), float(gripper), seconds, tilt)


def _grip_yaw(shape: str, yaw: float, rng: np.random.Generator) -> float:
    """A hand yaw with which the fingers close on two faces of a cube. For a cylinder or ball, any yaw works."""
    if shape != "cube":
        return float(rng.uniform(-0.9, 0.9))
    turned = (yaw + math.pi / 4) % (math.pi / 2) - math.pi / 4
    options = [turned + k * math.pi / 2 for k in (-1, 0, 1) if abs(turned + k * math.pi / 2) < 1.1]
    return float(rng.choice(options))


def _pick(task: Task, rng: np.random.Generator, object_pose: Callable) -> Iterator[Waypoint]:
    grip = max(0.018, 0.9 * task.object.half_height)
    attempts = {"miss": [True], "regrasp": [True, False]}.get(task.intent, [False])
    for missing in attempts:
        position, object_yaw = object_pose()
        yaw = _grip_yaw(task.object.shape, object_yaw, rng)
        x, y = position[:2]
        above = float(rng.uniform(0.12, 0.17))
        if missing:  # beside the object, along the direction in which the fingers close, without contact
            angle = yaw + float(rng.choice([-1, 1])) * math.pi / 2
            distance = task.object.half + float(rng.uniform(0.055, 0.07))
            x, y = x + distance * math.cos(angle), y + distance * math.sin(angle)
        tilt = tuple(float(t) for t in rng.uniform(-0.1, 0.1, 2))
        yield Waypoint((x, y, above), yaw, 0.0, 1.7, tilt)
        yield Waypoint((x, y, grip), yaw, 0.0, 1.0)
        yield Waypoint((x, y, grip), yaw, 1.0, 0.6)
        yield Waypoint((x, y, float(rng.uniform(0.13, 0.2))), yaw, 1.0, 0.9)
    if task.intent == "miss":
        yield Waypoint((x, y, 0.16), yaw, 0.0, 0.5)
        return
    turned = float(np.clip(yaw + rng.uniform(-0.8, 0.8), -1.1, 1.1))
    gx, gy = task.goal.xy
    top = 2 * task.goal.half_height if task.goal.shape == "block" else 0.012
    release = top + grip + 0.006
    over = float(rng.uniform(0.14, 0.22))
    tilt = tuple(float(t) for t in rng.uniform(-0.1, 0.1, 2))
    yield Waypoint((gx, gy, over), turned, 1.0, 1.7, tilt)
    yield Waypoint((gx, gy, release), turned, 1.0, 0.9)
    yield Waypoint((gx, gy, release), turned, 0.0, 0.5)
    yield Waypoint((gx, gy, 0.19), turned, 0.0, 0.9)


def _push(task: Task, rng: np.random.Generator, object_pose: Callable) -> Iterator[Waypoint]:
    position, _ = object_pose()
    step = np.array(DIRECTIONS[task.direction or "left"])
    behind = position[:2] - step * (task.object.half + 0.06)
    end = position[:2] + step * float(rng.uniform(0.07, 0.11))
    yaw = (0.0 if step[0] else float(rng.choice([-1, 1])) * 1.1) + float(rng.uniform(-0.2, 0.2))
    height = max(0.02, 0.8 * task.object.half_height)
    yield Waypoint((*behind, float(rng.uniform(0.12, 0.17))), yaw, 1.0, 2.0)
    yield Waypoint((*behind, height), yaw, 1.0, 1.2)
    yield Waypoint((*end, height), yaw, 1.0, float(rng.uniform(2.2, 3.0)))
    yield Waypoint((*(end - step * 0.03), height), yaw, 1.0, 0.5)
    yield Waypoint((*(end - step * 0.05), 0.19), yaw, 0.0, 1.0)


def succeeded(task: Task, start: np.ndarray, end: np.ndarray, held: bool) -> bool:
    """Whether the object, moved from position `start` to `end` (3,), is where the instruction asked, and is no longer held."""
    if held:
        return False
    if task.intent == "push":
        return float((end - start)[:2] @ np.array(DIRECTIONS[task.direction or "left"])) > 0.05
    near = float(np.linalg.norm(end[:2] - task.goal.xy)) < task.goal.half
    if task.goal.shape == "block":
        return near and end[2] > 2 * task.goal.half_height + 0.5 * task.object.half_height
    return near and end[2] > 0.005

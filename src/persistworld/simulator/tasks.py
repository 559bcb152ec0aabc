"""Tasks: the objects on the table, the instruction, the planned outcome, and when a task has succeeded.

Lengths are in m, angles in rad, in the robot's base frame: x forward, y to the robot's left, z up. The table top is at z = 0.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from persistworld.config.data import OUTCOMES, OutcomesConfig

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
INTENTS = {"place": 0.65, "push": 0.16, "stack": 0.19}  # intent -> probability

AREA = ((0.40, 0.58), (-0.19, 0.19))  # x and y range of the objects' positions: all three cameras see it at the start
BLOCK_HALF = (0.045, 0.045, 0.02)  # half extents of the block on which objects are stacked
PUSHED = 0.05  # m: how far a push must move the object
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
    """One scene, its intent and its planned outcome (a field of OutcomesConfig).

    `goal` is the container or block. `direction` is a key of DIRECTIONS for a push, None otherwise.
    """

    intent: str
    outcome: str
    instruction: str
    object: Thing
    goal: Thing
    distractor: Thing | None
    direction: str | None


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


def sample_task(rng: np.random.Generator, colours: Sequence[str] = tuple(COLOURS), outcomes: OutcomesConfig = OUTCOMES) -> Task:
    """Draw a scene, an intent and an outcome. The manipulated object has one of `colours`; the distractor always has another colour."""
    intent = str(rng.choice(list(INTENTS), p=list(INTENTS.values())))
    shares = asdict(outcomes)
    outcome = str(rng.choice(list(shares), p=np.array(list(shares.values())) / sum(shares.values())))
    shape = str(rng.choice(SHAPES[:2] if intent == "stack" else SHAPES))
    if outcome == "wrong_yaw":  # for other shapes no yaw is wrong
        shape = "cube"
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
    return Task(intent, outcome, words, thing, goal, distractor if rng.random() < 0.4 else None, direction)


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


def succeeded(task: Task, start: np.ndarray, end: np.ndarray, held: bool) -> bool:
    """Whether the object, moved from position `start` to `end` (3,), is where the instruction asked, and is no longer held."""
    if held:
        return False
    if task.intent == "push":
        return float((end - start)[:2] @ np.array(DIRECTIONS[task.direction or "left"])) > PUSHED
    near = float(np.linalg.norm(end[:2] - task.goal.xy)) < task.goal.half
    if task.goal.shape == "block":
        return near and end[2] > 2 * task.goal.half_height + 0.5 * task.object.half_height
    return near and end[2] > 0.005

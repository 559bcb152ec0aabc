"""Stage labels: how far a task has come in one state of a scene."""

import numpy as np

from persistworld.simulator.scene import Scene
from persistworld.simulator.tasks import DIRECTIONS, PUSHED, Task, succeeded

STAGES = ("reach", "grasp", "lift", "close", "inside")  # in order
REACH = 0.06  # m: the fingertips from the object's centre; its half width is about .033
LIFT = 0.03  # m: the object's lower side above the table
CLOSE = 0.10  # m: the object from the goal in the plane


def stages(task: Task, start: np.ndarray, scene: Scene) -> np.ndarray:
    """Which of STAGES hold in the present state of `scene`, (5,) bool. Each is about this moment only: a dropped object is not held.

    start: the object's position (3,) in m when the episode began.

    reach: the fingertips are within REACH of the object's centre. grasp: the hand holds the object. lift: it holds the object LIFT above
    the table. close: the object is within CLOSE of the goal; for a push, half of the way that it must go. inside: `succeeded`.
    A push has no grasp and no lift.
    """
    place, held, tip = scene.object_pose()[0], scene.holding, scene.robot_state()[0][:3]
    lifted = held and place[2] - task.object.half_height > LIFT
    if task.intent == "push":
        close = float((place - start)[:2] @ np.array(DIRECTIONS[task.direction or "left"])) > PUSHED / 2
    else:
        close = float(np.linalg.norm(place[:2] - task.goal.xy)) < CLOSE
    reached = float(np.linalg.norm(tip - place)) < REACH
    return np.array([reached, held, lifted, close, succeeded(task, start, place, held)], dtype=bool)

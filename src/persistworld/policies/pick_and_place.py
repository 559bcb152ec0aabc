"""The tabletop's policies: they look, reach for the object, grasp it, and put it on the goal. Skill and defects are parameters.

A policy gets the usual observation: views, pose and instruction. Its eyes (`policies.eyes`) find object and goal in the views. The gripper
value in its pose shows whether it holds something.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from persistworld.policies.eyes import Sight
from persistworld.robot.actions import Kind
from persistworld.robot.control import GRIPPER
from persistworld.robot.spaces import Observation

Look = Callable[[Observation], Sight]

FRAMES = 4  # a chunk
STEP, TURN = 0.045, 0.22  # the most that a command moves (m) and turns (rad) a frame
ABOVE, CARRY, GRIP = 0.14, 0.18, 0.028  # m: the fingertips over the object, on the way to the goal, and around the object
RELEASE = {"bowl": 0.045, "tray": 0.045, "block": 0.074}  # m: where the hand opens
AFTER = 0.19  # m: where the hand waits when it is done
HOLDS = (0.03, 0.6)  # gripper values, closed, with something between the fingers
# What follows a phase that went well.
NEXT = {
    "above": "down", "down": "close", "close": "lift", "lift": "over", "over": "lower", "lower": "open", "open": "up", "drop": "up",
}  # fmt: skip
NEAR = 0.006  # m and rad/10 within which a target counts as reached
BLIND = 0.09  # m: below this height the hand hides the object, and the position seen before is kept


@dataclass(frozen=True)
class Skill:
    """The abilities and defects of a policy. All lengths in m.

    eyes: the name of its eyes. looks_once: it looks only at the start, not at every chunk. retries: number of new tries after closing on
    nothing. offset: error of every grasp, in a direction drawn per episode. noise: standard deviation of the error of each look.
    close_early: height above the right one at which it closes. drop_early: share of the way to the goal that is left when it opens
    (0..1). misplace: error of the place of the goal, as `offset`. any_yaw: it does not turn the hand to a cube's yaw. wanders: it does
    not look, and drifts.
    """

    eyes: str
    looks_once: bool = False
    retries: int = 2
    offset: float = 0.0
    noise: float = 0.0
    close_early: float = 0.0
    drop_early: float = 0.0
    misplace: float = 0.0
    any_yaw: bool = False
    wanders: bool = False


class PickAndPlace:
    """A policy with the given skill."""

    kind: Kind = "absolute"
    rate = 15.0

    def __init__(self, look: Look, skill: Skill) -> None:
        self.look, self.skill = look, skill

    def reset(self, seed: int) -> None:
        self.random = np.random.default_rng([seed, 77])
        self.phase, self.waited, self.tries = "above", 0, 0
        self.command: np.ndarray | None = None
        self.object = self.goal = np.zeros(2)
        angles = self.random.uniform(0, 2 * math.pi, 2)
        self.off = self.skill.offset * np.array([math.cos(angles[0]), math.sin(angles[0])])
        self.astray = self.skill.misplace * np.array([math.cos(angles[1]), math.sin(angles[1])])

    def act(self, observation: Observation) -> np.ndarray:
        """Four absolute poses."""
        pose = np.asarray(observation["pose"], np.float64)
        if self.command is None:
            self.command = np.array([*pose[:3], math.pi, 0.0, pose[5], 0.0])
            self.yaw = float(np.clip(_wrapped(pose[5]), -0.35, 0.35))
        if self.skill.wanders:
            return self._wander()
        self._see(observation, pose)
        kind = next((name for name in RELEASE if name in observation["instruction"]), "tray")
        return np.stack([self._frame(pose, kind).copy() for _ in range(FRAMES)])

    def _see(self, observation: Observation, pose: np.ndarray) -> None:
        """Update the known places. A hand that is at the object or holds it hides it."""
        first = not self.goal.any()
        if self.skill.looks_once and not first:
            return
        sight = self.look(observation)
        noise = self.random.normal(0, 1, (2, 2)) * self.skill.noise
        if first or (self.phase == "above" and pose[2] > BLIND):
            self.object = np.clip(sight.object + self.off + noise[0], [0.34, -0.28], [0.66, 0.28])
            if "cube" in observation["instruction"] and not self.skill.any_yaw:
                self.yaw = sight.yaw
        if first or self.phase in ("above", "lift", "over"):
            self.goal = np.clip(sight.goal + self.astray + noise[1], [0.34, -0.28], [0.66, 0.28])

    def _frame(self, pose: np.ndarray, kind: str) -> np.ndarray:
        """The next frame's command. A reached target moves the policy on to its next phase."""
        target, grip, hold = self._target(kind)
        if np.linalg.norm(self.command[:3] - target) < NEAR and abs(self.command[GRIPPER] - grip) < NEAR:
            self.waited += 1
            if self.waited > hold:
                self._advance(pose)
                target, grip, _ = self._target(kind)
        way = target - self.command[:3]
        distance = float(np.linalg.norm(way))
        self.command[:3] += way * min(1.0, STEP / distance) if distance > 0 else 0
        turn = _wrapped(self.yaw - self.command[5])
        self.command[5] += float(np.clip(turn, -TURN, TURN))
        self.command[GRIPPER] = grip
        return self.command

    def _target(self, kind: str) -> tuple[np.ndarray, float, int]:
        """Position (3,), gripper, and the frames to wait there, of the present phase."""
        at, to, low = self.object, self.goal, GRIP + self.skill.close_early
        if self.phase == "over" and self.skill.drop_early:
            to = at + (1 - self.skill.drop_early) * (to - at)
        places = {
            "above": ((*at, ABOVE), 0.0, 0), "down": ((*at, low), 0.0, 1), "close": ((*at, low), 1.0, 2), "lift": ((*at, CARRY), 1.0, 0),
            "over": ((*to, CARRY), 1.0, 0), "lower": ((*to, RELEASE[kind]), 1.0, 1), "open": ((*to, RELEASE[kind]), 0.0, 1),
            "drop": ((*self.command[:2], CARRY), 0.0, 2), "up": ((*to, AFTER), 0.0, 10_000),
        }  # fmt: skip
        place, grip, hold = places[self.phase]
        return np.array(place), grip, hold

    def _advance(self, pose: np.ndarray) -> None:
        """The phase after this one. After the lift, `pose` shows whether the fingers closed on nothing."""
        self.waited = 0
        empty = not HOLDS[0] < pose[GRIPPER] < HOLDS[1]
        if self.phase in ("lift", "over") and empty and self.tries < self.skill.retries:
            self.tries += 1
            self.phase = "above"
        elif self.phase == "over" and self.skill.drop_early:
            self.phase = "drop"
        else:
            self.phase = NEXT[self.phase]

    def _wander(self) -> np.ndarray:
        target = self.random.uniform([0.38, -0.18, 0.08], [0.58, 0.18, 0.26])
        way = target - self.command[:3]
        step = way * min(1.0, FRAMES * STEP / float(np.linalg.norm(way))) / FRAMES
        grip = float(self.random.integers(2))
        rows = np.repeat(self.command[None], FRAMES, axis=0)
        rows[:, :3] += step * np.arange(1, FRAMES + 1)[:, None]
        rows[:, GRIPPER] = grip
        self.command = rows[-1].copy()
        return rows


def _wrapped(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi

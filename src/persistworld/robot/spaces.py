"""Observation and action spaces of policies (gymnasium), the same in the world model and in the simulator."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from persistworld.robot.actions import Actions
from persistworld.robot.kinematics import JOINTS, Tool

LETTERS = frozenset(chr(code) for code in range(0x20, 0x250))  # of an instruction: Latin scripts
LONGEST = 1000  # letters in an instruction

Observation = dict[str, Any]


def observation_space(views: Sequence[str], height: int, width: int, numbers: int, tool: Tool | None) -> spaces.Dict:
    """views: a dict of (height, width, 3) uint8 images; pose: (numbers,); joints: (7,) rad, only for a Panda; instruction: text."""
    parts: dict[str, spaces.Space] = {
        "views": spaces.Dict({view: spaces.Box(0, 255, (height, width, 3), np.uint8) for view in views}),
        "pose": spaces.Box(-np.inf, np.inf, (numbers,), np.float64),
        "instruction": spaces.Text(LONGEST, min_length=0, charset=LETTERS),
    }
    if tool is not None:
        parts["joints"] = spaces.Box(-np.inf, np.inf, (JOINTS,), np.float64)
    return spaces.Dict(parts)


def action_space(actions: Actions) -> spaces.Box:
    """(rows, numbers) float64: one chunk, as `Actions` describes it."""
    low, high = (np.broadcast_to(bound, actions.shape) for bound in actions.bounds())
    return spaces.Box(low, high, dtype=np.float64)


def observation(
    views: Sequence[str], frames: np.ndarray, pose: np.ndarray, joints: np.ndarray | None, instruction: str
) -> Observation:
    """A new element of `observation_space`. frames: (V, H, W, 3) uint8. Characters outside the space become question marks."""
    words = "".join(letter if letter in LETTERS else "?" for letter in instruction[:LONGEST])
    seen = {"views": dict(zip(views, np.array(frames), strict=True)), "pose": np.array(pose, np.float64), "instruction": words}
    return seen if joints is None else seen | {"joints": np.array(joints, np.float64)}


def side_by_side(frames: np.ndarray) -> np.ndarray:
    """(..., V, H, W, 3) -> (..., H, V * W, 3): the views in a row."""
    *lead, views, height, width, channels = frames.shape
    return np.moveaxis(frames, -4, -3).reshape(*lead, height, views * width, channels)

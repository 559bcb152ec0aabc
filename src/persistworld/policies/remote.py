"""Shared by the clients of policy servers: configuration, images as the servers expect them, and rows of actions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from persistworld.config.checks import at_least, positive, require
from persistworld.robot.spaces import Observation
from persistworld.runtime.errors import UserError


@dataclass(frozen=True)
class RemoteConfig:
    """The views and image size that a policy gets, and how its answers are interpreted. A YAML file for `persistworld policy --config`."""

    views: dict[str, str] = field(default_factory=dict)  # the server's key -> a view of the world model; empty: the protocol's for DROID
    height: int = 224  # pixels that the server gets; the picture keeps its proportions, black bars fill the rest
    width: int = 224
    rate: float = 15.0  # actions a second
    velocity: float = 3.0  # openpi: rad/s of an action of 1 (DROID: 0.2 rad at 15 Hz)
    timeout: float = 60.0  # s for an answer; the first one compiles the model
    frames: int = 4  # of the world model, that one action covers
    fps: float = 5.0  # of them

    def check(self) -> None:
        """Raise UserError at the first value that is impossible."""
        at_least(1, self, "config", "height", "width", "frames")
        positive(self, "config", "rate", "velocity", "timeout", "fps")
        whole = abs(self.rate / self.fps - round(self.rate / self.fps)) < 1e-9
        require(whole, "config.rate", self.rate, f"must be a multiple of the {self.fps:g} frames a second")

    @property
    def actions(self) -> int:
        """Number of the server's actions that make one chunk."""
        return self.frames * round(self.rate / self.fps)


def pictures(observation: Observation, views: Mapping[str, str], height: int, width: int) -> dict[str, np.ndarray]:
    """The server's keys with (height, width, 3) uint8 pictures. Raises UserError for a view that the world lacks."""
    found = {}
    for key, view in views.items():
        if view not in observation["views"]:
            known = ", ".join(observation["views"])
            raise UserError(f"config.views: {key} needs the view {view}, but the views are {known}; change config.views")
        found[key] = fitted(observation["views"][view], height, width)
    return found


def fitted(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h, w, 3) uint8 -> (height, width, 3) in its proportions, bilinear, centred between black bars (openpi's resize_with_pad)."""
    if picture.shape[:2] == (height, width):
        return picture
    ratio = max(picture.shape[1] / width, picture.shape[0] / height)
    size = (int(picture.shape[1] / ratio), int(picture.shape[0] / ratio))
    whole = Image.new("RGB", (width, height))
    whole.paste(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(whole)


def rows(answer: Mapping[str, object], key: str, numbers: int, wanted: int, server: str) -> np.ndarray:
    """The first `wanted` actions, (wanted, numbers), of an answer that has (horizon, numbers) or (1, horizon, numbers) under `key`.

    If the horizon is shorter, the last action is repeated (pi0 plans 10 of the 12 actions of a chunk). Raises UserError for other answers.
    """
    if key not in answer:
        known = ", ".join(map(str, answer)) or "nothing"
        raise UserError(f"{server}: its answer has no {key} (it has {known}); is it another policy's server?")
    try:
        found = np.asarray(answer[key], np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{server}: {key} in its answer is not an array of numbers") from None
    if found.ndim == 3 and len(found) == 1:
        found = found[0]
    if found.ndim == 1 and numbers == 1:
        found = found[:, None]
    if found.ndim != 2 or found.shape[1] != numbers or not len(found):
        raise UserError(f"{server}: {key} has the shape {found.shape}, expected (horizon, {numbers}); is it another robot's policy?")
    if not np.isfinite(found).all():
        raise UserError(f"{server}: {key} holds numbers that are not finite")
    return found[np.minimum(np.arange(wanted), len(found) - 1)]


def line_of(error: object) -> str:
    """The last non-empty line; for a traceback, the exception."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)

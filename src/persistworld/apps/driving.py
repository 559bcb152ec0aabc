"""Driving a robot in world models by hand. The page and `drive --keyboard` share this code.

Several models are driven side by side with the same starts, commands and noise, so that only the models differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.spatial.transform import Rotation

from persistworld.apps.recording import Recording
from persistworld.robot.control import EULER, GRIPPER
from persistworld.rollouts.inhabited import Inhabited
from persistworld.rollouts.start_frames import StartFrame
from persistworld.runtime.errors import UserError

# The keys of Ctrl-World's keyboard script: left, right, forward, back, up, down (in the robot's frame), open, close; and turns of the hand.
MOVES = {"l": (0, 1, 0), "r": (0, -1, 0), "f": (1, 0, 0), "b": (-1, 0, 0), "u": (0, 0, 1), "d": (0, 0, -1)}
TURNS = {"q": 1.0, "e": -1.0}
GRIPS = {"o": 0.0, "c": 1.0}
STAY = "."
LETTERS = "".join((*MOVES, *TURNS, *GRIPS, STAY))
UNDO = 64  # chunks that can be taken back
LONGEST = 1000  # chunks in one drive: what is recorded is kept in memory
MARGIN = 0.05  # m beyond the poses of training to which the hand may go


class Starts(Protocol):
    """Numbered starts of drives."""

    def indices(self) -> list[int]: ...

    def start(self, index: int) -> StartFrame: ...


@dataclass(frozen=True)
class Push:
    """A driver's command for one chunk. move: shares of a step along x, y, z; turn: share of a turn about z; gripper: 0..1 or None."""

    move: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: float = 0.0
    gripper: float | None = None


def pushed(letters: str) -> Push:
    """The command of keys that are pressed at once. Raises UserError for a letter that is not a key."""
    move, turn, gripper = np.zeros(3), 0.0, None
    for letter in letters:
        if letter in MOVES:
            move += MOVES[letter]
        elif letter in TURNS:
            turn += TURNS[letter]
        elif letter in GRIPS:
            gripper = GRIPS[letter]
        elif letter != STAY:
            raise UserError(f"key {letter!r}: no such key; choose from {LETTERS} (left right forward back up down, turn, open close, wait)")
    return Push(tuple(move), turn, gripper)


class Drive:
    """One person's drive in one or several models."""

    def __init__(self, models: Mapping[str, Inhabited], starts: Starts) -> None:
        """models: name -> a batch of one rollout, which no other drive uses."""
        self.models, self.starts = dict(models), starts
        self.start: StartFrame | None = None
        self.recording = Recording()
        self._before: list[dict[str, bytes]] = []  # states to go back to
        self._gripper = 0.0
        self._heading = np.zeros(0)  # the pose that was last commanded

    @property
    def chunks(self) -> int:
        return len(self.recording.commands) // next(iter(self.models.values())).pixels.new_frames

    @property
    def current(self) -> np.ndarray:
        """(M, V, H, W, 3) uint8: the newest frame of every model."""
        return np.stack([model.frames[0] for model in self.models.values()])

    @property
    def pose(self) -> np.ndarray:
        """(7,): the pose of the first model's robot."""
        return next(iter(self.models.values())).poses[0]

    def reset(self, index: int, noise: int = 0) -> None:
        """Start again at the given start, with the seed `noise` for the sampler's noise."""
        start = self.starts.start(index)
        if len(start.pose) != GRIPPER + 1:
            raise UserError(f"episode {index}: its poses have {len(start.pose)} numbers; only an arm with a gripper (7) can be driven")
        self.recording, self._before, self.start = Recording(), [], start
        for name, model in self.models.items():
            model.reset([start], [(noise, "rollout", start.episode)])
            self.recording.frames[name] = [model.frames[0].copy()]
            self.recording.poses[name], self.recording.joints[name] = [model.poses[0]], [model.joints[0]]
        self._heading, self._gripper = self.pose.copy(), float(round(self.pose[GRIPPER]))

    def go(self, push: Push, step: float, angle: float) -> np.ndarray:
        """Generate a chunk. step (m), angle (rad): covered by a full push in a chunk. Returns the new frames (n, M, V, H, W, 3) uint8."""
        if self.start is None:
            raise UserError("drive: start at an episode first")
        if self.chunks >= LONGEST:
            raise UserError(f"drive: a drive has at most {LONGEST} chunks; save it and start again")
        commands = self._commands(push, step, angle)
        note = [*self._heading, self._gripper]
        self._before = [*self._before[1 - UNDO :], {name: model.state(note) for name, model in self.models.items()}]
        frames = []
        for name, model in self.models.items():
            seen, (reached,) = model.step([commands])
            frames.append(seen[0])
            self.recording.frames[name] += list(seen[0])
            self.recording.poses[name] += list(reached.poses)
            self.recording.joints[name] += [None] * len(commands) if reached.joints is None else list(reached.joints)
        self.recording.commands += list(commands)
        self._heading, self._gripper = commands[-1], float(commands[-1][GRIPPER])
        return np.stack(frames, axis=1)

    def _commands(self, push: Push, step: float, angle: float) -> np.ndarray:
        """(n, 7): equal steps from the last commanded pose, clipped to the workspace. The gripper changes in the first frame."""
        model = next(iter(self.models.values())).pixels
        low, high = self._workspace()
        shares = np.arange(1, model.new_frames + 1)[:, None] / model.new_frames
        end = self._heading.copy()
        end[:3] = np.clip(end[:3] + step * np.asarray(push.move), np.minimum(low, end[:3]), np.maximum(high, end[:3]))
        commands = np.tile(self._heading, (model.new_frames, 1))
        commands[:, :3] += shares * (end[:3] - self._heading[:3])
        turns = Rotation.from_euler("z", shares * angle * push.turn) * Rotation.from_euler("xyz", self._heading[EULER])
        commands[:, EULER] = turns.as_euler("xyz")
        commands[:, GRIPPER] = self._gripper if push.gripper is None else push.gripper
        return commands

    def _workspace(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest x, y, z in the models' training data."""
        known = [model.pixels.rollout.model.statistics for model in self.models.values()]
        return np.max([each.low[:3] for each in known], axis=0) - MARGIN, np.min([each.high[:3] for each in known], axis=0) + MARGIN

    @property
    def at_edge(self) -> str:
        """The axes along which the hand is at the edge of the workspace, e.g. "xz". Empty if there are none."""
        low, high = self._workspace()
        return "".join(axis for axis, at, a, b in zip("xyz", self._heading, low, high, strict=False) if not a + 1e-6 < at < b - 1e-6)

    def undo(self) -> bool:
        """Go back to the state before the last chunk, and drop the chunk from the recording.

        Returns False and changes nothing if there is no chunk, or if the state before it is no longer kept (only the last `UNDO` are).
        """
        if not self._before:
            return False
        for name, state in self._before.pop().items():
            *heading, gripper = self.models[name].load(state)
            self._heading, self._gripper = np.array(heading), gripper
        self.recording.cut(self.chunks_to_frames(self.chunks - 1))
        return True

    def chunks_to_frames(self, chunks: int) -> int:
        """Number of frames of a drive of `chunks` chunks, including the first frame."""
        return 1 + chunks * next(iter(self.models.values())).pixels.new_frames

"""A batch of rollouts with a robot in each. The environments and the programs use it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from persistworld.robot.actions import Actions, Reached, follow
from persistworld.robot.control import Controller
from persistworld.robot.kinematics import REST, Tool
from persistworld.robot.spaces import Observation, observation
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Key
from persistworld.rollouts.start_frames import StartFrame
from persistworld.runtime.errors import UserError

# (observation, commands (n, 7)) -> the gripper value in 0..1 at which the closing fingers meet an object; 1 if they meet nothing
GraspReader = Callable[[Observation, np.ndarray], float]


@dataclass(frozen=True)
class Embodiment:
    """The robot in the rollouts.

    actions: how an action is interpreted; tool: the point of a Panda that the poses describe, or None for another robot; control: which
    poses are reached for which commands; grasp: detects in the frames whether an object is between the fingers. Without `grasp` the
    fingers always close freely.
    """

    actions: Actions
    tool: Tool | None
    control: Controller
    grasp: GraspReader | None = None


class Inhabited:
    """B rollouts, each with the robot's pose, joints and instruction, and its newest frames."""

    def __init__(self, pixels: PixelRollout, robot: Embodiment) -> None:
        self.pixels, self.robot = pixels, robot
        self.frames = np.zeros((0,))  # (B, V, H, W, 3) uint8
        self.poses: list[np.ndarray] = []
        self.joints: list[np.ndarray | None] = []
        self.instructions: list[str] = []
        self.chunks: list[int] = []  # completed by each rollout since its start

    def __len__(self) -> int:
        return len(self.poses)

    def reset(self, starts: Sequence[StartFrame], keys: Sequence[Key], rows: Sequence[int] | None = None) -> None:
        """Start at `starts` with the noise of `keys`: a new batch, or only the given `rows` of the batch.

        Raises UserError if the size of a start's pose differs from the size of an action's pose.
        """
        for start in starts:
            if len(start.pose) != self.robot.actions.numbers:
                raise UserError(f"start: its pose has {len(start.pose)} numbers, expected {self.robot.actions.numbers}")
        frames = self.pixels.reset(starts, keys, rows)
        if rows is None:
            count = len(starts)
            self.frames, rows = frames, range(count)
            self.poses, self.joints, self.instructions, self.chunks = [np.zeros(0)] * count, [None] * count, [""] * count, [0] * count
        for place, start, seen in zip(rows, starts, frames, strict=True):
            self.frames[place] = seen
            self.poses[place], self.instructions[place], self.chunks[place] = np.asarray(start.pose, np.float64), start.instruction, 0
            self.joints[place] = self._joints_at(start)

    def _joints_at(self, start: StartFrame) -> np.ndarray | None:
        if self.robot.tool is None:
            return None
        if start.joints is not None:
            return np.asarray(start.joints, np.float64)
        return follow(start.pose[None], REST, self.robot.tool)[0]  # any joint configuration with this hand pose

    def step(self, actions: Sequence[np.ndarray], rows: Sequence[int] | None = None) -> tuple[np.ndarray, list[Reached]]:
        """Carry out one action per rollout. Returns the new frames (B, n, V, H, W, 3) uint8 and what each robot reached."""
        places = list(range(len(self))) if rows is None else list(rows)
        reached = [self._reached(place, action) for place, action in zip(places, actions, strict=True)]
        return self.go(reached, rows), reached

    def _reached(self, place: int, action: np.ndarray) -> Reached:
        robot, pose, joints, stop = self.robot, self.poses[place], self.joints[place], 1.0
        if robot.grasp is not None:
            # The grasp reader takes commands as poses. Joint velocities are converted to the poses that they reach in free space.
            free = robot.actions.reached(action, pose, joints, robot.tool, robot.control)
            stop = robot.grasp(self.observation(place), free.commands)
        return robot.actions.reached(action, pose, joints, robot.tool, robot.control, stop)

    def go(self, reached: Sequence[Reached], rows: Sequence[int] | None = None) -> np.ndarray:
        """The new frames (B, n, V, H, W, 3) uint8 for known poses, e.g. recorded ones."""
        frames = self.pixels.step(np.stack([each.poses for each in reached]), rows)
        for place, each, seen in zip(range(len(self)) if rows is None else rows, reached, frames, strict=True):
            self.frames[place], self.poses[place] = seen[-1], each.poses[-1]
            self.joints[place] = None if each.joints is None else each.joints[-1]
            self.chunks[place] += 1
        return frames

    def observation(self, place: int) -> Observation:
        """The current observation of one rollout, as a policy sees it."""
        return observation(self.pixels.views, self.frames[place], self.poses[place], self.joints[place], self.instructions[place])

    def fork(self) -> "Inhabited":
        """An independent copy: the same actions lead to the same frames in both."""
        copy = Inhabited(PixelRollout(self.pixels.rollout.fork(1), self.pixels.autoencoder), self.robot)
        copy.frames, copy.poses, copy.joints = self.frames.copy(), list(self.poses), list(self.joints)
        copy.instructions, copy.chunks = list(self.instructions), list(self.chunks)
        return copy

    def state(self, note: object = None) -> bytes:
        """The whole state as one safetensors file, with a JSON-serialisable `note`. Equal states give equal bytes."""
        tensors: dict[str, Tensor] = {f"rollout.{name}": tensor for name, tensor in self.pixels.rollout.state().items()}
        tensors["frames"], tensors["poses"] = torch.from_numpy(self.frames.copy()), torch.from_numpy(np.stack(self.poses))
        if self.robot.tool is not None:
            tensors["joints"] = torch.from_numpy(np.stack(self.joints))
        rest = {"instructions": self.instructions, "chunks": self.chunks, "note": note}
        tensors["rest"] = torch.frombuffer(bytearray(json.dumps(rest, sort_keys=True).encode()), dtype=torch.uint8)
        return save(tensors)

    def load(self, state: bytes) -> object:
        """Restore the result of `state` and return its note. Raises UserError if it is not a state, or belongs to another embodiment."""
        try:
            tensors = load(state)
            rest = json.loads(bytes(tensors["rest"].tolist()))
            self.pixels.rollout.load({name.removeprefix("rollout."): t for name, t in tensors.items() if name.startswith("rollout.")})
            joints = [None] * len(rest["chunks"]) if self.robot.tool is None else list(tensors["joints"].numpy())
        except Exception as error:
            raise UserError(f"state: not one that this environment saved ({error})") from None
        self.frames, self.poses, self.joints = tensors["frames"].numpy().copy(), list(tensors["poses"].numpy()), joints
        self.instructions, self.chunks = rest["instructions"], rest["chunks"]
        return rest["note"]

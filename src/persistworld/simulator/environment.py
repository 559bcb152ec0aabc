"""The tabletop simulator as a gymnasium environment with the world model's spaces, so that a policy runs in both without changes.

A scene is identified by (seed, number). It is the scene in which episode `number` of that seed begins.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import VIEWS
from persistworld.robot.actions import Actions, Kind
from persistworld.robot.control import EXACT, GRIPPER, toward
from persistworld.robot.kinematics import Tool
from persistworld.robot.spaces import Observation, action_space, observation, observation_space, side_by_side
from persistworld.rollouts.start_frames import StartFrame
from persistworld.runtime.errors import UserError
from persistworld.simulator.episode import STEPS_PER_COMMAND
from persistworld.simulator.labels import stages
from persistworld.simulator.scene import PHYSICS_STEP, Scene
from persistworld.simulator.scripts import start_waypoint
from persistworld.simulator.tasks import Task, sample_task, succeeded

TOOL: Tool = "fingertips"
FRAMES = 4  # new frames per chunk: the world model's L - 1


def open_scene(seed: int, number: int, settings: EpisodesConfig) -> tuple[Scene, Task]:
    """The scene in which episode `number` of `seed` begins, with the arm at its start pose. Close it after use."""
    random = np.random.default_rng([seed, number])
    task = sample_task(random, settings.colours, settings.outcomes)
    scene = Scene(task, random, settings.height, settings.width)
    start = start_waypoint(random)
    scene.place_arm(start.position, (math.pi, 0.0, start.yaw), start.gripper)
    return scene, task


class SimulatedStarts:
    """The first frames of the simulated scenes of one seed, as start frames for a world model's environment (a StartSource)."""

    tool: Tool = TOOL

    def __init__(self, settings: EpisodesConfig, seed: int = 0, count: int = 1000) -> None:
        """count: the number of scenes to draw from. Raises UserError when `settings` name a view that the simulator does not have."""
        if unknown := [view for view in settings.views if view not in VIEWS]:
            raise UserError(f"episodes.views: the simulator has no view {unknown[0]}; it has {', '.join(VIEWS)}")
        self.settings, self.seed, self.count = settings, seed, count

    def indices(self) -> list[int]:
        return list(range(self.count))

    def start(self, number: int) -> StartFrame:
        scene, task = open_scene(self.seed, number, self.settings)
        try:
            frames, (pose, joints) = scene.render()[0], scene.robot_state()
        finally:
            scene.close()
        views = frames[[VIEWS.index(view) for view in self.settings.views]]
        return StartFrame(views, pose, joints, task.instruction, number)

    def __call__(self, random: np.random.Generator, options: Mapping[str, Any]) -> StartFrame:
        number = options.get("episode")
        return self.start(int(random.integers(self.count)) if number is None else int(number))


class TabletopEnv(gymnasium.Env[Observation, np.ndarray]):
    """One simulated scene. It has the same spaces, chunks and `info` as WorldModelEnv. Poses are the poses that the simulated arm reached.

    Option of `reset`: `episode`, the number of the scene (default: drawn at random). The reward is 1 while the instruction is fulfilled and
    the gripper does not hold the object, otherwise 0. Episodes never terminate; they are truncated. Besides, `info["stages"]` says which of
    simulator.labels.STAGES hold after each frame, (4, 5) bool.
    """

    metadata = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 5}  # noqa: RUF012 (gymnasium's name)

    def __init__(
        self, settings: EpisodesConfig, *, scenes: int = 0, action: Kind = "absolute", rate: float = 15.0, chunks: int = 15,
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        """scenes: the seed of the scenes; action, rate (Hz): kind and rate of actions; chunks: an episode is truncated after so many."""
        self.starts = SimulatedStarts(settings, scenes)
        self.settings, self.actions, self.chunks = settings, Actions(action, FRAMES, settings.fps, rate), chunks
        self.observation_space = observation_space(settings.views, settings.height, settings.width, GRIPPER + 1, TOOL)
        self.action_space = action_space(self.actions)
        self.render_mode = render_mode
        self.scene: Scene | None = None
        self.task: Task | None = None
        self._number, self._log = 0, []  # the scene's number, and all actions since its start
        self._unseen: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        if unknown := set(options or {}) - {"episode"}:
            raise UserError(f"reset: no option {min(unknown)}; the simulator knows episode")
        number = (options or {}).get("episode")
        self._begin(int(self.np_random.integers(self.starts.count)) if number is None else int(number))
        return self._observation(), {"episode": self._number}

    def _begin(self, number: int) -> None:
        self.close()
        self.scene, self.task = open_scene(self.starts.seed, number, self.settings)
        self._number, self._log = number, []
        self._first, _ = self.scene.object_pose()
        self._command = self.scene.robot_state()[0]
        self._frames = self._seen()
        self._unseen = [side_by_side(self._frames)]

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        pose, joints = self.scene.robot_state()
        commands = self.actions.reached(action, pose, joints, TOOL, EXACT).commands
        self._log.append(np.array(action, np.float64))
        frames, states, labels = [], [], []
        for command in commands:
            self._move(command)
            frames.append(self._seen())
            states.append(self.scene.robot_state())
            labels.append(stages(self.task, self._first, self.scene))
        self._frames = frames[-1]
        if self.render_mode == "rgb_array_list":
            self._unseen += [side_by_side(frame) for frame in frames]
        done = succeeded(self.task, self._first, self.scene.object_pose()[0], self.scene.holding)
        poses, joints = (np.stack(part) for part in zip(*states, strict=True))
        info = {"frames": np.stack(frames), "commands": commands, "poses": poses, "joints": joints, "stages": np.stack(labels)}
        return self._observation(), float(done), False, len(self._log) >= self.chunks, info

    def _move(self, command: np.ndarray) -> None:
        """Simulate one frame. Commands are interpolated from the last one, at the same rate as in scripted episodes."""
        steps, remaining = round(1 / self.settings.fps / PHYSICS_STEP), round(1 / self.settings.fps / PHYSICS_STEP)
        while remaining:
            count = min(STEPS_PER_COMMAND, remaining)
            remaining -= count
            now = toward(self._command, command, 1 - remaining / steps)
            self.scene.command(now[:3], now[3:6], float(now[GRIPPER]))
            self.scene.step(count)
        self._command = command

    def _seen(self) -> np.ndarray:
        return self.scene.render()[0][[VIEWS.index(view) for view in self.settings.views]]

    def _observation(self) -> Observation:
        pose, joints = self.scene.robot_state()
        return observation(self.settings.views, self._frames, pose, joints, self.task.instruction)

    def render(self) -> np.ndarray | list[np.ndarray]:
        """The same as WorldModelEnv.render."""
        if self.render_mode == "rgb_array_list":
            pictures, self._unseen = self._unseen, []
            return pictures
        return side_by_side(self._frames)

    def save_state(self) -> bytes:
        """The scene and all actions so far. `restore_state` repeats these actions, which gives the same bytes."""
        log = [action.tolist() for action in self._log]
        state = {"scenes": self.starts.seed, "number": self._number, "actions": log, "random": self.np_random.bit_generator.state}
        return json.dumps(state).encode()

    def restore_state(self, state: bytes) -> Observation:
        """Restore a state that an environment with the same settings saved. Returns the observation in that state.

        Raises UserError when the state is malformed or has another seed of scenes.
        """
        try:
            known = json.loads(state)
            number, log, random, seed = (known[key] for key in ("number", "actions", "random", "scenes"))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"state: not one that this environment saved ({error})") from None
        if seed != self.starts.seed:
            raise UserError(f"state: of scenes {seed}, but this environment has scenes {self.starts.seed}")
        self._begin(number)
        for action in log:
            self.step(np.array(action))
        self.np_random.bit_generator.state = random
        return self._observation()

    def fork(self) -> "TabletopEnv":
        """An independent environment in the same state."""
        kind, rate = self.actions.kind, self.actions.rate
        copy = TabletopEnv(
            self.settings, scenes=self.starts.seed, action=kind, rate=rate, chunks=self.chunks, render_mode=self.render_mode
        )
        copy.restore_state(self.save_state())
        return copy

    def close(self) -> None:
        if self.scene is not None:
            self.scene.close()
            self.scene = None

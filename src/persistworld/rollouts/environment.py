"""The world model as a gymnasium environment, single and vectorised.

A step is one chunk: an action covers the next n = L - 1 frames (`robot.actions`), and the observation is the last of them. All n frames
are in `info["frames"]`. The reward is always 0 and no episode terminates: a separate judge decides about success.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from persistworld.robot.actions import Reached
from persistworld.robot.spaces import Observation, action_space, observation_space, side_by_side
from persistworld.rollouts.inhabited import Embodiment, Inhabited
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Key
from persistworld.rollouts.start_frames import StartFrame, StartSource
from persistworld.runtime.errors import UserError

OPTIONS = {"episode", "frame", "noise", "start"}  # of `reset`


@dataclass(frozen=True)
class World:
    """The parts of an environment. size: height and width of a view; chunks: number of chunks after which an episode is truncated."""

    pixels: PixelRollout
    robot: Embodiment
    starts: StartSource
    size: tuple[int, int]
    chunks: int

    def spaces(self) -> tuple[gymnasium.Space, gymnasium.Space]:
        """The observation space and the action space."""
        actions = self.robot.actions
        return observation_space(self.pixels.views, *self.size, actions.numbers, self.robot.tool), action_space(actions)


def _start(starts: StartSource, random: np.random.Generator, options: Mapping[str, Any] | None) -> tuple[StartFrame, Key]:
    """A start frame and its noise key, drawn at random or taken from `options`."""
    options = options or {}
    if unknown := set(options) - OPTIONS:
        raise UserError(f"reset: no option {min(unknown)}; choose from {', '.join(sorted(OPTIONS))}")
    noise = int(random.integers(1 << 31))  # always drawn, so that options do not change later draws
    start = options.get("start") or starts(random, options)
    return start, (int(options.get("noise", noise)), "rollout", start.episode)


def _info(frames: np.ndarray, reached: Reached) -> dict[str, np.ndarray]:
    found = {"frames": frames, "commands": reached.commands, "poses": reached.poses}
    return found if reached.joints is None else found | {"joints": reached.joints}


class WorldModelEnv(gymnasium.Env[Observation, np.ndarray]):
    """One rollout. `make_env` builds it from a checkpoint.

    Options of reset: `episode` and `frame` to start from (by default a random episode, frame 0) or `start`, a StartFrame; `noise`, the seed
    of the sampler's noise. With the same episode, noise seed and poses, the frames equal those of the workflow's rollout.
    info after a step: frames (n, V, H, W, 3) uint8, commands (n, 7) as commanded, poses (n, 7) as reached; for a Panda also joints (n, 7)
    as reached.
    """

    metadata = {"render_modes": ["rgb_array", "rgb_array_list"], "render_fps": 5}  # noqa: RUF012 (gymnasium's name)

    def __init__(self, world: World, render_mode: str | None = None) -> None:
        self.world, self.inside = world, Inhabited(world.pixels, world.robot)
        self.observation_space, self.action_space = world.spaces()
        self.render_mode = render_mode
        self._unseen: list[np.ndarray] = []  # images since the last `render`, for rgb_array_list

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        start, key = _start(self.world.starts, self.np_random, options)
        self.inside.reset([start], [key])
        self._unseen = [side_by_side(self.inside.frames[0])]
        return self.inside.observation(0), {"episode": start.episode}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        frames, reached = self.inside.step([action])
        if self.render_mode == "rgb_array_list":
            self._unseen += list(side_by_side(frames[0]))
        return self.inside.observation(0), 0.0, False, self.inside.chunks[0] >= self.world.chunks, _info(frames[0], reached[0])

    def render(self) -> np.ndarray | list[np.ndarray]:
        """rgb_array: the newest frame with its views side by side, (H, V * W, 3) uint8. rgb_array_list: all frames since the last call."""
        if self.render_mode == "rgb_array_list":
            pictures, self._unseen = self._unseen, []
            return pictures
        return side_by_side(self.inside.frames[0])

    def fork(self) -> "WorldModelEnv":
        """An independent environment in the same state: the same actions lead to the same frames in both."""
        copy = WorldModelEnv(self.world, self.render_mode)
        copy.inside = self.inside.fork()
        copy.np_random.bit_generator.state = self.np_random.bit_generator.state
        return copy

    def save_state(self) -> bytes:
        """The whole state. `restore_state` restores it, here or in another process with the same checkpoint."""
        return self.inside.state(note=self.np_random.bit_generator.state)

    def restore_state(self, state: bytes) -> Observation:
        """Restore a saved state. The next steps give the same bytes. Returns the current observation."""
        self.np_random.bit_generator.state = self.inside.load(state)
        self._unseen = [side_by_side(self.inside.frames[0])]
        return self.inside.observation(0)


class WorldModelVectorEnv(VectorEnv):
    """B rollouts in one sampler call. A truncated rollout restarts at its next step, and ignores the action of that step.

    Options of reset: as for WorldModelEnv; each is one value for all rollouts or a sequence with one value per rollout. info: the same
    arrays with a leading axis B. Rows of rollouts that have just restarted are 0.
    """

    def __init__(self, world: World, num_envs: int) -> None:
        self.metadata = WorldModelEnv.metadata | {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.world, self.inside, self.num_envs = world, Inhabited(world.pixels, world.robot), num_envs
        self.single_observation_space, self.single_action_space = world.spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = "rgb_array"
        self._randoms = self._generators(None)

    def _generators(self, seed: int | Sequence[int] | None) -> list[np.random.Generator]:
        """One generator per rollout. Rollout i with seed s draws the same numbers as a single environment with seed s + i."""
        seeds = [None] * self.num_envs if seed is None else [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        return [gymnasium.utils.seeding.np_random(each)[0] for each in seeds]

    def reset(self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._randoms = self._generators(seed)
        pairs = []
        for i, random in enumerate(self._randoms):
            own = {name: value[i] if isinstance(value, Sequence | np.ndarray) else value for name, value in (options or {}).items()}
            pairs.append(_start(self.world.starts, random, own))
        self.inside.reset([start for start, _ in pairs], [key for _, key in pairs])
        return self._observations(), {"episode": np.array([start.episode for start, _ in pairs])}

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        over = [place for place in range(self.num_envs) if self.inside.chunks[place] >= self.world.chunks]
        on = [place for place in range(self.num_envs) if place not in over]
        frames, reached = self.inside.step([actions[place] for place in on], on) if on else (None, [])
        if over:
            pairs = [_start(self.world.starts, self._randoms[place], None) for place in over]
            self.inside.reset([start for start, _ in pairs], [key for _, key in pairs], over)
        infos: dict[str, np.ndarray] = {}
        for row, place in enumerate(on):
            for name, value in _info(frames[row], reached[row]).items():
                infos.setdefault(name, np.zeros((self.num_envs, *value.shape), value.dtype))[place] = value
        truncated = np.array([chunks >= self.world.chunks for chunks in self.inside.chunks])
        return self._observations(), np.zeros(self.num_envs), np.zeros(self.num_envs, bool), truncated, infos

    def _observations(self) -> Any:
        out = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, [self.inside.observation(i) for i in range(self.num_envs)], out)

    def render(self) -> tuple[np.ndarray, ...]:
        """Each rollout's newest frame, (H, V * W, 3) uint8."""
        return tuple(side_by_side(self.inside.frames))

    def save_state(self) -> bytes:
        return self.inside.state(note=[random.bit_generator.state for random in self._randoms])

    def restore_state(self, state: bytes) -> Any:
        """Restore a saved state with the same number of rollouts. Returns the current observations."""
        for random, known in zip(self._randoms, self.inside.load(state), strict=True):
            random.bit_generator.state = known
        return self._observations()

"""The interface of a policy, and the loop that runs one in a world. World model and simulator look the same to it."""

from collections.abc import Iterator
from typing import Any, Protocol

import gymnasium
import numpy as np

from persistworld.robot.actions import Kind
from persistworld.robot.spaces import Observation


class Policy(Protocol):
    """One chunk of actions from one observation.

    kind: how its actions are interpreted (`robot.actions.Actions`); rate: rows of joint velocities per second.
    """

    kind: Kind
    rate: float

    def reset(self, seed: int) -> None:
        """Begin an episode. All randomness depends only on `seed`."""

    def act(self, observation: Observation) -> np.ndarray:
        """The action for the next chunk, in the shape that `kind` has. observation: `robot.spaces.observation_space`."""


class Still:
    """Stays where it is."""

    kind: Kind = "relative"
    rate = 15.0

    def __init__(self, frames: int = 4) -> None:
        self.frames = frames

    def reset(self, seed: int) -> None:
        """Nothing to reset."""

    def act(self, observation: Observation) -> np.ndarray:
        action = np.zeros((self.frames, 7))
        action[:, 6] = observation["pose"][6]
        return action


class Wander(Still):
    """Drifts at random, a few centimetres per chunk: a policy without skill."""

    def reset(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def act(self, observation: Observation) -> np.ndarray:
        action = super().act(observation)
        action[:, :3] = np.arange(1, self.frames + 1)[:, None] / self.frames * self.random.normal(0, 0.04, 3)
        action[:, 6] = self.random.integers(2)
        return action


SIMPLE = {"still": Still, "wander": Wander}


def run_policy(
    env: gymnasium.Env, policy: Policy, chunks: int, seed: int, options: dict[str, Any] | None = None
) -> Iterator[tuple[Observation, dict[str, Any]]]:
    """Yield the first observation with no info, then observation and info after each of `chunks` chunks."""
    policy.reset(seed)
    observation, _ = env.reset(seed=seed, options=options)
    yield observation, {}
    for _ in range(chunks):
        observation, _, _, _, info = env.step(policy.act(observation))
        yield observation, info

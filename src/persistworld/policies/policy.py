"""What a policy is, and how one is run in a world: the world model or the simulator, which it cannot tell apart."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import gymnasium
import numpy as np

from persistworld.robot.actions import Kind
from persistworld.robot.spaces import Observation
from persistworld.runtime.errors import UserError


class Policy(Protocol):
    """One chunk of actions from one observation.

    kind: how its actions are meant (`robot.actions.Actions`); rate: of joint velocities, a second.
    """

    kind: Kind
    rate: float

    def reset(self, seed: int) -> None:
        """An episode begins. What is random in it depends on `seed` alone."""

    def act(self, observation: Observation) -> np.ndarray:
        """The action for the next chunk, in the shape that `kind` has. observation: `robot.spaces.observation_space`."""


class Still:
    """Stays where it is."""

    kind: Kind = "relative"
    rate = 15.0

    def __init__(self, frames: int = 4) -> None:
        self.frames = frames

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> np.ndarray:
        action = np.zeros((self.frames, 7))
        action[:, 6] = observation["pose"][6]
        return action


class Wander(Still):
    """Drifts about at random, a few centimetres a chunk: what a policy without skill reaches."""

    def reset(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def act(self, observation: Observation) -> np.ndarray:
        action = super().act(observation)
        action[:, :3] = np.arange(1, self.frames + 1)[:, None] / self.frames * self.random.normal(0, 0.04, 3)
        action[:, 6] = self.random.integers(2)
        return action


SIMPLE = {"still": Still, "wander": Wander}


def find_policy(name: str) -> Policy:
    """One of SIMPLE by its name, or of one's own: `module:name` is called without arguments; modules are also looked for in the working
    folder. Raises UserError when there is none, or what is there is no policy."""
    if name in SIMPLE:
        return SIMPLE[name]()
    module, _, attribute = name.partition(":")
    if not attribute:
        raise UserError(f"--policy {name}: no such policy; choose from {', '.join(SIMPLE)}, openpi, groot, or name your own as MODULE:NAME")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        policy = getattr(importlib.import_module(module), attribute)()
    except ModuleNotFoundError as error:
        raise UserError(f"--policy {name}: no module {error.name}; start where {module}.py lies, or install it") from None
    except AttributeError as error:
        raise UserError(f"--policy {name}: {error}") from None
    lacking = [part for part in ("kind", "rate", "reset", "act") if not hasattr(policy, part)]
    if lacking:
        raise UserError(f"--policy {name}: has no {lacking[0]}; docs/step_inside.md shows what a policy is")
    return policy


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

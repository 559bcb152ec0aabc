"""Runs a policy from every initial state, in the simulator ("real") or in a world model, and judges the rollouts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from persistworld.config.data import EpisodesConfig
from persistworld.policies.initial_states import InitialState
from persistworld.policies.judge import Judge, Verdict
from persistworld.policies.policy import Policy, run_policy
from persistworld.rollouts.inhabited import Inhabited
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Key
from persistworld.rollouts.start_frames import StartFrame
from persistworld.runtime.tensor_files import map_tensors, write_tensors
from persistworld.simulator.environment import TabletopEnv

NewPolicy = Callable[[], Policy]
REPLAYED = "-replayed"  # in the name of the file with the rollouts of true poses
ARRAYS = ("states", "seeds", "frames", "poses", "stages", "seen")


@dataclass(frozen=True)
class PolicyRollouts:
    """R rollouts of one policy in one world, T frames each, the first included.

    states: (R,) scene; seeds: (R,) of the sampler's noise, 0 in the simulator; frames: (R, 1 + chunks, V, H, W, 3) uint8, the first and
    each chunk's last; poses: (R, T, 7) reached; stages: (R, T, S) bool and seen: (R, T) bool, as judged; truth: (R, T, S) bool, what
    the simulator knows of the stages, or None in a world model.
    """

    states: np.ndarray
    seeds: np.ndarray
    frames: np.ndarray
    poses: np.ndarray
    stages: np.ndarray
    seen: np.ndarray
    truth: np.ndarray | None = None

    def save(self, path: Path) -> None:
        arrays = {name: getattr(self, name) for name in ARRAYS} | ({} if self.truth is None else {"truth": self.truth})
        write_tensors({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}, path)

    @staticmethod
    def load(path: Path) -> "PolicyRollouts":
        """Raises UserError if the file is missing or damaged."""
        return PolicyRollouts(**{name: tensor.numpy() for name, tensor in map_tensors(path).items()})

    def take(self, rows: np.ndarray) -> "PolicyRollouts":
        some = {name: getattr(self, name)[rows] for name in ARRAYS}
        return PolicyRollouts(**some, truth=None if self.truth is None else self.truth[rows])

    @staticmethod
    def of(states: Sequence[int], seeds: Sequence[int], frames: np.ndarray, poses: np.ndarray, verdicts: Sequence[Verdict],
           new: int, truth: np.ndarray | None = None) -> "PolicyRollouts":  # fmt: skip
        """frames: (R, T, V, H, W, 3), of which the first one and each chunk's last are kept; new: new frames per chunk."""
        stages, seen = np.stack([verdict.stages for verdict in verdicts]), np.stack([verdict.seen for verdict in verdicts])
        return PolicyRollouts(
            np.array(states), np.array(seeds), frames[:, ::new], poses.astype(np.float32), stages, seen, truth
        )


def run_in_simulator(
    new_policy: NewPolicy, states: Sequence[InitialState], scenes: int, chunks: int, episodes: EpisodesConfig, judge: Judge
) -> PolicyRollouts:
    """One rollout from each state. The policy's random numbers depend only on the state, as in a world model."""
    policy = new_policy()
    env = TabletopEnv(episodes, scenes=scenes, action=policy.kind, rate=policy.rate, chunks=chunks)
    frames, poses, truth = [], [], []
    try:
        for state in states:
            steps = list(run_policy(env, policy, chunks, state.scene, {"episode": state.scene}))
            first, infos = steps[0][0], [info for _, info in steps[1:]]
            new = np.concatenate([info["frames"] for info in infos])
            frames.append(np.concatenate([np.stack(list(first["views"].values()))[None], new]))
            poses.append(np.concatenate([first["pose"][None], *(info["poses"] for info in infos)]))
            known = np.concatenate([info["stages"] for info in infos])
            truth.append(np.concatenate([np.zeros_like(known[:1]), known]))
    finally:
        env.close()
    verdicts = [judge(film) for film in frames]
    new = (len(frames[0]) - 1) // chunks
    numbers = [state.scene for state in states]
    return PolicyRollouts.of(numbers, [0] * len(states), np.stack(frames), np.stack(poses), verdicts, new, np.stack(truth))


def run_in_model(
    new_policy: NewPolicy, inside: Inhabited, starts: Sequence[StartFrame], seeds: Sequence[int], chunks: int, judge: Judge
) -> PolicyRollouts:
    """One rollout for each start and noise seed, all in one batch."""
    pairs = [(start, seed) for seed in seeds for start in starts]
    policies = [new_policy() for _ in pairs]
    for policy, (start, _) in zip(policies, pairs, strict=True):
        policy.reset(start.episode)
    inside.reset([start for start, _ in pairs], [_key(seed, start) for start, seed in pairs])
    frames, poses = [inside.frames[:, None].copy()], [np.stack(inside.poses)[:, None]]
    for _ in range(chunks):
        new, reached = inside.step([policy.act(inside.observation(place)) for place, policy in enumerate(policies)])
        frames.append(new)
        poses.append(np.stack([each.poses for each in reached]))
    return _judged(pairs, np.concatenate(frames, axis=1), np.concatenate(poses, axis=1), inside.pixels.new_frames, judge)


def replay_in_model(pixels: PixelRollout, starts: Sequence[StartFrame], poses: np.ndarray, seed: int, judge: Judge) -> PolicyRollouts:
    """The model's rollouts for the poses (R, T, 7) that were reached in reality, one row per start."""
    pairs, new = [(start, seed) for start in starts], pixels.new_frames
    frames = [pixels.reset(starts, [_key(seed, start) for start in starts])[:, None]]
    frames += [pixels.step(poses[:, t : t + new]) for t in range(1, poses.shape[1], new)]
    return _judged(pairs, np.concatenate(frames, axis=1), poses, new, judge)


def _key(seed: int, start: StartFrame) -> Key:
    return seed, "rollout", start.episode


def _judged(pairs: Sequence[tuple[StartFrame, int]], frames: np.ndarray, poses: np.ndarray, new: int, judge: Judge) -> PolicyRollouts:
    verdicts = [judge(film) for film in frames]
    return PolicyRollouts.of([start.episode for start, _ in pairs], [seed for _, seed in pairs], frames, poses, verdicts, new)

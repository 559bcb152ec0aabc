"""Trains the grasp reader (policies.grasp_reader) on episodes that record the commanded and the reached gripper value."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from persistworld.data.episodes import Episode
from persistworld.policies.grasp_reader import GraspNetwork, GraspReader, motion_of
from persistworld.robot.control import GRIPPER, TABLETOP
from persistworld.training.small_networks import fit, varied
from persistworld.world_model.views import images_to_float

BATCH, RATE = 64, 2e-3
CLOSING = 0.35  # gripper value, 0..1: frames where the free fingers would close to less than this are skipped
SHORT = 0.15  # fingers that stop more than this before the free value have met something


@dataclass(frozen=True)
class GraspExamples:
    """frames: (N, V, H, W, 3) uint8; motion: (N, n, MOTION); caught: (N,) bool; stop: mean gripper value of the caught examples."""

    frames: np.ndarray
    motion: np.ndarray
    caught: np.ndarray
    stop: float

    @staticmethod
    def join(parts: Sequence["GraspExamples"]) -> "GraspExamples":
        weights = np.array([part.caught.sum() for part in parts])
        arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ("frames", "motion", "caught"))
        return GraspExamples(*arrays, float(np.average([part.stop for part in parts], weights=weights)) if weights.sum() else 0.0)


def examples_of(episode: Episode, frames: np.ndarray, count: int) -> GraspExamples:
    """One example for each frame of an episode after which the fingers are commanded to close within `count` frames.

    frames: (T, V, H, W, 3) uint8. An object counts as caught if the gripper stops short of what TABLETOP reaches for the commands.
    """
    rows, motion, caught, stops = [], [], [], []
    for t in range(len(episode.pose) - count):
        commands = episode.action[t : t + count]
        free = TABLETOP.reach(episode.pose[t], commands)[-1, GRIPPER]
        if free < CLOSING:
            continue
        reached = episode.pose[t + count, GRIPPER]
        rows.append(t)
        motion.append(motion_of(episode.pose[t], commands))
        caught.append(bool(reached < free - SHORT))
        stops += [float(reached)] if caught[-1] else []
    shape = (0, count, motion[0].shape[-1] if motion else 0)
    stop = float(np.mean(stops)) if stops else 0.0
    return GraspExamples(frames[rows], np.stack(motion) if motion else np.zeros(shape, np.float32), np.array(caught, bool), stop)


def train_grasp_reader(examples: GraspExamples, steps: int, seed: int) -> GraspReader:
    """Train with binary cross-entropy, balanced classes, and random brightness, noise and blur. Deterministic per seed on one machine."""
    torch.manual_seed(seed)  # the initial weights
    network = GraspNetwork(*examples.frames.shape[1:4], examples.motion.shape[1])
    groups = [np.flatnonzero(examples.caught), np.flatnonzero(~examples.caught)]

    def loss(rng: torch.Generator) -> Tensor:
        picks = np.concatenate([group[torch.randint(len(group), (BATCH // 2,), generator=rng).numpy()] for group in groups])
        images = varied(images_to_float(torch.from_numpy(examples.frames[picks])), rng)
        targets = torch.from_numpy(examples.caught[picks]).float()
        return F.binary_cross_entropy_with_logits(network(images, torch.from_numpy(examples.motion[picks])), targets)

    fit(network, loss, steps, RATE, 1e-3, seed, "grasp reader", "grasp reader")
    return GraspReader(network, examples.stop)

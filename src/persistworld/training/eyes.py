"""Trains the shipped policies' eyes (policies.eyes) on simulated scenes: what the cameras see from hand poses on the way of the task."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pybullet
import torch
import torch.nn.functional as F
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import VIEWS
from persistworld.policies.eyes import SCALE, Eyes, EyesNetwork, Sight, pose_numbers
from persistworld.runtime.progress import track
from persistworld.simulator.environment import open_scene
from persistworld.simulator.scene import Scene
from persistworld.simulator.tasks import Task
from persistworld.training.small_networks import fit, varied
from persistworld.world_model.views import images_to_float

BATCH, RATE = 48, 3e-3
HELD = 0.25  # share of the frames with the object between the fingertips
LOW = 0.09  # m: the lowest hand from which the object is looked for


@dataclass(frozen=True)
class EyesExamples:
    """frames: (N, V, H, W, 3) uint8; pose: (N, POSE); target: (N, NUMBERS); asked: (N, NUMBERS), 1 where the number can be read."""

    frames: np.ndarray
    pose: np.ndarray
    target: np.ndarray
    asked: np.ndarray

    def take(self, rows: np.ndarray) -> "EyesExamples":
        return EyesExamples(self.frames[rows], self.pose[rows], self.target[rows], self.asked[rows])


def eyes_examples(
    scenes: Sequence[int], each: int, seed: int, settings: EpisodesConfig, seen: Callable[[np.ndarray], np.ndarray]
) -> EyesExamples:
    """`each` frames of each scene of `seed`. seen: applied to every other frame, such as an autoencoder's reconstruction."""
    rows = []
    for number in track(scenes, len(scenes), "frames for the eyes"):
        scene, task = open_scene(seed, number, settings)
        random = np.random.default_rng([seed, number, 1])
        try:
            for k in range(each):
                row = _example(scene, task, random, first=k == 0)
                frames = row[0][[VIEWS.index(view) for view in settings.views]]
                rows.append(((seen(frames[None])[0] if k % 2 else frames), *row[1:]))
        finally:
            scene.close()
    return EyesExamples(*(np.stack(part) for part in zip(*rows, strict=True)))


def _example(scene: Scene, task: Task, random: np.random.Generator, first: bool) -> tuple[np.ndarray, ...]:
    """What the cameras see from a random hand pose. Nothing is simulated: hand and object are put where they are."""
    at, to = np.array(task.object.xy), np.array(task.goal.xy)
    held = not first and random.random() < HELD
    if not first:
        near = to if held else at
        place = near + random.uniform(0, 1) * (random.uniform([0.37, -0.15], [0.55, 0.15]) - near) + random.normal(0, 0.01, 2)
        height, yaw = float(random.uniform(LOW, 0.29)), float(random.uniform(-0.8, 0.8))
        scene.place_arm((*place, height), (math.pi, 0.0, yaw), 0.15 if held else 0.0)
        spot = (*place, height) if held else (*at, task.object.half_height + 0.001)
        turn = pybullet.getQuaternionFromEuler((0, 0, yaw if held else task.object.yaw))
        pybullet.resetBasePositionAndOrientation(scene.object, spot, turn, physicsClientId=scene.client)
    target = Sight(at, to, task.object.yaw).numbers
    cube = task.object.shape == "cube" and not held
    asked = np.array([not held, not held, 1, 1, cube, cube], np.float32)
    return scene.render()[0], pose_numbers(scene.robot_state()[0])[0], target, asked


def train_eyes(examples: EyesExamples, scenes: int, steps: int, seed: int, label: str) -> Eyes:
    """Minimise the Huber loss of what can be read, with random brightness, noise and blur. Deterministic per seed on one machine."""
    torch.manual_seed(seed)  # the initial weights
    network = EyesNetwork(*examples.frames.shape[1:4])
    importance = torch.tensor([1, 1, 1, 1, 0.1, 0.1])  # of the numbers; a yaw is worth little without the position

    def loss(rng: torch.Generator) -> Tensor:
        part = examples.take(torch.randint(len(examples.frames), (BATCH,), generator=rng).numpy())
        images = varied(images_to_float(torch.from_numpy(part.frames)), rng)
        off = network(images, torch.from_numpy(part.pose)) - torch.from_numpy(part.target)
        weights = torch.from_numpy(part.asked) * importance
        return (F.smooth_l1_loss(off, torch.zeros_like(off), reduction="none", beta=0.3) * weights).sum() / weights.sum()

    fit(network, loss, steps, RATE, 1e-4, seed, "eyes", label)
    return Eyes(network, scenes)


def eyes_errors(eyes: Eyes, examples: EyesExamples) -> dict[str, float]:
    """Mean distance in m of object and goal, and mean angle in rad of the yaw of cubes, where they were asked."""
    with torch.no_grad():
        found = eyes.network(images_to_float(torch.from_numpy(examples.frames)), torch.from_numpy(examples.pose)).numpy()
    away = SCALE * (found - examples.target)[:, :4].reshape(-1, 2, 2)
    distances = np.linalg.norm(away, axis=2)
    angles = [np.arctan2(numbers[:, 5], numbers[:, 4]) for numbers in (found, examples.target)]
    turned = np.abs((angles[0] - angles[1] + np.pi) % (2 * np.pi) - np.pi) / 4
    asked = examples.asked.astype(bool)
    return {
        "object": float(distances[asked[:, 0], 0].mean()),
        "goal": float(distances[:, 1].mean()),
        "yaw": float(turned[asked[:, 4]].mean()) if asked[:, 4].any() else float("nan"),
    }

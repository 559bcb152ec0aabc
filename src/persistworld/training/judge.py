"""Trains the judge (policies.judge) on frames whose true stages the simulator knows.

The examples are simulated rollouts of policies that know the true state and make random errors of every kind in `Skill`. Edited frames
without the object, and hands that close beside it, stand for what a world model may invent.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pybullet
import torch
import torch.nn.functional as F
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import VIEWS
from persistworld.policies.eyes import Sight
from persistworld.policies.judge import Judge, JudgeNetwork
from persistworld.policies.pick_and_place import PickAndPlace, Skill
from persistworld.policies.policy import run_policy
from persistworld.runtime.progress import track
from persistworld.simulator.environment import TabletopEnv, open_scene
from persistworld.simulator.labels import STAGES, stages
from persistworld.simulator.scene import Scene
from persistworld.simulator.tasks import Task, sample_task
from persistworld.training.small_networks import fit, varied
from persistworld.world_model.views import images_to_float

BATCH, RATE = 64, 2e-3
Seen = Callable[[np.ndarray], np.ndarray]  # (N, V, H, W, 3) uint8 -> the same: what a camera or an autoencoder makes of frames
AWAY = (0.3, 1.5, -1.0)  # m: where no camera sees the object
BESIDE = (0.045, 0.09)  # m: how far beside the object the hand closes


@dataclass(frozen=True)
class JudgeExamples:
    """frames: (N, V, H, W, 3) uint8; labels: (N, S + 1) float32, the stages and whether the object is there."""

    frames: np.ndarray
    labels: np.ndarray

    @staticmethod
    def join(parts: list["JudgeExamples"]) -> "JudgeExamples":
        return JudgeExamples(np.concatenate([part.frames for part in parts]), np.concatenate([part.labels for part in parts]))


def true_sight(env: TabletopEnv) -> Sight:
    """What perfect eyes would see in the simulator."""
    place, yaw = env.scene.object_pose()
    return Sight(place[:2].copy(), np.array(env.task.goal.xy), (yaw + math.pi / 4) % (math.pi / 2) - math.pi / 4)


def random_skill(random: np.random.Generator) -> Skill:
    """None, one or two defects."""
    defects = {
        "offset": float(random.uniform(0.01, 0.06)),
        "noise": float(random.uniform(0.005, 0.03)),
        "close_early": float(random.uniform(0.01, 0.05)),
        "drop_early": float(random.uniform(0.1, 0.8)),
        "misplace": float(random.uniform(0.02, 0.12)),
        "any_yaw": True,
    }
    chosen = random.choice(list(defects), size=int(random.choice([0, 1, 2], p=[0.4, 0.45, 0.15])), replace=False)
    return Skill("", retries=int(random.integers(3)), **{name: defects[name] for name in chosen})


def placing_scenes(first: int, count: int, seed: int, settings: EpisodesConfig) -> list[int]:
    """The first `count` scenes from number `first` on in which something is to be placed. (In a push the stages mean something else.)"""

    def places(number: int) -> bool:
        return sample_task(np.random.default_rng([seed, number]), settings.colours, settings.outcomes).intent != "push"

    return list(itertools.islice(filter(places, itertools.count(first)), count))


def rollout_examples(numbers: list[int], chunks: int, seed: int, settings: EpisodesConfig, seen: Seen) -> JudgeExamples:
    """All frames of one rollout in each of the scenes `numbers`. seen: applied to every other chunk's frames."""
    env = TabletopEnv(settings, scenes=seed, chunks=chunks)
    frames, labels = [], []
    try:
        for number in track(numbers, len(numbers), "rollouts for the judge"):
            policy = PickAndPlace(lambda _: true_sight(env), random_skill(np.random.default_rng([seed, number, 2])))
            for chunk, (_, info) in enumerate(run_policy(env, policy, chunks, number, {"episode": number})):
                if info:
                    frames.append(seen(info["frames"]) if chunk % 2 else info["frames"])
                    labels.append(np.concatenate([info["stages"], np.ones((len(info["stages"]), 1), bool)], axis=1))
    finally:
        env.close()
    return JudgeExamples(np.concatenate(frames), np.concatenate(labels).astype(np.float32))


def posed_examples(numbers: list[int], each: int, seed: int, settings: EpisodesConfig, seen: Seen) -> JudgeExamples:
    """`each` frames of each scene in which nothing is held: the object is elsewhere, gone, or beside a closed hand."""
    rows = []
    for number in track(numbers, len(numbers), "frames for the judge"):
        scene, task = open_scene(seed, number, settings)
        random = np.random.default_rng([seed, number, 3])
        try:
            rows += [row for k in range(each) for row in _posed(scene, task, random, settings, seen if k % 2 else np.asarray)]
        finally:
            scene.close()
    return JudgeExamples(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]).astype(np.float32))


def _posed(scene: Scene, task: Task, random, settings, seen) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    where = random.choice(["table", "beside", "gone"])
    hand = random.uniform([0.37, -0.2, 0.02], [0.6, 0.2, 0.28])
    if random.random() < 0.4:
        hand[:2] = task.goal.xy + random.normal(0, 0.03, 2)
    yaw, angle = float(random.uniform(-0.8, 0.8)), float(random.uniform(0, 2 * math.pi))
    place = random.uniform([0.38, -0.2], [0.6, 0.2])
    if where == "beside":
        hand[2] = random.uniform(0.02, 0.06)
        place = hand[:2] + random.uniform(*BESIDE) * np.array([math.cos(angle), math.sin(angle)])
    elif np.linalg.norm(place - hand[:2]) < BESIDE[0]:
        hand[2] = max(hand[2], 0.1)
    scene.place_arm(hand, (math.pi, 0.0, yaw), float(random.choice([0.0, 0.2, 1.0])))
    spot = AWAY if where == "gone" else (*place, task.object.half_height + 0.001)
    turn = pybullet.getQuaternionFromEuler((0, 0, float(random.uniform(-math.pi, math.pi))))
    pybullet.resetBasePositionAndOrientation(scene.object, spot, turn, physicsClientId=scene.client)
    if where != "gone" and np.linalg.norm(place - task.goal.xy) < task.goal.half + 0.06:
        return  # an object in the walls of a container
    frames = scene.render()[0][[VIEWS.index(view) for view in settings.views]]
    label = np.zeros(len(STAGES) + 1, bool)
    if where != "gone":
        label[:-1], label[-1] = stages(task, np.array([*task.object.xy, 0]), scene), True
    yield seen(frames[None])[0], label


def train_judge(examples: JudgeExamples, steps: int, seed: int) -> Judge:
    """Train with binary cross-entropy and random brightness, noise and blur. Deterministic per seed on one machine."""
    torch.manual_seed(seed)  # the initial weights
    network = JudgeNetwork(*examples.frames.shape[1:4], len(STAGES))

    def loss(rng: torch.Generator) -> Tensor:
        picks = torch.randint(len(examples.frames), (BATCH,), generator=rng).numpy()
        images = varied(images_to_float(torch.from_numpy(examples.frames[picks])), rng)
        return F.binary_cross_entropy_with_logits(network(images), torch.from_numpy(examples.labels[picks]))

    fit(network, loss, steps, RATE, 1e-2, seed, "judge", "judge")
    return Judge(network, STAGES)


def frame_accuracy(judge: Judge, examples: JudgeExamples) -> dict[str, float]:
    """Share of single frames in which the judge is right, for each stage and for "seen"."""
    with torch.no_grad():
        parts = torch.from_numpy(examples.frames).split(BATCH)
        said = torch.cat([judge.network(images_to_float(part)) for part in parts]).numpy() > 0
    right = (said == (examples.labels > 0.5)).mean(axis=0)
    return dict(zip((*judge.stages, "seen"), map(float, right), strict=True))

"""Trains the pose reader (evaluation.pose_reader) on recorded frames of training episodes; every other one went through the autoencoder."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import EpisodeSource
from persistworld.data.frames import resized_frames
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.evaluation.pose_reader import NUMBERS, PoseNetwork, PoseReader
from persistworld.runtime.errors import UserError
from persistworld.runtime.progress import track
from persistworld.training.small_networks import fit, varied
from persistworld.world_model.autoencoder import Autoencoder, decode_views
from persistworld.world_model.poses import represent
from persistworld.world_model.views import images_to_float

BATCH, RATE = 64, 4e-3
EPISODES, FRAMES = 512, 8192  # at most so many, spread evenly over the training episodes and over each of them


@dataclass(frozen=True)
class PoseExamples:
    """frames: (N, V, H, W, 3) uint8; poses: (N, NUMBERS) float32."""

    frames: Tensor
    poses: np.ndarray


def pose_examples(
    episodes: Sequence[Entry], source: EpisodeSource, store: LatentStore, settings: EpisodesConfig, autoencoder: Autoencoder
) -> PoseExamples:
    """Frames of the episodes with their poses. Every other frame is the autoencoder's reconstruction, as a world model's frames are.

    Raises UserError for poses that are not of NUMBERS numbers.
    """
    episodes = [episodes[k] for k in spread(len(episodes), EPISODES)]
    frames, poses = [], []
    for entry in track(episodes, len(episodes), "frames for the pose reader"):
        rows = spread(entry.frames, FRAMES // len(episodes))
        known = store.poses(entry.index, rows).numpy()
        if known.shape[1] != NUMBERS:
            raise UserError(
                f"{settings.path}: poses have {known.shape[1]} numbers; the pose reader knows {NUMBERS}: x, y, z, three Euler angles and a "
                "gripper, so there is no action following of this robot"
            )
        views = torch.stack([resized_frames(source, entry.index, settings, view)[rows] for view in settings.views], dim=1)
        views[1::2] = decode_views(autoencoder, store.latents(entry.index, rows[1::2]), len(settings.views))
        frames.append(views)
        poses.append(known)
    return PoseExamples(torch.cat(frames), np.concatenate(poses))


def spread(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spread; two at least, if there are."""
    return np.unique(np.linspace(0, count - 1, min(count, max(2, most))).round().astype(int)).tolist()


def train_pose_reader(examples: PoseExamples, steps: int, seed: int, place: torch.device) -> PoseReader:
    """Minimise the Huber loss of all outputs with random colours, brightness, noise and blur. Deterministic per seed on one machine."""
    torch.manual_seed(seed)  # the initial weights
    network = PoseNetwork(*examples.frames.shape[1:4])
    target = torch.from_numpy(represent(examples.poses, "continuous"))
    network.centre.copy_(target[:, :3].mean(dim=0))
    network.spread.copy_(target[:, :3].std(dim=0, correction=0).clamp(min=1e-3))
    target[:, :3] = (target[:, :3] - network.centre) / network.spread
    network.to(place)

    def loss(rng: torch.Generator) -> Tensor:
        picks = torch.randint(len(examples.frames), (BATCH,), generator=rng)
        images = varied(recoloured(images_to_float(examples.frames[picks]), rng), rng).to(place)
        return F.smooth_l1_loss(network(images), target[picks].to(place), beta=0.1)

    fit(network, loss, steps, RATE, 1e-4, seed, "pose reader", "pose reader")
    return PoseReader(network, len(examples.frames))


def recoloured(images: Tensor, rng: torch.Generator) -> Tensor:
    """Give images (N, V, 3, H, W) in [-1, 1] random colours: channels in random order and of random strength, the same in all views.

    The arm is grey and stays so, nearly. Table, wall and objects have a colour per episode, which the network must not learn.
    """
    order = torch.rand(len(images), 3, generator=rng).argsort(dim=1)
    images = images.gather(2, order[:, None, :, None, None].expand_as(images))
    strength = 0.8 + 0.4 * torch.rand(len(images), 1, 3, 1, 1, generator=rng)
    return (images + 1) * strength - 1

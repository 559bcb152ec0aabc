"""Loads the inputs of post-training from the outputs of the earlier stages."""

from pathlib import Path

from persistworld.checkpoints.folders import load_base_model
from persistworld.config.params import Params
from persistworld.config.post_training import PostTrainingConfig
from persistworld.data.formats import open_episodes
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import load_manifest
from persistworld.evaluation.perceptual import load_perceptual
from persistworld.post_training.rewards import RewardModel
from persistworld.post_training.targets import decoded_images, raw_images
from persistworld.post_training.trainer import Data
from persistworld.runtime.distributed import device
from persistworld.runtime.workspace import BASE, EPISODES, LATENTS, MANIFEST
from persistworld.world_model.autoencoder import load_autoencoder
from persistworld.world_model.model import WorldModel


def load_materials(params: Params, base_folder: Path = BASE) -> tuple[WorldModel, RewardModel, Data]:
    """The base, the reward model, and the training episodes that are long enough. Raises UserError if one is missing or does not fit."""
    settings = params.post_training
    base, store = load_base_model(base_folder).to(device()), LatentStore(LATENTS, params.episodes)
    reward_model = RewardModel(
        load_autoencoder(BASE).to(device()),
        load_perceptual(params.metrics.lpips, BASE).to(device()),
        settings.reward,
        params.episodes.views,
        params.metrics.ssim_window,
        settings.precision,
    )
    if settings.reward.target == "raw":
        images = raw_images(open_episodes(EPISODES), params.episodes)
    else:
        images = decoded_images(store, reward_model.decode)
    return base, reward_model, Data(store, load_manifest(MANIFEST).long_enough("train", frames_needed(settings, base)), images)


def frames_needed(settings: PostTrainingConfig, base: WorldModel) -> int:
    """Frames of the shortest episode in which every prefix, with its branch, fits."""
    return (settings.prefix[1] + settings.branch) * (base.config.future - 1) + 1

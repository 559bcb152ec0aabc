"""Stage post_training: Algorithm 1 for one run, the preset's own (`post_trained`) or a variant."""

import argparse
from pathlib import Path

from persistworld.configuration import digest
from persistworld.data.episodes import EPISODES, open_episodes
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import load_manifest
from persistworld.distributed import device, processes
from persistworld.files import atomic_path
from persistworld.metrics.perceptual import load_perceptual
from persistworld.params import Params
from persistworld.post_training.checkpoint import save_adapter
from persistworld.post_training.rewards import RewardModel
from persistworld.post_training.run import BASE, provenance, publish_log
from persistworld.post_training.targets import decoded_images, raw_images
from persistworld.post_training.trainer import Data, train
from persistworld.world_model.autoencoder import load_autoencoder
from persistworld.world_model.checkpoint import load_base_model


def main(params: Params, args: argparse.Namespace) -> None:
    params = params.for_run(args.run)
    settings = params.post_training
    base, store = load_base_model(BASE).to(device()), LatentStore("data/latents", params.episodes)
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
    longest = (settings.prefix[1] + settings.branch) * (base.config.future - 1) + 1
    episodes = load_manifest("data/manifest.json").long_enough("train", longest)
    made_from = provenance(params, settings, params.metrics)
    run_folder = Path("runs") / args.run / digest(settings)
    data = Data(store, episodes, images)
    weights = train(
        base, reward_model, data, settings, params.rollout.history_index, params.seed, run_folder, made_from
    )
    if not processes().is_main_process:
        return
    with atomic_path(f"checkpoints/{args.run}") as folder:
        save_adapter(weights, base, BASE, folder, [settings], params.seed)
    publish_log(run_folder, args.run)

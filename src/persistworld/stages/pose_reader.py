"""Train the small network that reads the arm's pose from frames, on recorded frames of training episodes."""

import argparse

from persistworld.config.params import Params
from persistworld.data.formats import open_episodes
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import load_manifest
from persistworld.evaluation.pose_reader import save_pose_reader
from persistworld.runtime.distributed import device
from persistworld.runtime.files import atomic_path
from persistworld.runtime.workspace import BASE, EPISODES, LATENTS, MANIFEST, POSE_READER
from persistworld.training.pose_reader import pose_examples, train_pose_reader
from persistworld.world_model.autoencoder import load_autoencoder

OPTIONS = {"--steps": {"type": "int", "default": 2000, "metavar": "N", "help": "of the training (default: %(default)s)"}}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write checkpoints/pose_reader."""
    episodes, place = load_manifest(MANIFEST).long_enough("train", params.world_model.future), device()
    store, source = LatentStore(LATENTS, params.episodes), open_episodes(EPISODES)
    examples = pose_examples(episodes, source, store, params.episodes, load_autoencoder(BASE).to(place))
    reader = train_pose_reader(examples, args.steps, params.seed, place)
    with atomic_path(POSE_READER) as folder:
        folder.mkdir()
        save_pose_reader(reader, folder)
    print(f"{POSE_READER}: learned from {reader.frames} frames of {len(episodes)} episodes; the stage fidelity measures its error")

"""Decode the frames of the evaluation episodes once for all models.

With several processes, each one decodes part of the episodes into the same files.
"""

import argparse
from pathlib import Path

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import nearest
from persistworld.data.manifest import evaluation_episodes, load_manifest
from persistworld.evaluation.truth import LiveTruth, create_arrays, truth_of, write_frames
from persistworld.runtime.distributed import device, gathered, own_part, processes
from persistworld.runtime.files import atomic_path
from persistworld.runtime.progress import track
from persistworld.runtime.workspace import BASE, MANIFEST
from persistworld.world_model.autoencoder import load_autoencoder

OPTIONS = {"--model": {"default": "base", "help": "whose evaluation: the same for all but the ablations' runs (default: %(default)s)"}}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write {recorded,decoded}.npy and episodes.json into data/truth, or data/ablation_truth."""
    known = params.all_models
    require(args.model in known, "--model", args.model, f"no such model or variant; {nearest(args.model, known.names)}")
    target, params = truth_of(known[args.model]), params.for_run(args.model)
    settings, frames = params.episodes, params.rollout_frames
    episodes = [entry.index for entry in evaluation_episodes(load_manifest(MANIFEST), params.evaluation, frames)]
    truth = LiveTruth(params, load_autoencoder(BASE).to(device()))
    if not processes().is_main_process:
        _fill(Path(*gathered([])), episodes, truth)
        return
    with atomic_path(target) as folder:
        create_arrays(folder, episodes, (frames, len(settings.views), settings.height, settings.width, 3))
        _fill(Path(*gathered([str(folder)])), episodes, truth)


def _fill(folder: Path, episodes: list[int], truth: LiveTruth) -> None:
    """Write this process's part and wait for the other processes."""
    own = range(len(episodes))[own_part(len(episodes))]
    write_frames(folder, track(own, len(own), "ground truth"), episodes, truth)
    processes().wait_for_everyone()

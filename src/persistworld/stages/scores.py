"""Score one model's rollouts, or a baseline, frame by frame.

Writes a tidy table. With several processes, each one scores a part of the episodes and the first one writes the table.
"""

import argparse
from collections import Counter
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor

from persistworld.config.params import Params
from persistworld.data.formats import open_episodes
from persistworld.data.frames import resized_frames
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import evaluation_episodes, load_manifest
from persistworld.evaluation.masks import MaskStore
from persistworld.evaluation.perceptual import load_perceptual
from persistworld.evaluation.rollout_files import read_rollout
from persistworld.evaluation.score_table import write_scores
from persistworld.evaluation.scores import Scorer, Truth
from persistworld.runtime.distributed import collected, device, own_part, processes
from persistworld.runtime.progress import track
from persistworld.runtime.workspace import BASE, EPISODES, LATENTS, MANIFEST, MASKS, SCORES
from persistworld.world_model.autoencoder import Autoencoder, decode_views, load_autoencoder

OPTIONS = {"--model": {"required": True, "help": "one of evaluation.models, or a name in variants"}}

NO_SEED = -1  # baselines do not depend on it


def main(params: Params, args: argparse.Namespace) -> None:
    views = params.episodes.views
    autoencoder, store = load_autoencoder(BASE).to(device()), LatentStore(LATENTS, params.episodes)
    scorer = Scorer(load_perceptual(params.metrics.lpips, BASE).to(device()), params.metrics, views)
    count = params.rollout_frames
    manifest = load_manifest(MANIFEST)
    episodes = evaluation_episodes(manifest, params.evaluation, count)
    source = open_episodes(EPISODES)
    masks = None if params.masks.source == "none" else MaskStore(MASKS)
    own, parts = episodes[own_part(len(episodes))], []
    for entry in track(own, len(own), f"scores of {args.model}"):
        raw = [resized_frames(source, entry.index, params.episodes, v)[:count] for v in views]
        decoded = decode_views(autoencoder, store.latents(entry.index, slice(0, count)), len(views))
        mask = None if masks is None else masks.masks(entry.index)[:count]
        truth = Truth(entry.index, torch.stack(raw, dim=1), decoded, mask)
        if mask is not None:
            scorer.count_empty(mask)
        rollouts = dict(_generated(args.model, truth, params, autoencoder))
        parts.append(scorer.score(args.model, rollouts, truth))
    parts, empty = collected(parts), Counter()
    for counts in collected([scorer.empty_masks]):
        empty.update(counts)  # which keeps zeros, as a sum would not
    if not processes().is_main_process:
        return
    write_scores(
        SCORES / f"{args.model}.parquet",
        pd.concat(parts, ignore_index=True),
        {
            "lpips_backbone": params.metrics.lpips,
            "ssim_window": params.metrics.ssim_window,
            "masked_lpips": params.metrics.masked_lpips,
            "scale": params.paper.scale,
            "empty_masks": dict(empty),
            "left_out": {"split": params.evaluation.split, "too_short": len(manifest.too_short(params.evaluation.split, count))},
            **({} if masks is None else {"masks": {"source": masks.source, **masks.counts}}),
        },
    )


def _generated(
    model: str, truth: Truth, params: Params, autoencoder: Autoencoder
) -> Iterator[tuple[int, Tensor]]:
    """Seed and uint8 frames (T, V, H, W, 3) of every rollout of the episode."""
    if model == "autoencoder":
        yield NO_SEED, truth.decoded
    elif model == "copy_frame":
        yield NO_SEED, truth.decoded[:1].expand_as(truth.decoded)
    else:
        for seed in params.evaluation.seeds:
            yield seed, decode_views(autoencoder, read_rollout(model, seed, truth.episode), len(params.episodes.views))


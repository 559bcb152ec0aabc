"""Score models' rollouts or baselines frame by frame, into a tidy table for each model.

With several processes, each one scores part of the episodes and the first one writes the tables.
"""

import argparse
from collections import Counter

import pandas as pd
from torch import Tensor

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import nearest
from persistworld.data.manifest import evaluation_episodes, load_manifest
from persistworld.evaluation.generated import generated_frames
from persistworld.evaluation.masks import MaskStore
from persistworld.evaluation.perceptual import load_perceptual
from persistworld.evaluation.score_table import write_scores
from persistworld.evaluation.scores import Scorer, Truth
from persistworld.evaluation.truth import open_truth, truth_of
from persistworld.runtime.distributed import collected, device, own_part, processes
from persistworld.runtime.progress import announce, track
from persistworld.runtime.workspace import BASE, MANIFEST, MASKS, SCORES
from persistworld.world_model.autoencoder import load_autoencoder

OPTIONS = {"--model": {"required": True, "nargs": "+", "metavar": "NAME", "help": "of evaluation.models, or in variants"}}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/scores/MODEL.parquet for each model in --model."""
    models, known = args.model, params.all_models
    for model in models:
        require(model in known, "--model", model, f"no such model or variant; {nearest(model, known.names)}")
        alike = params.for_run(model).evaluation == params.for_run(models[0]).evaluation
        require(alike, "--model", model, f"is not evaluated as {models[0]} is: score each in a job of its own")
    announce(params.derived.progress(models[0]))
    params, truth_folder = params.for_run(models[0]), truth_of(known[models[0]])
    settings, count, views = params.evaluation, params.rollout_frames, params.episodes.views
    autoencoder = load_autoencoder(BASE).to(device())
    scorer = Scorer(load_perceptual(params.metrics.lpips, BASE).to(device()), params.metrics, views, settings.convention)
    frames = open_truth(params, autoencoder, truth_folder)
    manifest = load_manifest(MANIFEST)
    episodes = evaluation_episodes(manifest, settings, count)
    masks = None if params.masks.source == "none" else MaskStore(MASKS)
    own, parts = episodes[own_part(len(episodes))], []
    for entry in track(own, len(own), f"scores of {', '.join(models)}"):
        mask = None if masks is None else masks.masks(entry.index)[:count]
        truth = Truth(entry.index, frames.recorded(entry.index), frames.decoded(entry.index), mask)
        if mask is not None:
            scorer.count_empty(mask)
        rollouts: dict[tuple[str, int], Tensor] = {}
        for model in models:
            rollouts |= generated_frames(model, entry.index, truth.decoded, settings.seeds, autoencoder, len(views))
        parts.append(scorer.score(rollouts, truth))
    parts, empty = collected(parts), Counter()
    for counts in collected([scorer.empty_masks]):
        empty.update(counts)  # keeps zeros, which `+` drops
    if not processes().is_main_process:
        return
    table = pd.concat(parts, ignore_index=True)
    meta = {
        "lpips_backbone": params.metrics.lpips,
        "convention": settings.convention,
        "ssim_window": params.metrics.ssim_window,
        "masked_lpips": params.metrics.masked_lpips,
        "empty_masks": dict(empty),
        "left_out": {"split": settings.split, "too_short": len(manifest.too_short(settings.split, count))},
        **({} if masks is None else {"masks": {"source": masks.source, **masks.counts}}),
    }
    for model in models:
        write_scores(SCORES / f"{model}.parquet", table[table["model"] == model], meta)

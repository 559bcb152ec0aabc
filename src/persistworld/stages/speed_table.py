"""Time the sampler with few and many steps, and write the table of speed against quality."""

import argparse
import dataclasses
import platform
import statistics
import time

import torch

from persistworld.checkpoints.adapters import load_world_model
from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.world_model import RolloutConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry, evaluation_episodes, load_manifest
from persistworld.evaluation.score_table import load_scores
from persistworld.paper.notes import settings_of
from persistworld.paper.pages import write_page
from persistworld.paper.speed import TITLE, pareto_figure, speed_points, write_speed
from persistworld.rollouts.evaluation import rollout
from persistworld.rollouts.starts import poses_after, starts_of
from persistworld.runtime.distributed import device
from persistworld.runtime.workspace import ABLATIONS, CHECKPOINTS, FIGURES, LATENTS, MANIFEST, METRICS, SCORES, TABLES
from persistworld.world_model.model import WorldModel

CAPTION = "Quality over the seconds of a chunk. The numbers at the points are sampler steps; up and to the left is better, down for LPIPS."
REPEATS = 3  # measurements of a chunk's time


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/tables/speed.*, results/metrics/speed.json, results/figures/speed.* and results/ablations/speed.html."""
    runs, known = params.derived.speed, params.all_models
    require(len(runs) > 0, "speed.steps", list(params.speed.steps), "name the numbers of sampler steps to compare")
    place = device()
    store, manifest = LatentStore(LATENTS), load_manifest(MANIFEST)
    loaded = {name: _load(params, name) for name in params.speed.models}
    seconds = {}
    for (name, steps), run in runs.items():
        settings = params.for_run(run).rollout
        entry = evaluation_episodes(manifest, params.evaluation, params.rollout_frames)[0]
        seconds[name, steps] = _seconds(loaded[name], settings, store, entry)
    names = list(dict.fromkeys(runs.values()))
    scores, settings = load_scores([SCORES / f"{run}.parquet" for run in names], names), settings_of(params)
    points = speed_points(runs, seconds, scores, settings)
    machine = torch.cuda.get_device_name(place) if place.type == "cuda" else f"{args.threads} threads of {platform.machine()}"
    blocks, notes = write_speed(points, known, scores, settings, machine, TABLES, METRICS)
    pareto_figure(points, known, scores, settings, FIGURES)
    png = (FIGURES / "speed.png").read_bytes()
    page = dict(title=TITLE, scale=settings.scale, blocks=blocks, notes=notes, caption=CAPTION, png=png, changes="")
    write_page(ABLATIONS / "speed.html", "axis.html", **page)
    print((TABLES / "speed.md").read_text())


def _load(params: Params, name: str) -> WorldModel:
    model = params.models[name]
    return load_world_model(CHECKPOINTS / model.checkpoint, CHECKPOINTS / model.base).to(device())


def _seconds(model: WorldModel, settings: RolloutConfig, store: LatentStore, entry: Entry) -> float:
    """The median seconds of one chunk of one rollout. A first chunk is not counted: it includes set-up."""
    starts, poses = starts_of(model, store, [entry]), poses_after(store, [entry], model.config.future - 1)
    one, times = dataclasses.replace(settings, chunks=1), []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        rollout(model, starts, poses, [entry.index], 0, one).cpu()  # waits for a GPU
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])

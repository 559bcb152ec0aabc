"""Stage masks: robot and object masks of the frames that are scored, and how many of them are empty."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from persistworld.data.episodes import EPISODES, MANIPULATED_OBJECT, ROBOT, open_episodes
from persistworld.data.manifest import evaluation_episodes, load_manifest
from persistworld.files import atomic_path, write_json
from persistworld.params import Params
from persistworld.progress import track
from persistworld.segmentation.masks import empty_frames, labels_of, open_mask_source

MASKS, METRICS = Path("data/masks.safetensors"), Path("results/metrics/masks.json")


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/masks.safetensors and results/metrics/masks.json (flat counts, for Table 2's footnote)."""
    views = params.episodes.views
    episodes = open_episodes(EPISODES)
    count = params.rollout.chunks * (params.world_model.future - 1) + 1
    source = open_mask_source(params, episodes, count)
    chosen = evaluation_episodes(load_manifest("data/manifest.json"), params.evaluation, count) if source else ()
    metrics = {"episodes": len(chosen), "frames": 0, "episodes_without_instruction": 0, "episodes_without_noun": 0}
    metrics |= {f"empty_{region}_{view}": 0 for region in ("robot", "object") for view in views}
    tensors: dict[str, torch.Tensor] = {}
    for entry in track(chosen, len(chosen), "masks"):
        found = [source.masks(entry.index, view) for view in views]
        labels = tensors[str(entry.index)] = labels_of(found)
        metrics["frames"] += len(labels)
        metrics["episodes_without_instruction"] += not entry.instruction.strip()
        metrics["episodes_without_noun"] += any(v.status == "no_noun" for v in found)
        for region, label in (("robot", ROBOT), ("object", MANIPULATED_OBJECT)):
            for view, number in zip(views, empty_frames(labels, label), strict=True):
                metrics[f"empty_{region}_{view}"] += number
    with atomic_path(MASKS) as part:
        counts = {key: str(value) for key, value in metrics.items() if key.startswith("episodes")}
        save_file(tensors, part, metadata={"source": params.masks.source, "views": ",".join(views), **counts})
    write_json(METRICS, metrics)

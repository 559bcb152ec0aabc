"""Mask the robot and the manipulated object in the frames that are scored.

Also counts the empty masks. With several processes, each one masks part of the episodes and the first one writes the file.
"""

import argparse
import json

import torch
from safetensors.torch import save_file

from persistworld.config.params import Params
from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT
from persistworld.data.formats import open_episodes
from persistworld.data.manifest import evaluation_episodes, load_manifest
from persistworld.evaluation.mask_sources import open_mask_source
from persistworld.evaluation.masks import ABOUT, empty_frames, labels_of
from persistworld.runtime.distributed import collected, own_part, processes
from persistworld.runtime.files import atomic_path, write_json
from persistworld.runtime.progress import track
from persistworld.runtime.workspace import EPISODES, MANIFEST, MASKS, METRICS


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/masks.safetensors and results/metrics/masks.json (a flat mapping of counts for Table 2's footnote)."""
    views = params.episodes.views
    episodes = open_episodes(EPISODES)
    count = params.rollout_frames
    source = open_mask_source(params, episodes, count)
    chosen = evaluation_episodes(load_manifest(MANIFEST), params.evaluation, count) if source else ()
    own, made = chosen[own_part(len(chosen))], []
    for entry in track(own, len(own), "masks"):
        found = [source.masks(entry.index, view) for view in views]
        made.append((entry, labels_of(found), any(v.status == "no_noun" for v in found)))
    made = collected(made)
    if not processes().is_main_process:
        return
    metrics = {"episodes": len(chosen), "frames": 0, "episodes_without_instruction": 0, "episodes_without_noun": 0}
    metrics |= {f"empty_{region}_{view}": 0 for region in ("robot", "object") for view in views}
    tensors: dict[str, torch.Tensor] = {}
    for entry, labels, no_noun in made:
        tensors[str(entry.index)] = labels
        metrics["frames"] += len(labels)
        metrics["episodes_without_instruction"] += not entry.instruction.strip()
        metrics["episodes_without_noun"] += no_noun
        for region, label in (("robot", ROBOT), ("object", MANIPULATED_OBJECT)):
            for view, number in zip(views, empty_frames(labels, label), strict=True):
                metrics[f"empty_{region}_{view}"] += number
    with atomic_path(MASKS) as part:
        counts = {key: value for key, value in metrics.items() if key.startswith("episodes")}
        about = {"source": params.masks.source, "views": views, **counts}
        save_file(tensors, part, metadata={ABOUT: json.dumps(about, sort_keys=True)})
    write_json(METRICS / "masks.json", metrics)

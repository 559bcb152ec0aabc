"""List episodes, splits, windows and pose statistics.

Unusable episodes are listed with the reason. The statistics are computed on the training split.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from persistworld.checkpoints.layout import checkpoint_statistics
from persistworld.config.params import Params
from persistworld.data.formats import open_episodes
from persistworld.data.latents import LatentStore, read_shard_indices
from persistworld.data.manifest import build_manifest, save_manifest
from persistworld.data.ranges import check_ranges, closed_at_first, pose_ranges
from persistworld.runtime.workspace import BASE, EPISODES, LATENTS, MANIFEST


def main(params: Params, args: argparse.Namespace) -> None:
    encoded, bad = read_shard_indices(LATENTS, params.latents.shards)
    source, store = open_episodes(EPISODES), LatentStore(LATENTS, params.episodes)
    rotation, future = params.world_model.rotation, params.world_model.future
    manifest = build_manifest(source, store, encoded, bad, params.episodes, rotation, future)
    check_poses(store, [entry.index for entry in manifest.episodes], params.episodes.path)
    save_manifest(manifest, MANIFEST, future)
    print(f"{len(manifest.episodes)} episodes, {len(manifest.bad)} left out")
    print("".join(f"in {count}: {note}\n" for note, count in sorted(manifest.notes.items())), end="")


def check_poses(store: LatentStore, indices: Sequence[int], path: str) -> None:
    """Print, for each pose component, the share of values outside the base checkpoint's range. Raises UserError if most values are."""
    statistics = checkpoint_statistics(BASE)
    poses = [store.poses(index).numpy() for index in indices]
    ranges = pose_ranges(statistics, np.concatenate(poses))
    print("poses outside the base checkpoint's range: " + ", ".join(f"{each.short_name} {each.outside:.1%}" for each in ranges))
    if note := closed_at_first([p[0] for p in poses], statistics):
        print(f"note: {note}")
    check_ranges(ranges, path)

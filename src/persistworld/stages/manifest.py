"""List episodes, splits, windows and pose statistics.

Episodes that cannot be used are listed with the reason. The statistics are those of the training split.
"""

import argparse

from persistworld.config.params import Params
from persistworld.data.formats import open_episodes
from persistworld.data.latents import LatentStore, read_shard_indices
from persistworld.data.manifest import build_manifest, save_manifest
from persistworld.runtime.workspace import EPISODES, LATENTS, MANIFEST


def main(params: Params, args: argparse.Namespace) -> None:
    frames, bad = read_shard_indices(LATENTS, params.latents.shards)
    source, store = open_episodes(EPISODES), LatentStore(LATENTS, params.episodes)
    rotation, future = params.world_model.rotation, params.world_model.future
    manifest = build_manifest(source, store, frames, bad, params.episodes, rotation, future)
    save_manifest(manifest, MANIFEST, future)
    print(f"{len(manifest.episodes)} episodes, {len(manifest.bad)} left out")
    print("".join(f"in {count}: {note}\n" for note, count in sorted(manifest.notes.items())), end="")

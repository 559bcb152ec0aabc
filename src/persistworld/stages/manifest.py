"""Stage manifest: episodes, splits, windows, frame counts, what cannot be used and why, pose statistics of the training split."""

import argparse
from pathlib import Path

from persistworld.data.episodes import EPISODES, open_episodes
from persistworld.data.latents import LatentStore, read_shard_indices
from persistworld.data.manifest import build_manifest, save_manifest
from persistworld.params import Params


def main(params: Params, args: argparse.Namespace) -> None:
    frames, bad = read_shard_indices(Path("data/latents"), params.latents.shards)
    source, store = open_episodes(EPISODES), LatentStore("data/latents", params.episodes)
    rotation, future = params.world_model.rotation, params.world_model.future
    manifest = build_manifest(source, store, frames, bad, params.episodes, rotation, future)
    save_manifest(manifest, "data/manifest.json", future)
    print(f"{len(manifest.episodes)} episodes, {len(manifest.bad)} left out")
    print("".join(f"in {count}: {note}\n" for note, count in sorted(manifest.notes.items())), end="")

"""Stage latents: the autoencoder encodes one shard's episodes; shard i holds every `shards`-th wanted episode from i on."""

import argparse
from pathlib import Path

from persistworld.data.episodes import open_episodes
from persistworld.data.latents import encode_shard
from persistworld.data.manifest import wanted_indices
from persistworld.params import Params
from persistworld.world_model.autoencoder import load_autoencoder


def main(params: Params, args: argparse.Namespace) -> None:
    source = open_episodes(params.episodes.path)
    indices = wanted_indices(params.episodes, source)[args.shard :: params.latents.shards]
    encode_shard(
        source,
        indices,
        params.episodes,
        params.latents,
        load_autoencoder("checkpoints/base"),
        params.seed,
        Path(f"data/latents/shard-{args.shard}.safetensors"),
    )

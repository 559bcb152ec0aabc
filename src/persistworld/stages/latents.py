"""Stage latents: the autoencoder encodes one shard's episodes; shard i holds every `shards`-th wanted episode from i on.

Several processes encode a part of the shard's episodes each; the first one joins them. The bytes do not depend on how many there are.
"""

import argparse
import hashlib
import shutil
from pathlib import Path

from persistworld.configuration import digest
from persistworld.data.elsewhere import fingerprint
from persistworld.data.episodes import EPISODES, EpisodeSource, open_episodes
from persistworld.data.latents import encode_episodes, join_shard
from persistworld.data.manifest import wanted_indices
from persistworld.distributed import collected, device, own_part, processes
from persistworld.files import sha256
from persistworld.params import Params
from persistworld.ranges import require
from persistworld.world_model.autoencoder import WEIGHTS, load_autoencoder

BASE, LATENTS, RUNS = Path("checkpoints/base"), Path("data/latents"), Path("runs/latents")


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/latents/shard-I.safetensors and .json; a killed shard takes up in runs/latents/ where it stopped."""
    last = params.latents.shards - 1
    require(0 <= args.shard <= last, "--shard", args.shard, f"with latents.shards = {last + 1} choose from 0 to {last}")
    source = open_episodes(EPISODES)
    indices = wanted_indices(params.episodes, source)[args.shard :: params.latents.shards]
    path, resume = LATENTS / f"shard-{args.shard}.safetensors", RUNS / _identity(params, source) / str(args.shard)
    autoencoder = load_autoencoder(BASE).to(device())
    own, settings = indices[own_part(len(indices))], (params.episodes, params.latents)
    bad = encode_episodes(source, own, *settings, autoencoder, params.seed, resume, path.stem)
    bad = dict(collected([*bad.items()]))  # the first process waits for the others here
    if not processes().is_main_process:
        return
    join_shard(indices, bad, resume, path)
    shutil.rmtree(resume, ignore_errors=True)  # not there when no episode could be used
    for stale in LATENTS.glob("shard-*"):  # of a run in more shards: they would be read
        if int(stale.stem.removeprefix("shard-")) >= params.latents.shards:
            stale.unlink()


def _identity(params: Params, source: EpisodeSource) -> str:
    """A hash of all that an episode's latents depend on: parameters, the data set's index, the autoencoder's weights."""
    parts = (digest(params.episodes), digest(params.latents), params.seed, fingerprint(source.root), sha256(BASE / WEIGHTS))
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:16]

"""Encode one shard of the episodes with the autoencoder.

Shard i holds every `shards`-th wanted episode, starting at i. With several processes, each one encodes part of the shard's episodes and the
first one joins the parts. The bytes do not depend on the number of processes.
"""

import argparse
import hashlib
import re
import shutil

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import digest
from persistworld.data.elsewhere import identity
from persistworld.data.encoding import encode_episodes, join_shard
from persistworld.data.episodes import EpisodeSource
from persistworld.data.formats import open_episodes
from persistworld.data.manifest import wanted_indices
from persistworld.runtime.distributed import collected, device, own_part, processes
from persistworld.runtime.files import sha256
from persistworld.runtime.provenance import code_digest
from persistworld.runtime.workspace import BASE, EPISODES, LATENTS, RUNS
from persistworld.world_model.autoencoder import WEIGHTS, load_autoencoder

OPTIONS = {"--shard": {"type": "int", "required": True, "help": "0 .. latents.shards - 1"}}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/latents/shard-I.safetensors and .json. After a kill, the shard resumes from runs/latents/."""
    last = params.latents.shards - 1
    require(0 <= args.shard <= last, "--shard", args.shard, f"with latents.shards = {last + 1} choose from 0 to {last}")
    source = open_episodes(EPISODES)
    indices = wanted_indices(params.episodes, source)[args.shard :: params.latents.shards]
    path, resume = LATENTS / f"shard-{args.shard}.safetensors", RUNS / "latents" / _identity(params, source) / str(args.shard)
    autoencoder = load_autoencoder(BASE).to(device())
    own, settings = indices[own_part(len(indices))], (params.episodes, params.latents)
    bad = encode_episodes(source, own, *settings, params.compute.encode_batch, autoencoder, params.seed, resume, path.stem)
    bad = dict(collected([*bad.items()]))  # the first process waits for the others here
    if not processes().is_main_process:
        return
    join_shard(indices, bad, resume, path)
    for file in LATENTS.iterdir():  # remove files of an earlier run with more shards, which would be read too
        number = re.fullmatch(r"shard-(\d+)\.(safetensors|json)", file.name)
        if number and int(number[1]) >= params.latents.shards:
            file.unlink(missing_ok=True)  # another shard's job may have removed it
    shutil.rmtree(resume, ignore_errors=True)  # missing if no episode was usable


def _identity(params: Params, source: EpisodeSource) -> str:
    """A hash of everything that determines an episode's latents: parameters, code, the data set's index, the autoencoder's weights."""
    sections, files = (params.episodes, params.latents), (identity(source), sha256(BASE / WEIGHTS))
    parts = (*map(digest, sections), params.seed, code_digest("stages.latents"), *files)
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()[:16]

"""Roll out one model on every evaluation episode, for all seeds, replaying the recorded poses.

With several processes, each one rolls out part of the episodes and the first one writes the files. Finished seeds are kept in runs/ until
all are done, so a stopped run continues with the first unfinished seed.
"""

import argparse
import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from persistworld.checkpoints.adapters import load_world_model
from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import digest, nearest
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry, evaluation_episodes, load_manifest
from persistworld.rollouts.compilation import compile_unet
from persistworld.rollouts.evaluation import rollout
from persistworld.rollouts.starts import poses_after, starts_of
from persistworld.runtime.distributed import collected, device, gathered, own_part, processes
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, sha256
from persistworld.runtime.progress import announce, track
from persistworld.runtime.provenance import code_digest
from persistworld.runtime.workspace import CHECKPOINTS, LATENTS, MANIFEST, RUNS, rollout_path
from persistworld.world_model.model import WorldModel

OPTIONS = {
    "--model": {"required": True, "help": "base, teacher_forced, post_trained, or a name in variants"},
    "--seed": {"type": "int", "nargs": "+", "metavar": "N", "help": "some of evaluation.seeds (default: all)"},
}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/rollouts/MODEL/seed-N.safetensors for every N in evaluation.seeds, or in --seed."""
    known = params.all_models
    named = known.rolled_out(known.names)
    require(args.model in named, "--model", args.model, f"no model with a checkpoint; {nearest(args.model, named)}")
    announce(params.derived.progress(args.model))
    params, folder = params.for_run(args.model), CHECKPOINTS / known[args.model].checkpoint
    seeds = params.evaluation.seeds
    for seed in args.seed or ():
        require(seed in seeds, "--seed", seed, f"not among evaluation.seeds, {', '.join(map(str, seeds))}; choose one of them")
    base = CHECKPOINTS / known[args.model].base
    [made_from] = gathered([_made_from(params, folder, base)] if processes().is_main_process else [])
    finished = RUNS / "rollouts" / args.model / made_from
    paths = {seed: finished / f"seed-{seed}.safetensors" for seed in args.seed or seeds}
    missing = [seed for seed, path in paths.items() if not path.exists()]
    if missing:
        _roll_out(params, args.model, load_world_model(folder, base), {seed: paths[seed] for seed in missing})
    if not processes().is_main_process:
        return
    for seed, path in paths.items():
        with atomic_path(rollout_path(args.model, seed)) as part:
            shutil.copyfile(path, part)
    for path in paths.values():
        path.unlink()
    with contextlib.suppress(OSError):  # not empty if another job works on other seeds of the model
        finished.rmdir()
        finished.parent.rmdir()


def _roll_out(params: Params, name: str, model: WorldModel, paths: dict[int, Path]) -> None:
    """Write the rollouts of each seed to its path as soon as they are finished."""
    model = model.to(device())
    if params.compute.rollout.torch_compile:
        compile_unet(model, params.rollout.precision)
    store, episodes = LatentStore(LATENTS), evaluation_episodes(load_manifest(MANIFEST), params.evaluation, params.rollout_frames)
    for seed, path in paths.items():
        latents = _latents(params, model, store, episodes, seed, f"rollouts of {name}, seed {seed}")
        if not processes().is_main_process:
            continue
        if not latents.isfinite().all():  # otherwise they would be scored as black frames
            raise UserError(f"{CHECKPOINTS / name}: its rollouts are not finite numbers; train it again, at a lower rate or in float32")
        with atomic_path(path) as part:
            tensors = {"latents": latents, "episodes": torch.tensor([entry.index for entry in episodes])}
            save_file(tensors, part, metadata={"rollout": f"{name}, seed {seed}"})


def _latents(params: Params, model: WorldModel, store: LatentStore, episodes: Sequence[Entry], seed: int, label: str) -> Tensor:
    """The rollouts of all episodes, (E, T, C, V * h, w) on the CPU, in the first process. Empty in the others."""
    batch, fixed_size = params.compute.rollout.batch, params.compute.rollout.torch_compile
    parts = [episodes[i : i + batch] for i in range(0, len(episodes), batch)]
    own, latents = parts[own_part(len(parts))], []
    for part in track(own, len(own), label):
        starts, poses = starts_of(model, store, part), poses_after(store, part, params.rollout_frames - 1)
        indices = [entry.index for entry in part]
        latents.append(rollout(model, starts, poses, indices, seed, params.rollout, batch if fixed_size else 0).cpu())
    latents = collected(latents)
    return torch.cat(latents) if latents else torch.empty(0)


def _made_from(params: Params, *checkpoints: Path) -> str:
    """A hash of everything that determines the rollouts of a seed, so that a file of another run is never reused."""
    files = [MANIFEST, *sorted(file for folder in set(checkpoints) for file in folder.glob("*.safetensors"))]
    evaluation = params.evaluation
    parts = [digest(params.rollout, params.episodes, params.latents), evaluation.split, evaluation.episodes, params.seed]
    content = "\n".join(map(str, [*parts, code_digest("stages.rollouts"), *map(sha256, files)]))
    return hashlib.sha256(content.encode()).hexdigest()[:16]

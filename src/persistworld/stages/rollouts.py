"""Roll one model out from every evaluation episode, replaying the recorded poses.

With several processes, each one rolls out a part of the episodes and the first one writes them all.
"""

import argparse

import torch
from safetensors.torch import save_file

from persistworld.checkpoints.adapters import load_world_model
from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import evaluation_episodes, load_manifest
from persistworld.rollouts.compilation import compile_unet
from persistworld.rollouts.engine import rollout
from persistworld.rollouts.starts import starts_of
from persistworld.runtime.distributed import collected, device, own_part, processes
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path
from persistworld.runtime.progress import track
from persistworld.runtime.workspace import CHECKPOINTS, LATENTS, MANIFEST, rollout_path

OPTIONS = {
    "--model": {"required": True, "help": "base, teacher_forced, post_trained, or a name in variants"},
    "--seed": {"type": "int", "required": True, "help": "one of evaluation.seeds"},
}


def main(params: Params, args: argparse.Namespace) -> None:
    settings, compute, seeds = params.rollout, params.compute.rollout, params.evaluation.seeds
    require(args.seed in seeds, "--seed", args.seed, f"not among evaluation.seeds, {', '.join(map(str, seeds))}; choose one of them")
    model, store = load_world_model(CHECKPOINTS / args.model).to(device()), LatentStore(LATENTS)
    if compute.torch_compile:
        compile_unet(model, settings.precision)
    frames = params.rollout_frames
    episodes = evaluation_episodes(load_manifest(MANIFEST), params.evaluation, frames)
    parts = [episodes[i : i + compute.batch] for i in range(0, len(episodes), compute.batch)]
    rows = compute.batch if compute.torch_compile else 0
    own, latents = parts[own_part(len(parts))], []
    for part in track(own, len(own), f"rollouts of {args.model}, seed {args.seed}"):
        starts = starts_of(model, store, part, frames)
        latents.append(rollout(model, starts, [e.index for e in part], args.seed, settings, rows).cpu())
    latents = collected(latents)
    if not processes().is_main_process:
        return
    latents = torch.cat(latents)
    if not latents.isfinite().all():  # they would be black frames, with scores
        raise UserError(f"{CHECKPOINTS / args.model}: its rollouts are not finite numbers; train it again, at a lower rate or in float32")
    with atomic_path(rollout_path(args.model, args.seed)) as path:
        tensors = {"latents": latents, "episodes": torch.tensor([e.index for e in episodes])}
        save_file(tensors, path, metadata={"rollout": f"{args.model}, seed {args.seed}"})

"""Train the control own_history: supervision on the model's own rollouts, with the compute of post-training."""

import argparse

from persistworld.checkpoints.adapters import save_adapter
from persistworld.checkpoints.folders import load_base_model
from persistworld.config.params import Params, own_history_sections
from persistworld.config.reading import digest
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import load_manifest
from persistworld.post_training.cost import own_history_steps
from persistworld.post_training.materials import frames_needed
from persistworld.post_training.own_history import train_own_history
from persistworld.runtime.distributed import device, processes
from persistworld.runtime.files import atomic_path
from persistworld.runtime.workspace import BASE, CHECKPOINTS, LATENTS, MANIFEST, RUNS
from persistworld.training.run import provenance, publish_log

RUN = "own_history"


def main(params: Params, args: argparse.Namespace) -> None:
    sections = settings, control = own_history_sections(params)
    base, store = load_base_model(BASE).to(device()), LatentStore(LATENTS, params.episodes)
    episodes = load_manifest(MANIFEST).long_enough("train", frames_needed(settings, base))
    steps = own_history_steps(settings, control.kl_weight)
    made_from = provenance(params, "stages.own_history", *sections)
    run_folder, compute = RUNS / RUN / digest(*sections), params.compute.post_training
    weights = train_own_history(
        base, store, episodes, settings, control, params.rollout, steps, params.seed, run_folder, made_from, compute
    )
    if not processes().is_main_process:
        return
    with atomic_path(CHECKPOINTS / RUN) as folder:
        save_adapter(weights, base, BASE, folder, sections, params.seed)
    publish_log(run_folder, RUN, goes_on=False)

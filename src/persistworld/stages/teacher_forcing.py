"""Train the control: more teacher forcing with the compute of post-training."""

import argparse
import dataclasses

from persistworld.checkpoints.adapters import save_adapter
from persistworld.checkpoints.folders import load_base_model
from persistworld.config.params import Params, control_sections
from persistworld.config.reading import digest
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import load_manifest
from persistworld.data.windows import WindowSource
from persistworld.post_training.cost import control_steps
from persistworld.runtime.distributed import device, processes
from persistworld.runtime.files import atomic_path
from persistworld.runtime.workspace import BASE, CHECKPOINTS, LATENTS, MANIFEST, RUNS
from persistworld.training.control import train_control
from persistworld.training.run import provenance, publish_log, state_folder, tied_by

RUN = "teacher_forced"


def main(params: Params, args: argparse.Namespace) -> None:
    sections = control_sections(params)
    base = load_base_model(BASE).to(device())
    episodes = load_manifest(MANIFEST).long_enough("train", base.config.future)
    # The number of steps follows from post_training.steps, and enters only with a schedule that depends on it.
    any_steps = (dataclasses.replace(params.post_training, steps=1), *sections[1:])
    made_from = provenance(params, "stages.teacher_forcing", *any_steps)
    windows = WindowSource(LatentStore(LATENTS), episodes, params.rollout.history_index)
    steps = control_steps(params.post_training, params.control.batch)
    decay_from = params.control.optimizer.decay_from
    tied = tied_by({f"control.optimizer.decay_from = {decay_from:g}": decay_from < 1})
    run_folder = state_folder(RUNS / RUN / digest(*any_steps), steps, tied)
    weights = train_control(base, windows, *sections, steps, params.seed, run_folder, made_from, params.compute.post_training)
    if not processes().is_main_process:
        return
    with atomic_path(CHECKPOINTS / RUN) as folder:
        save_adapter(weights, base, BASE, folder, sections, params.seed)
    publish_log(run_folder, RUN, tied is None)

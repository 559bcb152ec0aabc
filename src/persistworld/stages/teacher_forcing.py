"""Train the control: more teacher forcing with the compute of post-training."""

import argparse

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
from persistworld.training.run import provenance, publish_log

RUN = "teacher_forced"


def main(params: Params, args: argparse.Namespace) -> None:
    sections = control_sections(params)
    base = load_base_model(BASE).to(device())
    episodes = load_manifest(MANIFEST).long_enough("train", base.config.future)
    made_from = provenance(params, "stages.teacher_forcing", *sections)
    run_folder = RUNS / RUN / digest(*sections)
    windows = WindowSource(LatentStore(LATENTS), episodes, params.rollout.history_index)
    steps = control_steps(params.post_training, params.control.batch)
    weights = train_control(base, windows, *sections, steps, params.seed, run_folder, made_from, params.compute.post_training)
    if not processes().is_main_process:
        return
    with atomic_path(CHECKPOINTS / RUN) as folder:
        save_adapter(weights, base, BASE, folder, sections, params.seed)
    publish_log(run_folder, RUN)

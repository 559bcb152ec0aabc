"""Stage teacher_forcing: the control, post-training's compute spent on more teacher forcing."""

import argparse

from persistworld.configuration import digest
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import load_manifest
from persistworld.distributed import device, processes
from persistworld.files import atomic_path
from persistworld.params import Params
from persistworld.post_training.checkpoint import save_adapter
from persistworld.post_training.control import control_sections, train_control
from persistworld.post_training.run import provenance, publish_log
from persistworld.workspace import BASE, CHECKPOINTS, LATENTS, MANIFEST, RUNS
from persistworld.world_model.checkpoint import load_base_model

RUN = "teacher_forced"


def main(params: Params, args: argparse.Namespace) -> None:
    sections = control_sections(params)
    base = load_base_model(BASE).to(device())
    episodes = load_manifest(MANIFEST).long_enough("train", base.config.future)
    made_from = provenance(params, *sections)
    run_folder = RUNS / RUN / digest(*sections)
    store, index = LatentStore(LATENTS), params.rollout.history_index
    weights = train_control(base, store, episodes, *sections, index, params.seed, run_folder, made_from)
    if not processes().is_main_process:
        return
    with atomic_path(CHECKPOINTS / RUN) as folder:
        save_adapter(weights, base, BASE, folder, sections, params.seed)
    publish_log(run_folder, RUN)

"""Post-train the base model on its own rollouts (Algorithm 1)."""

import argparse

from persistworld.checkpoints.adapters import save_adapter
from persistworld.config.params import Params
from persistworld.config.reading import digest
from persistworld.post_training.materials import load_materials
from persistworld.post_training.trainer import train
from persistworld.runtime.distributed import processes
from persistworld.runtime.files import atomic_path
from persistworld.runtime.workspace import BASE, CHECKPOINTS, RUNS
from persistworld.training.run import provenance, publish_log

OPTIONS = {"--run": {"default": "post_trained", "help": "post_trained, or a name in variants (default: %(default)s)"}}


def main(params: Params, args: argparse.Namespace) -> None:
    params = params.for_run(args.run)
    settings = params.post_training
    base, reward_model, data = load_materials(params)
    made_from = provenance(params, "stages.post_training", settings, params.metrics)
    run_folder = RUNS / args.run / digest(settings)
    history, compute = params.rollout.history_index, params.compute.post_training
    weights = train(base, reward_model, data, settings, history, params.seed, run_folder, made_from, compute)
    if not processes().is_main_process:
        return
    with atomic_path(CHECKPOINTS / args.run) as folder:
        save_adapter(weights, base, BASE, folder, [settings], params.seed)
    publish_log(run_folder, args.run)

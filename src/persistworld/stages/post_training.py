"""Post-train the base model on its own rollouts (Algorithm 1)."""

import argparse
import dataclasses

from persistworld.checkpoints.adapters import save_adapter
from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import digest, nearest
from persistworld.post_training.materials import load_materials
from persistworld.post_training.trainer import train
from persistworld.runtime.distributed import processes
from persistworld.runtime.files import atomic_path
from persistworld.runtime.progress import announce
from persistworld.runtime.workspace import CHECKPOINTS, RUNS
from persistworld.training.run import provenance, publish_log, state_folder, tied_by

OPTIONS = {"--run": {"default": "post_trained", "help": "post_trained, or a name in variants (default: %(default)s)"}}


def main(params: Params, args: argparse.Namespace) -> None:
    trained = params.all_models.post_trainings
    require(args.run in trained, "--run", args.run, f"no model that is post-trained; {nearest(args.run, trained)}")
    announce(params.derived.progress(args.run))
    base_folder, params = CHECKPOINTS / params.all_models[args.run].base, params.for_run(args.run)
    settings = params.post_training
    base, reward_model, data = load_materials(params, base_folder)
    any_steps = dataclasses.replace(settings, steps=1)
    made_from = provenance(params, "stages.post_training", any_steps, params.metrics, base=base_folder)
    tied = tied_by(
        {
            f"post_training.optimizer.decay_from = {settings.optimizer.decay_from:g}": settings.optimizer.decay_from < 1,
            f"post_training.prefix_schedule = {settings.prefix_schedule}": settings.prefix_schedule != "random",
        }
    )
    run_folder = state_folder(RUNS / args.run / digest(any_steps), settings.steps, tied)
    compute = params.compute.post_training
    weights = train(base, reward_model, data, settings, params.rollout, params.seed, run_folder, made_from, compute)
    if not processes().is_main_process:
        return
    with atomic_path(CHECKPOINTS / args.run) as folder:
        save_adapter(weights, base, base_folder, folder, [settings], params.seed)
    publish_log(run_folder, args.run, tied is None)

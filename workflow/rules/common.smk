"""What the files in rules/ share: checked parameters, the models and files that they imply, the code of each stage."""

import sys
from dataclasses import asdict
from functools import reduce
from operator import getitem
from pathlib import Path

import yaml
from snakemake.utils import min_version, validate

ROOT = Path(workflow.current_basedir).parents[1]
sys.path.insert(0, str(ROOT / "src"))
from persistworld.runtime.errors import UserError
from persistworld.config.params import BASELINES, RESERVED_MODELS, load_params
from persistworld.runtime.holding import share
from persistworld.runtime.lifeline import begin_workflow
from persistworld.runtime.provenance import code_files
from persistworld.runtime.workspace import EPISODES

min_version("9.0")
begin_workflow()
ALIVE = share(".snakemake/alive")  # held until this process ends: `make run` takes away the lock of a Snakemake that is dead


configfile: "params.yaml"


SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/params.schema.yaml").read_text())
try:
    PARAMS = load_params("params.yaml")
    if config != yaml.safe_load(Path("params.yaml").read_text()):
        raise UserError("--config and --configfile: stages read params.yaml alone; edit it, or copy a preset over it")
    for section in SCHEMA["required"]:
        for key in SCHEMA["properties"][section].get("required", [None]):
            if section not in config or (key and key not in (config[section] or {})):
                name = f"{section}.{key}" if key else section
                raise UserError(f"params.yaml: {name} is missing, and DVC compares it by its name; write its default down (presets/ have it)")
    if PARAMS.episodes.source == "simulate" and Path(PARAMS.episodes.path) != EPISODES:
        raise UserError(f"episodes.path = {PARAMS.episodes.path}: the workflow simulates into {EPISODES}; name that")
except UserError as error:
    sys.exit(f"persistworld: error: {error}")
validate(config, "../schemas/params.schema.yaml", set_default=False)

SETTINGS = asdict(PARAMS)
SHARDS = range(PARAMS.latents.shards)
SEEDS = PARAMS.evaluation.seeds
MODELS = PARAMS.evaluation.models
# Models that are a checkpoint, as against baselines that need none; of them, those that are evaluated.
ROLLED_OUT = [model for model in (*RESERVED_MODELS, *PARAMS.variants) if model not in BASELINES]
CHECKPOINTS = [model for model in MODELS if model in ROLLED_OUT]
# GPUs of each job. More for one rule: --set-resources RULE:gpu=N, or set-resources in a profile.
GPUS = PARAMS.compute.gpus
SECTIONS = [name for name in SETTINGS if name not in ("preset", "compute")]
FIGURES = [3, 4, 5, 11]
LATENTS = expand("data/latents/shard-{shard}.{kind}", shard=SHARDS, kind=["safetensors", "json"])
ROLLOUTS = expand("data/rollouts/{model}/seed-{seed}.safetensors", model=CHECKPOINTS, seed=SEEDS)
SHOWN = expand("data/rollouts/{model}/seed-{seed}.safetensors", model=["base", "post_trained"], seed=SEEDS)
SCORES = expand("results/scores/{model}.parquet", model=MODELS)
TRAINING = expand("results/training/{run}.csv", run=[model for model in CHECKPOINTS if model != "base"])
# The base checkpoint that the workflow itself trains, where base_checkpoint.location names it.
OWN_BASE = "runs/base_checkpoint"
# With a default storage provider (workflow/profiles/kubernetes) the repository's own files travel in Snakemake's archive of sources. As inputs
# they would be looked for in the bucket; flagged as local they would keep every job on the machine that started the workflow.
IN_ARCHIVE = workflow.storage_settings.default_storage_provider is not None
MASKS_ENVIRONMENT = f"../envs/{'roboengine' if PARAMS.masks.source == 'roboengine' else 'persistworld'}.yml"


def all_cores(wildcards):
    """Threads of a stage that runs alone. (Asked when a job is planned: `snakemake --unlock` has no cores.)"""
    return workflow.cores or 2


def half_of_the_cores(wildcards):
    """Threads of post-training and its control, the longest stages, side by side; a small model has no use for more than four each.
    (A cluster has no number of cores; its profile sets threads.)"""
    return PARAMS.compute.threads or min(4, max(1, (workflow.cores or 1) // 2))


def code(stage):
    """The package's files that a stage runs. As inputs: an edited module makes its stages stale (not in a bucket)."""
    return [] if IN_ARCHIVE else [str(file.relative_to(ROOT)) for file in code_files(f"stages.{stage}")]


def sections(*names):
    """Sections or "section.key"s of params.yaml, defaults filled in. As `params:`, a change makes a rule's outputs stale."""
    return {name: reduce(getitem, name.split("."), SETTINGS) for name in names}


def launch(command):
    """The shell text of a stage that can share its work; at the paper's scale it gets a process for each of the job's GPUs."""
    launcher = "torchrun --standalone --nproc-per-node {resources.gpu} -m -- persistworld.cli "
    return command.replace("persistworld ", launcher, 1) if GPUS else command


def base_files():
    """The files of a base checkpoint that ships with the repository, or the folder of one's own; none when it is downloaded."""
    folder = Path(PARAMS.base_checkpoint.location)
    if PARAMS.base_checkpoint.source != "file" or (IN_ARCHIVE and str(folder) != OWN_BASE):
        return []
    if str(folder) == OWN_BASE or not folder.is_dir():
        return [str(folder)]
    return sorted(str(file) for file in folder.iterdir())


def perceptual_file():
    """The tabletop's perceptual network, for a base that is scored with it and trains none (real frames have no labels)."""
    needed = PARAMS.metrics.lpips == "tabletop" and not PARAMS.base_training.perceptual_steps
    return ["assets/tabletop_base/perceptual.safetensors"] if needed and not IN_ARCHIVE else []


def rollouts_of(wildcards):
    """The rollouts that a model's scores need: one a seed; none for baselines."""
    seeds = [] if wildcards.model in BASELINES else SEEDS
    return expand("data/rollouts/{model}/seed-{seed}.safetensors", model=wildcards.model, seed=seeds)


def one_of(names):
    """A wildcard's constraint: one of `names`, nothing else."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    shard=r"\d+",
    seed=r"-?\d+",
    run=one_of(["post_trained", *PARAMS.variants]),
    variant=one_of(PARAMS.variants),
    model=one_of([*RESERVED_MODELS, *PARAMS.variants]),

"""Definitions shared by the rules: checked parameters, the models and files that they imply, a stage's code and parameters."""

import sys
from dataclasses import asdict
from functools import cache, reduce
from operator import getitem
from pathlib import Path

import yaml
from snakemake.utils import min_version

ROOT = Path(workflow.basedir).parent
PACKAGE = ROOT / "src/persistworld"
sys.path.insert(0, str(PACKAGE.parent))
from persistworld.runtime.errors import UserError
from persistworld.config.models import SHOWN as SIDE_BY_SIDE
from persistworld.config.params import load_params
from persistworld.runtime.holding import share
from persistworld.runtime.lifeline import begin_workflow
from persistworld.runtime.provenance import code_files
from persistworld.runtime.workspace import EPISODES

min_version("9.0")
begin_workflow()
ALIVE = share(".snakemake/alive")  # held until this process ends, so that `make run` can tell whether Snakemake's own lock is stale


configfile: "params.yaml"


# Parameters are checked before anything runs.
try:
    PARAMS = load_params("params.yaml")
    if config != yaml.safe_load(Path("params.yaml").read_text()):
        raise UserError("--config and --configfile: stages read only params.yaml; edit it, or copy a preset over it")
    if PARAMS.episodes.source == "simulate" and Path(PARAMS.episodes.path) != EPISODES:
        raise UserError(f"episodes.path = {PARAMS.episodes.path}: the workflow simulates into {EPISODES}; name that")
except UserError as error:
    sys.exit(f"persistworld: error: {error}")

# The default targets of `snakemake`. Each rule of the default run adds its outputs.
WANTED = []
SHARDS = range(PARAMS.latents.shards)
SEEDS = PARAMS.evaluation.seeds
MODELS = PARAMS.evaluation.models
REGISTRY = PARAMS.all_models  # the properties of each model
ABLATED = REGISTRY.of_role(REGISTRY.names, "ablation")  # they have evaluation episodes of their own (rules/ablations.smk)
ROLLED_OUT = [model for model in REGISTRY.rolled_out(REGISTRY.names) if model not in ABLATED]
# The evaluated models with and without rollouts, and the checkpoints to roll out.
EVALUATED = REGISTRY.rolled_out(MODELS)
BASELINES = [model for model in MODELS if model not in EVALUATED]
# Models that the default run does not have: results/metrics/NAME.json compares one of them with the others (rules/comparison.smk).
COMPARED = [*PARAMS.variants, *(model for model in REGISTRY.of_role(REGISTRY.names, "control") if model not in MODELS)]
CHECKPOINTS = list(dict.fromkeys(REGISTRY[model].checkpoint for model in EVALUATED))
# The ablations: axis -> row -> one run per training seed; the base among them; their evaluation seeds and ground truth.
AXES = PARAMS.ablations.tables
ROWS = PARAMS.derived.rows
ABLATION = ABLATED[0] if ABLATED else None
ABLATION_SEEDS = PARAMS.for_run(ABLATION).evaluation.seeds if ABLATED else []
# GPUs per job. More for some: --set-resources RULE:gpu=N, or set-resources in a profile.
GPUS = PARAMS.compute.gpus
# The sections that can change a result or the report. `compute` changes only time and memory; ablations and speed have pages of their own.
SECTIONS = [name for name in asdict(PARAMS) if name not in ("compute", "ablations", "speed")]
FIGURES = [3, 4, 5, 11]
LATENTS = expand("data/latents/shard-{shard}.{kind}", shard=SHARDS, kind=["safetensors", "json"])
ROLLOUTS = expand("data/rollouts/{model}/seed-{seed}.safetensors", model=EVALUATED, seed=SEEDS)
SHOWN = expand("data/rollouts/{model}/seed-{seed}.safetensors", model=SIDE_BY_SIDE, seed=SEEDS)
SCORES = expand("results/scores/{model}.parquet", model=MODELS)
TRAINING = expand("results/training/{model}.csv", model=[model for model in CHECKPOINTS if model != "base"])
# The base checkpoint that the workflow trains, if base_checkpoint.location names it.
OWN_BASE = "runs/base_checkpoint"
# With a default storage provider (workflow/profiles/kubernetes), Snakemake's source archive carries the repository's files. They cannot be
# inputs: Snakemake would look for them in the bucket, or, if flagged as local, run every job on the machine that started the workflow.
IN_ARCHIVE = workflow.storage_settings.default_storage_provider is not None
# The labels and colours of models. They do not affect results, so the module is an input only of the rules that print them.
LABELS = [] if IN_ARCHIVE else ["src/persistworld/config/models.py"]
# The frames of the ground truth, or the files that they are decoded from. RECORDED is enough where only recorded frames are shown.
TRUTH = "data/truth" if PARAMS.compute.store_truth else ["data/episodes", *LATENTS]
ABLATION_TRUTH = "data/ablation_truth" if PARAMS.compute.store_truth else ["data/episodes", *LATENTS]
RECORDED = "data/truth" if PARAMS.compute.store_truth else "data/episodes"
MASKS_ENVIRONMENT = f"../envs/{'roboengine' if PARAMS.masks.source == 'roboengine' else 'persistworld'}.yml"


def all_cores(wildcards):
    """Threads of a stage that runs alone. (A function, since `snakemake --unlock` has no cores; it is called when a job is planned.)"""
    return workflow.cores or 2


def half_of_the_cores(wildcards):
    """Threads of post-training and of its control, the longest stages, which run in parallel. A small model cannot use more than four each.
    (On a cluster the number of cores is undefined, and the profile sets the threads.)"""
    return PARAMS.compute.threads or min(4, max(1, (workflow.cores or 1) // 2))


def code(stage):
    """The package's files that a stage runs. As inputs they make the stage stale when a module is edited. Empty with a bucket."""
    return [] if IN_ARCHIVE else [str(file.relative_to(ROOT)) for file in code_files(f"stages.{stage}", PACKAGE)]


def sections(*names, model=None):
    """The values of the sections or "section.key"s that a stage reads, with defaults: those of `model`, or of the job's wildcard `model`.

    As a rule's `params:`, a change makes its outputs stale. `make dvc` makes DVC compare the same values.
    """
    return {name: section(name, model) for name in names}


def section(name, model=None):
    """The value of one section in a job. It is a function of the wildcards, as Snakemake requires."""

    def value(wildcards):
        return reduce(getitem, name.split("."), settings(model or dict(wildcards.items()).get("model")))

    return value


@cache
def settings(model):
    """All parameters for jobs about a model, with a variant's changes applied."""
    return asdict(PARAMS.for_run(model) if model in REGISTRY else PARAMS)


def launch(command):
    """The shell command of a stage that supports several processes. With GPUs, torchrun starts one process per GPU of the job."""
    launcher = "torchrun --standalone --nproc-per-node {resources.gpu} -m -- persistworld.cli "
    return command.replace("persistworld ", launcher, 1) if GPUS else command


# What the truth, the rollouts and the scores depend on. The headline protocol and everything in paper/ only affect later stages.
TRUTH_BY = ["episodes", "evaluation.episodes", "evaluation.split", "rollout.chunks", "world_model"]
ROLLED_OUT_BY = ["episodes", "evaluation.episodes", "evaluation.seeds", "evaluation.split", "latents", "rollout", "seed"]
SCORED_BY = [*TRUTH_BY, "evaluation.convention", "evaluation.seeds", "masks", "metrics"]


def base_files(params=PARAMS):
    """The files of a base checkpoint that ships with the repository, or your own checkpoint's folder. Empty if it is downloaded."""
    folder = Path(params.base_checkpoint.location)
    if params.base_checkpoint.source != "file" or (IN_ARCHIVE and str(folder) != OWN_BASE):
        return []
    if str(folder) == OWN_BASE or not folder.is_dir():
        return [str(folder)]
    return sorted(str(file) for file in folder.iterdir())


def perceptual_file():
    """The tabletop's perceptual network, for a base that is scored with it but does not train one (real frames have no labels)."""
    needed = PARAMS.metrics.lpips == "tabletop" and not PARAMS.base_training.perceptual_steps
    return ["assets/tabletop_base/perceptual.safetensors"] if needed and not IN_ARCHIVE else []


def shipped(*folders):
    """The files of networks in assets/. Empty for a network that is not trained yet: the stage then says how to train it."""
    return [] if IN_ARCHIVE else sorted(str(file) for folder in folders for file in Path(folder).glob("*"))


def rollouts_of(wildcards):
    """The rollouts that a model's scores need, one file per seed."""
    return expand("data/rollouts/{model}/seed-{seed}.safetensors", model=wildcards.model, seed=SEEDS)


def checkpoints_of(wildcards):
    """The folders that a model is loaded from: its checkpoint and the base of its adapter."""
    model = REGISTRY[wildcards.model]
    return [f"checkpoints/{name}" for name in dict.fromkeys((model.checkpoint, model.base))]


def ablation_runs(axis):
    """The runs that an ablation's table is made of, each once."""
    return list(dict.fromkeys(run for runs in ROWS[axis].values() for run in runs))


def ablation_scores_of(wildcards):
    """The scores that an ablation's table needs."""
    return expand("results/scores/{run}.parquet", run=[ABLATION, *ablation_runs(wildcards.axis)])


def ablation_logs_of(wildcards):
    """The training logs that an ablation's table needs."""
    checkpoints = dict.fromkeys(REGISTRY[run].checkpoint for run in ablation_runs(wildcards.axis))
    return expand("results/training/{run}.csv", run=list(checkpoints))


def one_of(names):
    """A wildcard constraint that matches exactly `names`."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    shard=r"\d+",
    seed=r"-?\d+",
    own_base=one_of(REGISTRY.bases),
    model=one_of(ROLLED_OUT),

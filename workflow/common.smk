"""What the rules share: checked parameters, the models and files that follow from them, a stage's code and parameters."""

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
from persistworld.config.params import load_params
from persistworld.runtime.holding import share
from persistworld.runtime.lifeline import begin_workflow
from persistworld.runtime.provenance import code_files
from persistworld.runtime.workspace import EPISODES

min_version("9.0")
begin_workflow()
ALIVE = share(".snakemake/alive")  # held until this process ends: `make run` takes away the lock of a Snakemake that is dead


configfile: "params.yaml"


# Checked before anything runs.
try:
    PARAMS = load_params("params.yaml")
    if config != yaml.safe_load(Path("params.yaml").read_text()):
        raise UserError("--config and --configfile: stages read params.yaml alone; edit it, or copy a preset over it")
    if PARAMS.episodes.source == "simulate" and Path(PARAMS.episodes.path) != EPISODES:
        raise UserError(f"episodes.path = {PARAMS.episodes.path}: the workflow simulates into {EPISODES}; name that")
except UserError as error:
    sys.exit(f"persistworld: error: {error}")

# What `snakemake` makes when nothing is named. A rule that belongs to the default run adds its outputs.
WANTED = []
SHARDS = range(PARAMS.latents.shards)
SEEDS = PARAMS.evaluation.seeds
MODELS = PARAMS.evaluation.models
REGISTRY = PARAMS.models  # what each model is
ROLLED_OUT = REGISTRY.rolled_out(REGISTRY.names)
# The evaluated models, by whether they need rollouts; and the checkpoints that these roll out.
EVALUATED = REGISTRY.rolled_out(MODELS)
BASELINES = [model for model in MODELS if model not in EVALUATED]
CHECKPOINTS = list(dict.fromkeys(REGISTRY[model].checkpoint for model in EVALUATED))
# GPUs of each job. More for one rule: --set-resources RULE:gpu=N, or set-resources in a profile.
GPUS = PARAMS.compute.gpus
# Everything that can change a result or the report; `compute` changes time and memory only.
SECTIONS = [name for name in asdict(PARAMS) if name != "compute"]
FIGURES = [3, 4, 5, 11]
LATENTS = expand("data/latents/shard-{shard}.{kind}", shard=SHARDS, kind=["safetensors", "json"])
ROLLOUTS = expand("data/rollouts/{model}/seed-{seed}.safetensors", model=EVALUATED, seed=SEEDS)
SHOWN = expand("data/rollouts/{model}/seed-{seed}.safetensors", model=["base", "post_trained"], seed=SEEDS)
SCORES = expand("results/scores/{model}.parquet", model=MODELS)
TRAINING = expand("results/training/{model}.csv", model=[model for model in CHECKPOINTS if model != "base"])
# The base checkpoint that the workflow itself trains, where base_checkpoint.location names it.
OWN_BASE = "runs/base_checkpoint"
# With a default storage provider (workflow/profiles/kubernetes) the repository's own files travel in Snakemake's archive of sources. As inputs
# they would be looked for in the bucket; flagged as local they would keep every job on the machine that started the workflow.
IN_ARCHIVE = workflow.storage_settings.default_storage_provider is not None
# Labels and colours of models. Elsewhere the module makes no difference to results, so only what prints them has it as an input.
LABELS = [] if IN_ARCHIVE else ["src/persistworld/config/models.py"]
# The ground truth's frames, or what they are decoded from; the recorded ones alone are enough to show them.
TRUTH = "data/truth" if PARAMS.compute.store_truth else ["data/episodes", *LATENTS]
RECORDED = "data/truth" if PARAMS.compute.store_truth else "data/episodes"
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
    return [] if IN_ARCHIVE else [str(file.relative_to(ROOT)) for file in code_files(f"stages.{stage}", PACKAGE)]


def sections(*names):
    """The sections or "section.key"s that a stage reads, defaults filled in; a variant's own in jobs about a variant.

    As `params:` of a rule, a change makes its outputs stale. `make dvc` has DVC compare the same values.
    """
    return {name: section(name) for name in names}


def section(name):
    """The value of one section in a job, as Snakemake asks for it: a function of the wildcards."""

    def value(wildcards):
        return reduce(getitem, name.split("."), settings(dict(wildcards.items()).get("model")))

    return value


@cache
def settings(model):
    """All parameters for jobs about a model: a variant has its own."""
    return asdict(PARAMS.for_run(model) if model in PARAMS.variants else PARAMS)


def launch(command):
    """The shell text of a stage that can share its work; at the paper's scale it gets a process for each of the job's GPUs."""
    launcher = "torchrun --standalone --nproc-per-node {resources.gpu} -m -- persistworld.cli "
    return command.replace("persistworld ", launcher, 1) if GPUS else command


def base_files(params=PARAMS):
    """The files of a base checkpoint that ships with the repository, or the folder of one's own; none when it is downloaded."""
    folder = Path(params.base_checkpoint.location)
    if params.base_checkpoint.source != "file" or (IN_ARCHIVE and str(folder) != OWN_BASE):
        return []
    if str(folder) == OWN_BASE or not folder.is_dir():
        return [str(folder)]
    return sorted(str(file) for file in folder.iterdir())


def perceptual_file():
    """The tabletop's perceptual network, for a base that is scored with it and trains none (real frames have no labels)."""
    needed = PARAMS.metrics.lpips == "tabletop" and not PARAMS.base_training.perceptual_steps
    return ["assets/tabletop_base/perceptual.safetensors"] if needed and not IN_ARCHIVE else []


def rollouts_of(wildcards):
    """The rollouts that a model's scores need, one file for each seed."""
    return expand("data/rollouts/{model}/seed-{seed}.safetensors", model=wildcards.model, seed=SEEDS)


def checkpoints_of(wildcards):
    """The folders that a model is loaded from: its checkpoint, and the base that its adapter was trained on."""
    model = REGISTRY[wildcards.model]
    return [f"checkpoints/{name}" for name in dict.fromkeys((model.checkpoint, model.base))]


def one_of(names):
    """A wildcard's constraint: one of `names`, nothing else."""
    return "|".join(names) or "(?!)"


wildcard_constraints:
    shard=r"\d+",
    seed=r"-?\d+",
    own_base=one_of(REGISTRY.bases),
    model=one_of(ROLLED_OUT),

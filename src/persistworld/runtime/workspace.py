"""The paths of the workflow's files, relative to the folder that a stage runs in. The rules in workflow/rules/ use the same paths."""

from pathlib import Path

DATA = Path("data")
EPISODES = DATA / "episodes"  # written by the stage `episodes`, read by the others
LATENTS = DATA / "latents"  # shard-I.safetensors and .json
MANIFEST = DATA / "manifest.json"
TRUTH = DATA / "truth"  # the evaluation episodes' frames, recorded and decoded
ABLATION_TRUTH = DATA / "ablation_truth"
MASKS = DATA / "masks.safetensors"
ROLLOUTS = DATA / "rollouts"
POLICIES = DATA / "policies"  # a folder for each world
POLICIES_REAL = POLICIES / "simulator"

CHECKPOINTS = Path("checkpoints")  # one folder per model
BASE = CHECKPOINTS / "base"
POSE_READER = CHECKPOINTS / "pose_reader"

VOTES = Path("assets/votes.csv")  # people's votes in a preference study; only a header until someone has voted

RESULTS = Path("results")
SCORES = RESULTS / "scores"  # MODEL.parquet
TRAINING = RESULTS / "training"  # RUN.csv
METRICS = RESULTS / "metrics"
TABLES = RESULTS / "tables"
FIGURES = RESULTS / "figures"
ABLATIONS = RESULTS / "ablations"  # AXIS.html
BENCHMARKS = RESULTS / "benchmarks"  # written by Snakemake, one file per job
REPORT = RESULTS / "report.html"
POLICIES_PAGE = RESULTS / "policies.html"
FIDELITY_PAGE = RESULTS / "fidelity.html"
POLICIES_PROGRESS = RESULTS / "policies_progress.csv"  # a row for each rollout, as people's labels

RUNS = Path("runs")  # unfinished work that a later run resumes
LOCKS = RUNS / "locks"  # one file per stage that names the process running it


def rollout_path(model: str, seed: int) -> Path:
    """The path of a model's rollouts for one seed."""
    return ROLLOUTS / model / f"seed-{seed}.safetensors"

"""Where the workflow's files lie, below the folder that a stage runs in. The rules in workflow/rules/ name the same."""

from pathlib import Path

DATA = Path("data")
EPISODES = DATA / "episodes"  # what the stage `episodes` makes and the other stages open
LATENTS = DATA / "latents"  # shard-I.safetensors and .json
MANIFEST = DATA / "manifest.json"
TRUTH = DATA / "truth"  # the evaluation episodes' frames, recorded and decoded
MASKS = DATA / "masks.safetensors"
ROLLOUTS = DATA / "rollouts"

CHECKPOINTS = Path("checkpoints")  # a folder a model
BASE = CHECKPOINTS / "base"

VOTES = Path("assets/votes.csv")  # of people in a preference study; a header alone until there are some

RESULTS = Path("results")
SCORES = RESULTS / "scores"  # MODEL.parquet
TRAINING = RESULTS / "training"  # RUN.csv
METRICS = RESULTS / "metrics"
TABLES = RESULTS / "tables"
FIGURES = RESULTS / "figures"
BENCHMARKS = RESULTS / "benchmarks"  # Snakemake's, a job each
REPORT = RESULTS / "report.html"

RUNS = Path("runs")  # what is resumed after a stop
LOCKS = RUNS / "locks"  # a file a stage: who is at work on it


def rollout_path(model: str, seed: int) -> Path:
    """Where a model's rollouts of one seed lie."""
    return ROLLOUTS / model / f"seed-{seed}.safetensors"

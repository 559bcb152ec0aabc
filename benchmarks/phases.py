"""Seconds per phase of one post-training step (paper 3.3, S1 to S4) at the preset's sizes, with at most GROUPS groups."""

import csv
import dataclasses
import tempfile
from pathlib import Path
from statistics import mean

from benchmarks.materials import Materials, random_episodes
from benchmarks.table import Row, peak_gib
from persistworld.post_training.rewards import RewardModel
from persistworld.post_training.targets import decoded_images
from persistworld.post_training.trainer import Data, train

STEPS = 4  # the first is a warm-up and is not counted
GROUPS = 4  # at most, since the time grows with the number of groups


def rows(materials: Materials, steps: int = STEPS) -> list[Row]:
    """The means of the trainer's log over `steps` steps but the first. Prefix lengths vary, since they are drawn as in a real run."""
    params = materials.params
    settings = dataclasses.replace(params.post_training, steps=steps, groups=min(GROUPS, params.post_training.groups))
    reward_model = RewardModel(
        materials.autoencoder,
        materials.perceptual,
        settings.reward,
        params.episodes.views,
        params.metrics.ssim_window,
        settings.precision,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, episodes = random_episodes(materials, folder)
        data = Data(store, episodes, decoded_images(store, reward_model.decode))
        memory = []

        def run() -> None:
            compute = params.compute.post_training
            train(materials.model, reward_model, data, settings, params.rollout, params.seed, folder / "run", "benchmark", compute)

        if materials.device.type == "cuda":
            memory = [Row("peak memory", peak_gib(run), "GiB", "of all phases")]
        else:
            run()
        with open(folder / "run" / "log.csv", newline="") as file:
            log = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)][1:]
    phases = [name for name in log[0] if name.startswith("seconds_")]
    note = {
        "seconds_prefix": f"mean P {mean(row['prefix_mean'] for row in log):.1f}",
        "seconds_branch": f"{settings.groups} x {settings.candidates} candidates of {settings.branch}",
        "seconds_update": f"{settings.groups * settings.kept} samples, {params.compute.post_training.train_batch} a pass",
    }
    parts = [Row(name.removeprefix("seconds_"), mean(row[name] for row in log), "s", note.get(name, "")) for name in phases]
    note = f"{settings.groups} of {params.post_training.groups} groups; {settings.precision}, {materials.weights} weights"
    return [*parts, Row("step", sum(part.value for part in parts), "s", note), *memory]

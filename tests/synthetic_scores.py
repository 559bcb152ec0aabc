"""A score table with known effects, for the tests of the paper stage."""

from pathlib import Path

import numpy as np
import pandas as pd

from persistworld.evaluation.score_table import COLUMNS, METRICS, PROTOCOLS, REGIONS, write_scores

META = {"lpips_backbone": "tabletop", "convention": "ctrl_world", "ssim_window": 7, "masked_lpips": "multiplied"}
VIEWS = ("exterior_1", "exterior_2", "wrist")
LEVEL = {"ssim": 0.9, "psnr": 25.0, "lpips": 0.05}
GAIN = {"ssim": 0.009, "psnr": 0.5, "lpips": -0.005}  # of a model with effect 1, for every episode
EFFECTS = {"copy_frame": -5.0, "base": 0.0, "teacher_forced": 0.2, "post_trained": 1.0, "autoencoder": 3.0}


def model_frame(model: str, effect: float, episodes: int, frames: int = 57, spread: float = 0.0) -> pd.DataFrame:
    """Scores of one model: level by episode and view, a fall over time, and `effect` gains (+- `spread` by episode)."""
    rng = np.random.default_rng(1)
    seeds = (-1,) if model in ("copy_frame", "autoencoder") else (0, 1)
    axes = [seeds, [3 + 4 * e for e in range(episodes)], range(frames), VIEWS, REGIONS, METRICS, PROTOCOLS]
    index = pd.MultiIndex.from_product(axes, names=["seed", "episode", "frame", "view", "region", "metric", "protocol"])
    table = index.to_frame(index=False)
    base_shift = dict(zip(axes[1], rng.normal(0, 1, episodes), strict=True))  # the same for every model
    own_spread = dict(zip(axes[1], spread * rng.normal(0, 1, episodes), strict=True))
    gain = table["metric"].map(GAIN)
    depth = table["frame"] / max(frames - 1, 1)
    table["value"] = (
        table["metric"].map(LEVEL)
        + gain * (table["episode"].map(base_shift) - 4 * depth + np.where(table["view"] == "wrist", -2, 0))
        + gain * (effect + table["episode"].map(own_spread) * (effect != 0)) * np.where(spread, depth * 2, 1)
        + gain * np.where(table["seed"] == 1, 0.02, 0)
    )
    return table.assign(model=model, chunk=np.maximum(table["frame"] - 1, 0) // 4)[list(COLUMNS)]


def write_synthetic(
    folder: Path, episodes: int = 8, frames: int = 57, spread: float = 0.0, **more: float
) -> list[Path]:
    """Write one parquet file a model (EFFECTS and `more`: name -> effect) and return the paths."""
    paths = []
    for model, effect in {**EFFECTS, **more}.items():
        paths.append(folder / f"{model}.parquet")
        empty = {f"object.{view}": 2 if view == "wrist" else 0 for view in VIEWS}
        write_scores(paths[-1], model_frame(model, effect, episodes, frames, spread), {**META, "empty_masks": empty})
    return paths

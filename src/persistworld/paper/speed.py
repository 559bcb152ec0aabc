"""Quality against speed: the scores of rollouts with few and many sampler steps, the seconds of a chunk, and the Pareto plot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persistworld.config.models import Models
from persistworld.evaluation.score_table import METRICS, Cells, Scores, cell_values, episode_cells
from persistworld.evaluation.statistics import LOWER_IS_BETTER, Interval, bootstrap_mean, wilcoxon
from persistworld.paper.blocks import DIGITS, Block, Entry
from persistworld.paper.cells import rounded
from persistworld.paper.notes import PROTOCOLS, Settings, metrics_note, short_note
from persistworld.paper.ranking import ALPHA
from persistworld.paper.style import ARROWS, GRID, METRIC_NAMES, figure, save, title_and_note
from persistworld.paper.table_latex import latex_page
from persistworld.paper.tables import markdown_page, write_text
from persistworld.runtime.files import write_json

TITLE = "Speed against quality: sampler steps"
SHOWN = ("psnr", "lpips")  # in the Pareto plot
Setting = tuple[str, int]  # model, sampler steps


@dataclass(frozen=True)
class Point:
    """One model with one number of sampler steps: (group, metric) -> mean and interval over episodes; seconds of a chunk of one rollout."""

    cells: dict[tuple[str, str], Interval]
    gains: frozenset[tuple[str, str]]  # where it is better than the base with as many steps (Wilcoxon's test over episodes)
    seconds: float


def speed_points(runs: Mapping[Setting, str], seconds: Mapping[Setting, float], scores: Scores, settings: Settings) -> dict[Setting, Point]:
    """runs: (model, steps) -> its model in the score table. Full frames, headline protocol."""
    cells, points = episode_cells(scores.frame), {}
    for (model, steps), run in runs.items():
        found, gains = {}, set()
        for group in scores.groups:
            for metric in METRICS:
                own = cell_values(cells, settings.protocol, run, group, "full", metric)
                found[group, metric] = bootstrap_mean(own, settings.bootstrap, settings.confidence, settings.seed)
                if model != "base" and ("base", steps) in runs and _better(cells, settings, run, runs["base", steps], group, metric):
                    gains.add((group, metric))
        points[model, steps] = Point(found, frozenset(gains), seconds[model, steps])
    return points


def _better(cells: Cells, settings: Settings, ours: str, theirs: str, group: str, metric: str) -> bool:
    mine, other = (cell_values(cells, settings.protocol, model, group, "full", metric) for model in (ours, theirs))
    gain = (mine - other).to_numpy() * (-1 if metric in LOWER_IS_BETTER else 1)
    return bool(np.mean(gain) > 0 and wilcoxon(gain) < ALPHA)


def write_speed(
    points: Mapping[Setting, Point], models: Models, scores: Scores, settings: Settings, device: str, tables: Path, metrics: Path
) -> tuple[list[Block], list[str]]:
    """Write speed.{csv,md,tex} and speed.json; returns the printed table and its notes. device: what the seconds were measured on."""
    groups, rows = list(scores.groups), []
    for (model, steps), point in points.items():
        entries = []
        for (group, metric), interval in point.cells.items():
            digits = DIGITS[metric]
            ends = f"{interval.low:.{digits}f}, {interval.high:.{digits}f}"
            entries.append(Entry(f"{interval.mean:.{digits}f}", ends, best=(group, metric) in point.gains))
        rows.append((f"{models[model].label}, {steps}", [*entries, Entry(f"{point.seconds:.3g}")]))
    caption = f"This run ({settings.scale}), against {PROTOCOLS[settings.protocol]}"
    blocks = [Block(caption, groups, rows, ("Seconds per chunk",), "Model, sampler steps")]
    notes = [
        f"Seconds are those of one chunk of one rollout, on {device}. Rows differ in the sampler of the rollouts alone.",
        f"Bold: better than the base with as many steps (p < {ALPHA:g}, Wilcoxon's paired test over {scores.frame['episode'].nunique()} "
        f"episodes). Brackets: {settings.confidence:.0%} bootstrap interval over episodes.",
        metrics_note(scores.meta),
    ]
    write_text(tables / "speed.csv", _long(points).to_csv(index=False, float_format="%.6g"))
    write_text(tables / "speed.md", markdown_page(TITLE, blocks, notes, settings))
    write_text(tables / "speed.tex", latex_page("speed", TITLE, blocks, notes, settings.scale))
    write_json(metrics / "speed.json", _json(points))
    return blocks, notes


def pareto_figure(points: Mapping[Setting, Point], models: Models, scores: Scores, settings: Settings, folder: Path) -> None:
    """Write speed.{png,pdf}: quality over seconds per chunk, one line per model; the numbers at the points are sampler steps."""
    groups = scores.groups
    with figure(len(SHOWN), len(groups), 4.4 * len(groups), 6.2) as (fig, axes):
        for row, metric in zip(axes, SHOWN, strict=True):
            for ax, group in zip(row, groups, strict=True):
                for name in dict.fromkeys(model for model, _ in points):
                    own = {steps: point for (model, steps), point in sorted(points.items()) if model == name}
                    place = [[point.seconds for point in own.values()], [point.cells[group, metric].mean for point in own.values()]]
                    ax.plot(*place, marker="o", markersize=4, color=models[name].colour, label=models[name].label)
                    for steps, x, y in zip(own, *place, strict=True):
                        ax.annotate(str(steps), (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
                ax.set_xscale("log")
                ax.set_xlabel("Seconds per chunk")
                ax.set_title(f"{group} {METRIC_NAMES[metric]} {ARROWS[metric]}")
                ax.grid(color=GRID, linewidth=0.6)
        axes[0][0].legend(fontsize=8)
        fig.tight_layout(rect=(0, 0.05, 1, 0.95))
        title_and_note(fig, TITLE, f"{short_note(scores, settings)}  ·  numbers: sampler steps")
        save(fig, folder, "speed")


def _json(points: Mapping[Setting, Point]) -> dict[str, Any]:
    """{model: {steps_N: {view: {metric: mean}, seconds_per_chunk}}}."""
    tree: dict[str, Any] = {}
    for (model, steps), point in points.items():
        place = tree.setdefault(model, {}).setdefault(f"steps_{steps}", {})
        for (group, metric), interval in point.cells.items():
            place.setdefault(group, {})[metric] = rounded(interval.mean)
        place["seconds_per_chunk"] = float(f"{point.seconds:.3g}")
    return tree


def _long(points: Mapping[Setting, Point]) -> pd.DataFrame:
    return pd.DataFrame(
        {"model": model, "steps": steps, "seconds_per_chunk": point.seconds, "view": group, "metric": metric,
         "value": interval.mean, "low": interval.low, "high": interval.high, "better_than_base": (group, metric) in point.gains}
        for (model, steps), point in points.items() for (group, metric), interval in point.cells.items()
    )  # fmt: skip

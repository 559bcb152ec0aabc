"""Draws Figure 4 (paired differences) and Figures 5 and 11 (metrics over the rollout) from the score table."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from persistworld.config.models import OURS, THEIRS
from persistworld.evaluation.score_table import METRICS, Scores, cell_values, closest_group, curve_values, episode_cells
from persistworld.evaluation.statistics import LOWER_IS_BETTER
from persistworld.paper.bands import mean_with_band
from persistworld.paper.blocks import p_text
from persistworld.paper.cells import compare
from persistworld.paper.notes import Settings, short_note
from persistworld.paper.style import ARROWS, GRID, INK, METRIC_NAMES, figure, save, title_and_note

OVER_TIME = ("figure_5", "figure_11")  # Figure 5: the view that sees the gripper; Figure 11: the first other view


def figure_4(
    scores: Scores, settings: Settings, folder: Path, ours: str = OURS, theirs: str = THEIRS
) -> None:
    """The sorted gains of `ours` over `theirs` per episode, with win rate, sign test and Wilcoxon's test. One panel per view and metric."""
    values = episode_cells(scores.frame)
    options = (settings.bootstrap, settings.confidence, settings.seed)
    groups, better, worse = scores.groups, settings.models[ours], settings.models[theirs]
    with figure(len(groups), len(METRICS), 9.2, 0.8 + 2.1 * len(groups)) as (fig, axes):
        for row, group in zip(axes, groups, strict=True):
            for ax, metric in zip(row, METRICS, strict=True):
                found = compare(values, settings.protocol, ours, theirs, group, "full", metric, *options)
                mine, other = (cell_values(values, settings.protocol, m, group, "full", metric) for m in (ours, theirs))
                common = mine.index.intersection(other.index)
                gain = np.sort((mine[common] - other[common]).to_numpy() * (-1 if metric in LOWER_IS_BETTER else 1))
                _waterfall(ax, gain, better.colour, worse.colour)
                ax.set_title(f"{group.capitalize()} {METRIC_NAMES[metric]}")
                if found is not None:
                    ax.text(
                        0.03, 0.97,
                        f"{found.win_rate:.0%} of {found.episodes} episodes better\n"
                        f"Wilcoxon p {p_text(found.wilcoxon_p)}, sign test p {p_text(found.sign_p)}",
                        transform=ax.transAxes, va="top", fontsize=7.5,
                    )  # fmt: skip
        for row in axes:
            row[0].set_ylabel(f"Gain over {worse.label.lower()}")
        for ax in axes[-1]:
            ax.set_xlabel("Episodes, sorted by gain")
        fig.tight_layout(rect=(0, 0.03, 1, 0.95), h_pad=1.4)
        pair = f"{better.label.lower()} over {worse.label.lower()}"
        what = f"Figure 4. Paired by episode: {pair}, full frame (up is better)"
        title_and_note(fig, what, f"{short_note(scores, settings)}  ·  dashed: mean")
        save(fig, folder, "figure_4")


def _waterfall(ax: Axes, gain: np.ndarray, better: str, worse: str) -> None:
    """Draw sorted bars around zero and the mean as a dashed line. Leave room for two lines of text on top."""
    ax.bar(np.arange(len(gain)), gain, width=0.82, color=np.where(gain > 0, better, worse))
    ax.axhline(0, color=INK, linewidth=0.7)
    if len(gain):
        ax.axhline(gain.mean(), color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        low, high = min(gain.min(), 0), max(gain.max(), 0)
        span = (high - low) or 1.0
        ax.set_ylim(low - 0.06 * span, high + 0.42 * span)
    ax.set_xticks([])
    ax.ticklabel_format(axis="y", scilimits=(-3, 4))


def over_time(groups: tuple[str, ...]) -> dict[str, str]:
    """Figure name -> the group of views that it shows. In the paper these are wrist and external. With one group, both show it."""
    closest = closest_group(groups)
    return dict(zip(OVER_TIME, (closest, next((g for g in groups if g != closest), closest)), strict=True))


def figure_over_time(scores: Scores, settings: Settings, folder: Path, name: str, fps: float) -> None:
    """Figure 5 or 11: each metric over the rollout (top) and its difference from base (bottom), with bootstrap bands.

    In the top row, the bands of the models overlap because episodes differ. The differences below are paired, so their bands show the
    uncertainty of the comparison.
    """
    group = over_time(scores.groups)[name]
    curves = curve_values(scores.frame[scores.frame["region"] == "full"])
    curves = curves[(curves["protocol"] == settings.protocol) & (curves["group"] == group)]
    known = settings.models
    models = [m for m in known.ordered(scores.models) if known[m].role != "ceiling" or settings.protocol == "raw"]
    trained = known.of_role(models, "control", "post_trained", "variant")
    with figure(2, len(METRICS), 9.2, 4.9, sharex=True, height_ratios=(1.5, 1)) as (fig, axes):
        for top, bottom, metric in zip(axes[0], axes[1], METRICS, strict=True):
            tables = {m: _by_frame(curves, m, metric) for m in models}
            shown = {m: t for m, t in tables.items() if not t.empty}
            for model, table in shown.items():
                mean_with_band(top, table.columns.to_numpy() / fps, table.to_numpy(), model, settings)
            _limits(top, [t.mean(axis=0) for m, t in shown.items() if known[m].checkpoint])
            top.set_title(f"{METRIC_NAMES[metric]} {ARROWS[metric]}")
            for model in trained:
                if model in shown and "base" in shown:
                    common = shown[model].index.intersection(shown["base"].index)
                    difference = shown[model].loc[common] - shown["base"].loc[common]
                    mean_with_band(bottom, difference.columns.to_numpy() / fps, difference.to_numpy(), model, settings)
            bottom.axhline(0, color=known["base"].colour, linewidth=1.2)
            bottom.set_xlabel("Time in the rollout (s)")
        axes[0][0].set_ylabel("Mean over episodes")
        axes[1][0].set_ylabel("Difference from base")
        for ax in axes.flat:
            ax.grid(axis="y", color=GRID, linewidth=0.6)
            ax.margins(x=0)
        handles, labels = axes[0][0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="upper right", ncols=len(labels), bbox_to_anchor=(0.995, 0.945), fontsize=8)
        fig.tight_layout(rect=(0, 0.055, 1, 0.9), h_pad=1.0)
        number = name.removeprefix("figure_")
        band = f"bands: {settings.confidence:.0%} bootstrap interval over episodes"
        cut = "  ·  the copied frame is not shown where it is below the axes" if "copy_frame" in models else ""
        title_and_note(
            fig, f"Figure {number}. {group.capitalize()} view over the rollout",
            f"{short_note(scores, settings)}\n{band}; lower row: paired differences{cut}",
        )  # fmt: skip
        save(fig, folder, name)


def _by_frame(curves: pd.DataFrame, model: str, metric: str) -> pd.DataFrame:
    """(episodes, frames) of one model and metric."""
    chosen = curves[(curves["model"] == model) & (curves["metric"] == metric)]
    return chosen.pivot(index="episode", columns="frame", values="value")


def _limits(ax: Axes, curves: list[pd.Series]) -> None:
    """Fit the axes to the world models' curves; baselines may leave the axes. Frame 0 (the given frame, generated again) is ignored."""
    if curves:
        late = pd.concat([curve[curve.index > 0] for curve in curves])
        low, high = late.min(), late.max()
        margin = 0.12 * ((high - low) or 1.0)
        ax.set_ylim(low - margin, high + margin)

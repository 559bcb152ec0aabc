"""Draws the curves of one ablation: the training's reward and distance from the base, and the held-out gain over the rollout."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from persistworld.evaluation.score_table import Scores, curve_values
from persistworld.evaluation.statistics import LOWER_IS_BETTER
from persistworld.paper.notes import Settings, short_note
from persistworld.paper.style import GRID, METRIC_NAMES, MUTED, figure, save, title_and_note
from persistworld.paper.training_plot import SHADES

SHOWN = ("psnr", "lpips")


def curves_figure(
    title: str, runs: Mapping[str, Sequence[str]], logs: Mapping[str, pd.DataFrame], base: str, scores: Scores, settings: Settings,
    folder: Path, name: str,
) -> None:  # fmt: skip
    """Write `folder`/`name`.{png,pdf}. runs: label of a row -> its models, one per training seed; logs: by model.

    Every line is one training; rows differ in colour. The held-out gain is positive where a row is better than the base.
    """
    groups = scores.groups
    curves = curve_values(scores.frame)
    curves = curves[(curves["protocol"] == settings.protocol) & (curves["region"] == "full")]
    means = curves.groupby(["model", "group", "metric", "frame"], observed=True)["value"].mean()
    with figure(2, 1 + len(groups), 4.0 * (1 + len(groups)), 5.6) as (fig, axes):
        for (label, models), shade in zip(runs.items(), SHADES * len(runs), strict=False):
            for number, model in enumerate(models):
                named = label if number == 0 else None
                if model in logs:
                    log = logs[model]
                    reward = _smooth(log["reward_mean"])
                    axes[0][0].plot(log.index, reward - reward.iloc[0], color=shade, linewidth=1.2, label=named)
                    axes[1][0].plot(log.index, _smooth(log["drift_base"]), color=shade, linewidth=1.2)
                for column, group in enumerate(groups, 1):
                    for ax, metric in zip((axes[0][column], axes[1][column]), SHOWN, strict=True):
                        gain = means[model, group, metric] - means[base, group, metric]
                        sign = -1 if metric in LOWER_IS_BETTER else 1
                        ax.plot(gain.index, sign * gain, color=shade, linewidth=1.2, label=named)
        _finish(axes[0][0], "Reward: change since the first steps", "Step")
        _finish(axes[1][0], "Distance of predictions from the base's", "Step")
        for column, group in enumerate(groups, 1):
            for row, metric in enumerate(SHOWN):
                _finish(axes[row][column], f"Held out: {group} {METRIC_NAMES[metric]}, gain over base", "Frame of the rollout")
        handles, labels = axes[0][1].get_legend_handles_labels()
        fig.tight_layout(rect=(0, 0.1, 1, 0.95))
        fig.legend(handles, labels, loc="lower center", ncols=min(6, len(labels)), fontsize=8, bbox_to_anchor=(0.5, 0.035))
        title_and_note(fig, title, f"{short_note(scores, settings)}  ·  one line per training seed; reward and distance: running means")
        save(fig, folder, name)


def _smooth(values: pd.Series) -> pd.Series:
    """The running mean over a tenth of the run."""
    return values.rolling(max(1, len(values) // 10), min_periods=1).mean()


def _finish(ax: Axes, title: str, below: str) -> None:
    ax.set_title(title)
    ax.set_xlabel(below)
    ax.axhline(0, color=MUTED, linewidth=0.6)
    ax.grid(axis="y", color=GRID, linewidth=0.6)

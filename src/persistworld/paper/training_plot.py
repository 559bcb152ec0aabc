"""Draws training curves from results/training/*.csv: every number that a trainer logs per step, one panel per kind of number."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from persistworld.paper.style import GRID, INK, figure, save, title_and_note
from persistworld.runtime.errors import UserError

KINDS = {  # panel title -> what the column's name contains; a name that fits several (seconds_reward) belongs to the last
    "Reward": "reward",
    "Loss": "loss",
    "Gradient norm": "grad",
    "Drift from old and base": "drift",
    "Seconds per step and phase": "second",
}
SHADES = (INK, "#009E73", "#D55E00", "#0072B2", "#AA4499", "#E69F00", "#56B4E9", "#8A8A8A")


def read_training(path: Path) -> pd.DataFrame:
    """Read a run's log, indexed by step. Raises UserError if it has no 'step' column or no rows."""
    try:
        log = pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: no readable training log ({error}); run the stage that trains {path.stem}") from None
    if "step" not in log or log.empty:
        raise UserError(f"{path}: expected a 'step' column and at least one row; run the stage that trains {path.stem}")
    return log.set_index("step").select_dtypes("number")


def training_figure(logs: dict[str, pd.DataFrame], folder: Path, note: str) -> None:
    """Draw one row of panels per run: every step as a faint line, the running mean over a twentieth of the run as a strong line."""
    panels = {name: panels_of(log) for name, log in logs.items()}
    columns = max(len(found) for found in panels.values())
    with figure(len(logs), columns, 2.9 * columns, 2.5 * len(logs) + 0.7) as (fig, axes):
        for row, (name, found) in zip(axes, panels.items(), strict=True):
            for ax, (title, names) in zip(row, found.items(), strict=False):
                _panel(ax, logs[name], names)
                ax.set_title(title)
            for ax in row[len(found) :]:
                ax.axis("off")
            row[0].set_ylabel(name.replace("_", " "))
        edge = 0.45 / fig.get_figheight()
        fig.tight_layout(rect=(0, 0.6 * edge, 1, 1 - 0.8 * edge))
        title_and_note(fig, "Training curves", f"{note}  ·  faint: every step, strong: running mean")
        save(fig, folder, "training")


def panels_of(log: pd.DataFrame) -> dict[str, list[str]]:
    """Panel title -> columns of the log. A column is in one panel at most. A log of no known kind gets one panel of its first columns."""
    found: dict[str, list[str]] = {title: [] for title in KINDS}
    for column in log.columns:
        if fitting := [title for title, key in KINDS.items() if key in column.lower()]:
            found[fitting[-1]].append(column)
    return {title: names for title, names in found.items() if names} or {"Logged": list(log.columns[:6])}


def _panel(ax: Axes, log: pd.DataFrame, names: list[str]) -> None:
    window = max(1, len(log) // 20)
    common = _common_prefix(names)
    for name, shade in zip(names, SHADES * (len(names) // len(SHADES) + 1), strict=False):
        smooth = log[name].rolling(window, min_periods=1, center=True).mean()
        ax.plot(log.index, log[name], color=shade, linewidth=0.5, alpha=0.22)
        ax.plot(
            log.index, smooth, color=shade, linewidth=1.4, label=name.removeprefix(common).replace("_", " ") or name
        )
    low, high = np.nanquantile(log[names].to_numpy(), [0.01, 0.99])
    margin = 0.08 * ((high - low) or 1.0)
    room = 0.12 * len(names) * ((high - low) or 1.0) if len(names) > 1 else 0.0  # for the legend
    ax.set_ylim(low - margin, high + margin + room)
    ax.set_xlabel("Step")
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    if len(names) > 1:
        ax.legend(loc="upper right", ncols=2, fontsize=6.5, handlelength=1.2, labelspacing=0.25)


def _common_prefix(names: list[str]) -> str:
    first = names[0].split("_")[0] + "_"
    return first if len(names) > 1 and all(name.startswith(first) for name in names) else ""

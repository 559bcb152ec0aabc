"""Figure 8: progress of the policies in reality and in each world model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from persistworld.config.models import Models
from persistworld.paper.style import GRID, INK, MUTED, figure, save, title_and_note

MARKERS = "osD^vP"  # of the tasks
OUTLINE = withStroke(linewidth=2, foreground="white")  # keeps names legible where they cross an interval


def figure_8(numbers: Mapping[str, Any], worlds: Sequence[str], tasks: Mapping[str, str], models: Models, note: str, folder: Path) -> None:
    """Draw a panel for each world model. numbers: results/metrics/policies.json; tasks: name -> label."""
    with figure(1, len(worlds), 4.4 * len(worlds) + 0.2, 4.9, sharey=True) as (fig, axes):
        for ax, world in zip(axes[0], worlds, strict=True):
            _panel(ax, numbers, world, list(tasks), models)
        axes[0][0].set_ylabel("Progress in the world model")
        handles = [axes[0][0].plot([], [], marker, color=MUTED, markersize=4)[0] for marker in MARKERS[: len(tasks)]]
        handles.append(axes[0][0].plot([], [], "o", color=INK, markersize=7)[0])
        labels = [*tasks.values(), "mean of the tasks"]
        fig.legend(handles, labels, loc="lower center", ncols=len(handles), bbox_to_anchor=(0.5, 0.05), fontsize=8)
        fig.tight_layout(rect=(0, 0.12, 1, 0.93))
        title_and_note(fig, "Figure 8. World model and reality", note)
        save(fig, folder, "figure_8")


def _panel(ax: Axes, numbers: Mapping[str, Any], world: str, tasks: Sequence[str], models: Models) -> None:
    real, other, found = numbers["progress"]["real"], numbers["progress"][world], numbers["agreement"][world]
    colour = models[world].colour if world in models else INK
    ax.plot([0, 1], [0, 1], color=GRID, linewidth=1, zorder=0)
    for policy, own in real.items():
        for task, marker in zip(tasks, MARKERS, strict=False):
            if own.get(task) is not None and other[policy].get(task) is not None:
                ax.plot(own[task], other[policy][task], marker, color=colour, alpha=0.3, markersize=4)
        x, y = own["all"], other[policy]["all"]
        if x["mean"] is None or y["mean"] is None:
            continue
        ax.plot([x["low"], x["high"]], [y["mean"]] * 2, color=colour, linewidth=0.9)
        ax.plot([x["mean"]] * 2, [y["low"], y["high"]], color=colour, linewidth=0.9)
        ax.plot(x["mean"], y["mean"], "o", color=colour, markersize=6.5, zorder=6)  # above the names' outlines
        right = x["mean"] > 0.75
        ax.annotate(policy.replace("_", " "), (x["mean"], y["mean"]), (-5 if right else 5, 5 if right else -9), textcoords="offset points",
                    fontsize=6.5, color=INK, ha="right" if right else "left", path_effects=[OUTLINE], zorder=5)  # fmt: skip
    r, mmrv, inner = found["pearson"], found["mmrv"], found["without_extremes"]["pearson"]
    lines = [f"r = {_text(r)}", f"MMRV = {_text(mmrv)}", f"r without extremes = {_text(inner)}"]
    ax.text(0.02, 0.98, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=8, color=INK)
    ax.set(title=models[world].label if world in models else world, xlabel="Real progress", xlim=(-0.04, 1.04), ylim=(-0.04, 1.22))
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def _text(found: Mapping[str, float | None]) -> str:
    if found["mean"] is None:
        return "–"
    return f"{found['mean']:.2f}" + ("" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]")

"""The common style of all figures: fonts, greys, saving as png and pdf. The models' colours are in config/models.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persistworld.runtime.files import atomic_path

INK, MUTED, GRID = "#222222", "#6B6B6B", "#E3E3E3"
METRIC_NAMES = {"ssim": "SSIM", "psnr": "PSNR (dB)", "lpips": "LPIPS"}
ARROWS = {"ssim": "↑", "psnr": "↑", "lpips": "↓"}
RC = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "axes.titlesize": 9.5, "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED, "axes.linewidth": 0.7,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left", "legend.frameon": False,
    "figure.dpi": 100, "savefig.dpi": 220, "pdf.fonttype": 42, "svg.hashsalt": "persistworld",
}  # fmt: skip


@contextmanager
def figure(
    rows: int, columns: int, width: float, height: float, **options
) -> Iterator[tuple[Figure, list[list[Axes]]]]:
    """A figure in the common style with a grid of axes. It is closed afterwards. Sizes are in inches."""
    with plt.rc_context(RC):
        fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)
        try:
            yield fig, axes
        finally:
            plt.close(fig)


def title_and_note(fig: Figure, title: str, note: str) -> None:
    """Add a title above the axes and a note below them, both outside the layout area."""
    inch = 1 / fig.get_figheight()
    fig.suptitle(title, x=0.012, ha="left", y=1 - 0.08 * inch, va="top", fontsize=11, fontweight="bold")
    fig.text(0.012, 0.06 * inch, note, ha="left", va="bottom", fontsize=7, color=MUTED)


def save(fig: Figure, folder: Path, name: str) -> None:
    """Write `folder`/`name`.png and .pdf. The same figure gives the same bytes."""
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None}}
    for suffix, metadata in undated.items():
        with atomic_path(folder / f"{name}.{suffix}") as part:
            fig.savefig(part, metadata=metadata)

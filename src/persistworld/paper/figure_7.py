"""Figure 7: initial states of the tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from persistworld.paper.style import MUTED, figure, save, title_and_note

SHOWN = 4  # states of a task


def figure_7(pictures: Mapping[str, Sequence[np.ndarray]], note: str, folder: Path) -> None:
    """Draw a row for each task. pictures: the task's label -> pictures (h, w, 3) uint8 of some of its initial states, maybe none."""
    columns = max(1, *(min(SHOWN, len(shown)) for shown in pictures.values()))
    sizes = [picture.shape for shown in pictures.values() for picture in shown] or [(3, 4, 3)]
    width = 9.2
    height = 0.9 + len(pictures) * (0.28 + (width / columns) * sizes[0][0] / sizes[0][1])
    with figure(len(pictures), columns, width, height) as (fig, axes):
        for row, (label, shown) in zip(axes, pictures.items(), strict=True):
            for ax, picture in zip(row, shown, strict=False):
                ax.imshow(picture, interpolation="nearest")
            for ax in row:
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            row[0].set_title(label)
            if not len(shown):
                row[0].text(0.5, 0.5, "no picture: policies.tasks.NAME.picture", ha="center", color=MUTED, transform=row[0].transAxes)
        fig.tight_layout(rect=(0, 0.25 / height, 1, 1 - 0.3 / height))
        title_and_note(fig, "Figure 7. Initial states of the tasks", note)
        save(fig, folder, "figure_7")

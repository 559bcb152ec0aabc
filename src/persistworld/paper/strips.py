"""Figure 3: film strips of one view (the wrist if there is one), centred on object or robot. Rows: ground truth, base, ours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persistworld.config.models import GROUND_TRUTH_COLOUR, Model
from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT
from persistworld.paper.media import Media
from persistworld.paper.style import MUTED, figure, save, title_and_note

CROP_HEIGHT, CROP_WIDTH = 0.7, 0.56  # fractions of the frame
REGION_CLASS = {"object": MANIPULATED_OBJECT, "robot": ROBOT}


@dataclass(frozen=True)
class Strip:
    """One block of the figure: an episode, what the crops are centred on (object, robot, or full: not cropped), and why it was chosen."""

    media: Media
    region: str
    rule: str  # how the episode was chosen


def figure_3(
    strips: list[Strip], models: list[Model], frames: int, fps: float, note: str, folder: Path, view: str
) -> None:
    """Draw one block per strip for one `view`: rows are ground truth and `models`, `frames` columns are evenly spaced over the rollout."""
    rows_each = 1 + len(models)
    crop = _crop_size(strips[0])
    cell_width = 8.3 / frames
    cell_height = cell_width * crop[0] / crop[1]
    gap, head, foot, left = 0.5, 0.75, 0.36, 1.08
    height = head + len(strips) * rows_each * (cell_height + 0.03) + (len(strips) - 1) * gap + foot
    width = left + 8.3
    with figure(len(strips) * rows_each, frames, width, height) as (fig, axes):
        for s, strip in enumerate(strips):
            times = np.linspace(0, len(strip.media.truth) - 1, frames).round().astype(int)
            films = [("Ground truth", GROUND_TRUTH_COLOUR, strip.media.truth)]
            films += [(model.label, model.colour, strip.media.generated[model.name]) for model in models]
            v = strip.media.views.index(view)
            centres = mask_centres(strip.media, v, strip.region)
            top = height - head - s * (rows_each * (cell_height + 0.03) + gap)
            fig.text(0.012, (top + 0.2) / height, f"{_title(strip)}", fontsize=9, fontweight="bold", va="bottom")
            fig.text(0.995, (top + 0.2) / height, strip.rule, fontsize=7, color=MUTED, va="bottom", ha="right")
            for r, (name, colour, film) in enumerate(films):
                bottom = top - (r + 1) * cell_height - r * 0.03
                fig.text(
                    (left - 0.08) / width, (bottom + cell_height / 2) / height, name, color=colour,
                    fontsize=8.5, fontweight="bold", ha="right", va="center",
                )  # fmt: skip
                for c, t in enumerate(times):
                    ax = axes[s * rows_each + r][c]
                    place = (
                        (left + c * cell_width) / width,
                        bottom / height,
                        (cell_width - 0.03) / width,
                        cell_height / height,
                    )
                    ax.set_position(place)
                    ax.imshow(cut(film[t, v], centres[t], crop), interpolation="bicubic", aspect="auto")
                    ax.set(xticks=[], yticks=[])
                    ax.spines[:].set_visible(False)
                    if r == 0:
                        ax.set_title(f"{t / fps:.1f} s", fontsize=7, color=MUTED, loc="center", pad=2)
        title_and_note(fig, f"Figure 3. {view.capitalize().replace('_', ' ')} view, generated on its own outputs", note)
        save(fig, folder, "figure_3")


def mask_centres(media: Media, view: int, region: str) -> np.ndarray:
    """(T, 2) row and column of the crops' centres: the centroid of the ground-truth mask, from the nearest frame that has a mask.

    If no frame has a mask, the middle of the frame.
    """
    frames, _, height, width, _ = media.truth.shape
    centres = np.full((frames, 2), (height / 2, width / 2))
    if media.masks is None or region not in REGION_CLASS:
        return centres
    found = {}
    for t in range(frames):
        pixels = np.argwhere(media.masks[t, view] == REGION_CLASS[region])
        if len(pixels):
            found[t] = pixels.mean(axis=0)
    if found:
        have = np.array(sorted(found))
        for t in range(frames):
            centres[t] = found[have[np.abs(have - t).argmin()]]
    return centres


def cut(picture: np.ndarray, centre: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A crop of the picture (H, W, 3) of `size` around `centre`, shifted to lie inside the picture."""
    starts = [
        int(np.clip(round(c - s / 2), 0, limit - s))
        for c, s, limit in zip(centre, size, picture.shape[:2], strict=True)
    ]
    return picture[starts[0] : starts[0] + size[0], starts[1] : starts[1] + size[1]]


def _crop_size(strip: Strip) -> tuple[int, int]:
    height, width = strip.media.truth.shape[2:4]
    if strip.region not in REGION_CLASS:
        return height, width
    return round(height * CROP_HEIGHT), round(width * CROP_WIDTH)


def _title(strip: Strip) -> str:
    centred = "Whole frame" if strip.region not in REGION_CLASS else f"{strip.region.capitalize()}-centred"
    return f'{centred}: "{strip.media.instruction}"' if strip.media.instruction else centred

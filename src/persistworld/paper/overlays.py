"""Draws masks over the recorded frames for the report, so that a person can check them."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT
from persistworld.paper.media import Media

CLASSES = {"robot": (ROBOT, "#0072B2"), "object": (MANIPULATED_OBJECT, "#E69F00")}  # name -> (label in the mask, colour)
FILL = 0.45  # opacity of the tint inside the outline
CELL_WIDTH, GAP, BAR, SIDE = 200, 4, 20, 84  # pixels: frame width, gap between frames, height of the time bar, width of the view names


def overlay(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The frame (H, W, 3) uint8 with each class of `labels` (H, W) tinted and outlined in its colour."""
    result = picture.astype(np.float32)
    for label, colour in CLASSES.values():
        inside = labels == label
        tint = np.array(Image.new("RGB", (1, 1), colour), np.float32)[0, 0]
        result[inside] = (1 - FILL) * result[inside] + FILL * tint
        result[inside & ~_inner(inside)] = tint
    return result.round().astype(np.uint8)


def mask_sheet(media: Media, frames: int, fps: float) -> bytes:
    """A JPEG of `media`'s recorded frames with their masks: one row per view, `frames` columns evenly spaced in time.

    `media.masks` must not be None.
    """
    times = np.linspace(0, len(media.truth) - 1, frames).round().astype(int)
    _, views, height, width, _ = media.truth.shape
    cell = (CELL_WIDTH, max(1, round(CELL_WIDTH * height / width)))
    canvas = Image.new("RGB", (SIDE + frames * (cell[0] + GAP), BAR + views * (cell[1] + GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for v, view in enumerate(media.views):
        top = BAR + v * (cell[1] + GAP)
        draw.text((2, top + cell[1] / 2), view.replace("_", " "), fill="black", font=font, anchor="lm")
        for c, t in enumerate(times):
            left = SIDE + c * (cell[0] + GAP)
            picture = np.asarray(Image.fromarray(media.truth[t, v]).resize(cell, Image.Resampling.BICUBIC))
            labels = np.asarray(Image.fromarray(media.masks[t, v]).resize(cell, Image.Resampling.NEAREST))
            canvas.paste(Image.fromarray(overlay(picture, labels)), (left, top))
            if v == 0:
                draw.text((left, BAR / 2), f"{t / fps:.1f} s", fill="black", font=font, anchor="lm")
    buffer = io.BytesIO()
    canvas.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def empty_text(media: Media) -> str:
    """Text for the caption: in how many frames a view shows no robot or no object."""
    counts = []
    for name, (label, _) in CLASSES.items():
        empty = ~(media.masks == label).any(axis=(2, 3))
        counts += [f"no {name} in {view.replace('_', ' ')}: {n}" for view, n in zip(media.views, empty.sum(0), strict=True) if n]
    return f"of {len(media.masks)} frames, " + (", ".join(counts) or "none has an empty mask")


def _inner(mask: np.ndarray) -> np.ndarray:
    """The mask's pixels whose four neighbours are also in the mask. Pixels beyond the frame's edge count as in the mask."""
    padded = np.pad(mask, 1, mode="edge")
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]

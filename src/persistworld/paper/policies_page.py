"""Renders results/policies.html: Table 12, Figures 7 and 8, and strips of rollouts where world model and reality part."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from persistworld.paper.pages import write_page
from persistworld.paper.parts import Part
from persistworld.paper.table_12 import TITLE

ZOOM, LABEL, GAP = 2, 110, 4  # enlargement of a picture; pixels of a row's label and between rows


@dataclass(frozen=True)
class Parting:
    """A rollout that went on differently in a world model: its caption, and for each world the pictures (C, h, w, 3) uint8."""

    caption: str
    films: Mapping[str, np.ndarray]


def strip(films: Mapping[str, np.ndarray]) -> bytes:
    """A JPEG with a row for each film."""
    rows = [np.concatenate(list(film), axis=1) for film in films.values()]
    height, width = rows[0].shape[0] * ZOOM, max(row.shape[1] for row in rows) * ZOOM
    canvas = Image.new("RGB", (LABEL + width, len(rows) * (height + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for k, (label, row) in enumerate(zip(films, rows, strict=True)):
        top = k * (height + GAP)
        canvas.paste(Image.fromarray(row).resize((row.shape[1] * ZOOM, height), Image.Resampling.NEAREST), (LABEL, top))
        draw.text((4, top + height / 2), label, fill="black", font=font, anchor="lm")
    out = io.BytesIO()
    canvas.save(out, "JPEG", quality=88)
    return out.getvalue()


def write_policies_page(
    path: Path, parts: Sequence[Part], notes: Sequence[str], figures: Sequence[Path], partings: Sequence[Parting], scale: str
) -> None:
    """Write the page, with everything embedded, atomically."""
    write_page(
        path, "parts.html", title="Policies in the world model", table=TITLE, scale=scale, parts=parts, notes=notes,
        figures=[figure.read_bytes() for figure in figures], partings=partings, strip=strip,
    )  # fmt: skip

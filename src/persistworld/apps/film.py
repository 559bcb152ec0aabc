"""Films for people: columns side by side, a row per view, with a label above each column and captions below it."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from persistworld.runtime.files import atomic_path

SHOWN_WIDTH = 320  # pixels a view; smaller ones are enlarged by a whole factor
BAR, GAP, LINE = 28, 4, 20  # pixels: the labels' bar, between pictures, a line of caption
GROUND, TEXT = "#14171a", "#e8eaee"
COLOURS = ("#4b5563", "#9a4a00", "#1f5fd0", "#1c7a3d", "#7a3fa0")  # of the columns' labels, white on them
OPTIONS = {"crf": "20", "preset": "veryfast"}


def write_film(
    path: str | Path, columns: Mapping[str, np.ndarray], fps: float, captions: Mapping[str, Sequence[str]] | None = None, title: str = ""
) -> None:
    """Write an H.264 (yuv420p) mp4, atomically.

    columns: label -> (T, V, H, W, 3) uint8, of one size; captions: label -> T lines (short ones are enough for columns that have them).
    """
    films = list(columns.values())
    count, views, height, width = min(len(film) for film in films), *films[0].shape[1:4]
    factor = max(1, round(SHOWN_WIDTH / width))
    size = (width * factor, height * factor)
    top = BAR + (LINE + 4 if title else 0)
    whole = (len(films) * (size[0] + GAP) - GAP, top + views * (size[1] + GAP) + (LINE if captions else 0))
    base = Image.new("RGB", tuple(n + n % 2 for n in whole), GROUND)
    draw, font, small = ImageDraw.Draw(base), ImageFont.load_default(size=15), ImageFont.load_default(size=13)
    if title:
        draw.text((8, (LINE + 4) / 2), _fitting(title, font, whole[0] - 16), fill=TEXT, font=font, anchor="lm")
    lefts = [column * (size[0] + GAP) for column in range(len(films))]
    for column, (left, label) in enumerate(zip(lefts, columns, strict=True)):
        draw.rectangle((left, top - BAR, left + size[0] - 1, top - 5), fill=COLOURS[min(column, len(COLOURS) - 1)])
        draw.text((left + 8, top - BAR + (BAR - 4) / 2), label, fill="white", font=font, anchor="lm")
    with atomic_path(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = base.width, base.height, "yuv420p"
        stream.thread_count = 1
        for t in range(count):
            picture = base.copy()
            for left, label, film in zip(lefts, columns, films, strict=True):
                for v in range(views):
                    shown = Image.fromarray(film[t, v]).resize(size, Image.Resampling.BICUBIC)
                    picture.paste(shown, (left, top + v * (size[1] + GAP)))
                if captions and (lines := captions.get(label)):
                    place = (left + 4, top + views * (size[1] + GAP) + LINE / 2 - 1)
                    ImageDraw.Draw(picture).text(place, lines[t], fill=TEXT, font=small, anchor="lm")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """`text`, cut to the width that fits."""
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text

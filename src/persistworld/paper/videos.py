"""Rollout videos for the report as mp4 bytes: ground truth, base and ours side by side, one row per view."""

import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from persistworld.config.models import GROUND_TRUTH_COLOUR, Model
from persistworld.paper.media import Media

SHOWN_WIDTH = 320  # pixels per view; smaller views are enlarged by an integer factor
BAR, GAP = 26, 4  # pixels: height of the label bar, gap between pictures


def comparison_video(media: Media, models: list[Model], fps: float) -> bytes:
    """H.264 (yuv420p) mp4 with labelled columns (ground truth and `models`) and one row per view. Deterministic."""
    films = [media.truth, *(media.generated[model.name] for model in models)]
    columns = [("Ground truth", GROUND_TRUTH_COLOUR), *((model.label, model.colour) for model in models)]
    canvas, places = _canvas(media, columns)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "21", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = canvas.width, canvas.height, "yuv420p"
        stream.thread_count = 1
        for t in range(len(media.truth)):
            picture = canvas.copy()
            for (column, view), (place, size) in places.items():
                picture.paste(Image.fromarray(films[column][t, view]).resize(size, Image.Resampling.BICUBIC), place)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def _canvas(
    media: Media, columns: list[tuple[str, str]]
) -> tuple[Image.Image, dict[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]]:
    """The background with a label and a colour for each column, and (column, view) -> position and size of the picture."""
    _, views, height, width, _ = media.truth.shape
    factor = max(1, round(SHOWN_WIDTH / width))
    size = (width * factor, height * factor)
    total = (len(columns) * (size[0] + GAP) - GAP, BAR + views * (size[1] + GAP) - GAP)
    canvas = Image.new("RGB", tuple(n + n % 2 for n in total), "#14171a")  # yuv420p needs even sides
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=15)
    places = {}
    for c, (name, colour) in enumerate(columns):
        left = c * (size[0] + GAP)
        draw.rectangle((left, 0, left + size[0] - 1, BAR - 5), fill=ImageColor.getrgb(colour))
        draw.text((left + 8, (BAR - 4) / 2), name, fill="white", font=font, anchor="lm")
        for v in range(views):
            places[c, v] = ((left, BAR + v * (size[1] + GAP)), size)
    return canvas, places

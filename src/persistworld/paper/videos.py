"""Rollout videos for the report: ground truth, base and ours side by side, a row per view, as mp4 bytes."""

import io
from fractions import Fraction

import av
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from persistworld.paper.cells import label
from persistworld.paper.media import Media
from persistworld.paper.style import colour

SHOWN_WIDTH = 320  # pixels a view; smaller ones are enlarged by a whole factor
BAR, GAP = 26, 4  # pixels: the labels' bar, and between pictures


def comparison_video(media: Media, models: list[str], fps: float) -> bytes:
    """H.264 (yuv420p) mp4 of columns ground truth and `models`, rows views, with labels. Deterministic."""
    films = {"ground_truth": media.truth, **{model: media.generated[model] for model in models}}
    canvas, places = _canvas(media, list(films))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "21", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = canvas.width, canvas.height, "yuv420p"
        stream.thread_count = 1
        for t in range(len(media.truth)):
            picture = canvas.copy()
            for (model, view), (place, size) in places.items():
                picture.paste(Image.fromarray(films[model][t, view]).resize(size, Image.Resampling.BICUBIC), place)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def _canvas(
    media: Media, columns: list[str]
) -> tuple[Image.Image, dict[tuple[str, int], tuple[tuple[int, int], tuple[int, int]]]]:
    """The labelled background and, by (column, view), where each picture goes and how large it is drawn."""
    _, views, height, width, _ = media.truth.shape
    factor = max(1, round(SHOWN_WIDTH / width))
    size = (width * factor, height * factor)
    total = (len(columns) * (size[0] + GAP) - GAP, BAR + views * (size[1] + GAP) - GAP)
    canvas = Image.new("RGB", tuple(n + n % 2 for n in total), "#14171a")  # yuv420p needs even sides
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=15)
    places = {}
    for c, model in enumerate(columns):
        left = c * (size[0] + GAP)
        name = "Ground truth" if model == "ground_truth" else label(model)
        draw.rectangle((left, 0, left + size[0] - 1, BAR - 5), fill=ImageColor.getrgb(colour(model)))
        draw.text((left + 8, (BAR - 4) / 2), name, fill="white", font=font, anchor="lm")
        for v in range(views):
            places[model, v] = ((left, BAR + v * (size[1] + GAP)), size)
    return canvas, places

"""A clip as DROID's LeRobot export stores them, made up: for what decoding costs, the codec and the bytes a frame count."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F

from persistworld.data.video import video_batches
from persistworld.runtime.errors import UserError

ENCODER, OPTIONS = "libsvtav1", {"g": "2", "crf": "30", "svtav1-params": "lp=1"}  # LeRobot's defaults; lp: one thread
HEIGHT, WIDTH, FPS = 180, 320, 15  # DROID's
CONTENT = ((6, 120.0), (24, 60.0), (90, 33.0))  # rows of a random texture and its contrast: about DROID's bytes a frame
GRAIN, MARGIN = 3.0, 20  # of the sensor, in grey levels; how far the camera moves, in pixels


@dataclass(frozen=True)
class Clip:
    """A source of one episode whose every view is the clip (what extraction needs of EpisodeSource)."""

    path: Path
    fps: float = FPS

    def frame_batches(self, index: int, view: str, stride: int, batch: int) -> Iterator[np.ndarray]:
        """As EpisodeSource's."""
        return video_batches(self.path, stride, batch)


def write_clip(path: Path, frames: int) -> Clip:
    """Write a slow pan over a random texture. Raises UserError where PyAV comes without the encoder."""
    if ENCODER not in av.codecs_available:
        raise UserError(f"this PyAV has no {ENCODER}, which DROID's videos are made with; install the wheel: pip install av")
    rng, size = torch.Generator().manual_seed(0), (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
    scene = torch.zeros(3, *size)
    for rows, contrast in CONTENT:
        texture = torch.rand(1, 3, rows, rows * WIDTH // HEIGHT, generator=rng)
        scene += contrast * F.interpolate(texture, size, mode="bicubic")[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(ENCODER, rate=FPS, options=OPTIONS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in range(frames):
            top, left = round(MARGIN * (1 + math.sin(frame / 20))), round(MARGIN * (1 + math.cos(frame / 30)))
            seen = scene[:, top : top + HEIGHT, left : left + WIDTH] + GRAIN * torch.randn(1, HEIGHT, WIDTH, generator=rng)
            pixels = seen.clamp(0, 255).to(torch.uint8).movedim(0, -1).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return Clip(path)

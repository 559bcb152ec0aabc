"""A synthetic video clip in the format of DROID's LeRobot export. The decoding cost depends on the codec and the bytes per frame."""

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
CONTENT = ((6, 120.0), (24, 60.0), (90, 33.0))  # (rows of a random texture, contrast), chosen to give about DROID's bytes per frame
GRAIN, MARGIN = 3.0, 20  # sensor noise in grey levels; camera motion in pixels


@dataclass(frozen=True)
class Clip:
    """A source with one episode whose views all show the clip. It has the part of EpisodeSource that extraction needs."""

    path: Path
    fps: float = FPS

    def frame_batches(self, index: int, view: str, stride: int, batch: int) -> Iterator[np.ndarray]:
        """See EpisodeSource."""
        return video_batches(self.path, stride, batch)


def write_clip(path: Path, frames: int) -> Clip:
    """Write a slow pan over a random texture. Raises UserError if PyAV lacks the encoder."""
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

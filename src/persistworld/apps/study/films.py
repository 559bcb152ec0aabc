"""Films for raters: H.264 mp4 files that do not reveal which model made them.

All films of an item have the same size, rate, encoder settings and length in bytes, and contain no times or names. So candidates differ
only in their pictures.
"""

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from persistworld.runtime.errors import UserError

SHOWN_WIDTH = 320  # pixels; smaller frames are enlarged by a whole factor, or halved chroma would smear small objects
KEY_FRAMES = 8  # frames between key frames, so that a player reaches any frame quickly
# Every browser plays yuv420p. No B-frames: a frame is shown as soon as it is decoded. Without mbtree: see data/video.py.
OPTIONS = {
    "crf": "20", "preset": "veryfast", "threads": "1", "flags": "+bitexact", "g": str(KEY_FRAMES), "bf": "0",
    "x264-params": "mbtree=0:scenecut=0",
}  # fmt: skip
CONTAINER = {"fflags": "+bitexact", "movflags": "+faststart"}
BLOCK = 4096  # bytes; lengths are multiples of it
BOX_HEADER = 8  # bytes of an mp4 box: its length and its name


def encode_film(frames: np.ndarray, fps: float) -> bytes:
    """An mp4 of `frames` (T, H, W, 3) uint8 RGB at `fps` frames a second. The same frames give the same bytes."""
    height, width = frames.shape[1:3]
    factor = -(-SHOWN_WIDTH // width)
    size = tuple(2 * -(-side * factor // 2) for side in (width, height))  # yuv420p needs even sides
    with tempfile.TemporaryDirectory() as folder:  # a file: to put the index first, the container is read again
        path = Path(folder) / "film.mp4"
        with av.open(str(path), "w", format="mp4", options=CONTAINER) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=OPTIONS)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.thread_count = 1
            for frame in frames:
                picture = Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
            container.mux(stream.encode(None))
        return path.read_bytes()


def padded(films: Sequence[bytes]) -> list[bytes]:
    """The films, each padded with an empty box, so that all have the same length in bytes. Players skip the box."""
    length = BLOCK * -(-(max(map(len, films)) + BOX_HEADER) // BLOCK)
    return [film + (length - len(film)).to_bytes(4, "big") + b"free" + bytes(length - len(film) - BOX_HEADER) for film in films]


def read_frames(path: str) -> tuple[np.ndarray, float]:
    """All frames (T, H, W, 3) uint8 RGB of a video file and its rate (1/s). Raises UserError if it cannot be read."""
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            rate = float(stream.average_rate or 0)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UserError(f"{path}: no readable video ({error}); name an mp4 file") from None
    if not frames or not rate:
        raise UserError(f"{path}: holds no frames; name an mp4 file")
    return np.stack(frames), rate

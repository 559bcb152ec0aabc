"""Short clips to and from mp4, with PyAV on one thread, so that the same frames give the same bytes."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODEC = {"video.codec": "h264", "video.pix_fmt": "yuv444p", "video.is_depth_map": False, "has_audio": False}
# Full colour resolution and crf 10: halved chroma and the usual crf would smear objects that are six pixels wide.
OPTIONS = {"crf": "10", "preset": "medium", "threads": "1", "flags": "+bitexact"}


class BrokenVideo(Exception):
    """A video that is missing or cannot be decoded to its end; the message says why in a few words."""


def write_video(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write `frames` (T, H, W, 3) uint8 RGB as H.264 mp4. H and W may be any size."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = CODEC["video.pix_fmt"]
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def read_video(path: str | Path) -> np.ndarray:
    """All frames of a video, (T, H, W, 3) uint8 RGB. Raises BrokenVideo when it is missing or does not decode whole."""
    if not Path(path).is_file():
        raise BrokenVideo("missing")
    try:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "no video stream"
        raise BrokenVideo(f"cannot be decoded ({reason})") from None
    if not frames:
        raise BrokenVideo("holds no frame")
    return np.stack(frames)

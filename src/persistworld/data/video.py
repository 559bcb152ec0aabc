"""Clips to and from mp4, with PyAV on one thread: the same frames give the same bytes, and other threads keep their cores."""

import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

CODEC = {"video.codec": "h264", "video.pix_fmt": "yuv444p", "video.is_depth_map": False, "has_audio": False}
# Full colour resolution and crf 10: halved chroma and the usual crf would smear objects that are six pixels wide.
# Without mbtree: with AVX-512, x264's reads memory that nobody wrote when frames are this small, and the bytes differ from time to time.
OPTIONS = {"crf": "10", "preset": "medium", "threads": "1", "flags": "+bitexact", "x264-params": "mbtree=0"}


@dataclass(frozen=True)
class Span:
    """One episode's `count` frames in a file of many: from `start` (s) on, at `fps` frames a second."""

    start: float
    fps: float
    count: int


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
    return np.concatenate(list(video_batches(path)))


def video_batches(
    path: str | Path, stride: int = 1, batch: int = 64, span: Span | None = None
) -> Generator[np.ndarray, None, int]:
    """Every `stride`-th frame of a video, or of a span of it, as (`batch` or, at the end, fewer; H, W, 3) uint8 RGB.

    Only one batch is in memory. Returns how many frames there were, those left out included: the caller knows how many
    there should be. Raises BrokenVideo when the file is missing, has no frame there, or does not decode whole.
    """
    path = Path(path)
    if not path.is_file():
        raise BrokenVideo("missing")
    found: list[np.ndarray] = []
    count, reformatter = 0, VideoReformatter()  # one for all frames: to set it up takes longer than to use it
    for frame in _decoded(path) if span is None else itertools.islice(_decoded(path, span), span.count):
        if count % stride == 0:
            found.append(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
        count += 1
        if len(found) == batch:
            yield np.stack(found)
            found.clear()
    if not count:
        raise BrokenVideo("holds no frame" if span is None else f"holds no frame from {span.start:g} s on")
    if found:
        yield np.stack(found)
    return count


def _decoded(path: Path, span: Span | None = None) -> Iterator[av.VideoFrame]:
    """The frames of a video to its end, from its beginning or that of `span` on.

    It seeks to the key frame before the span, so that the time does not grow with the episodes before it in the file.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            if span is None:
                yield from container.decode(stream)
                return
            origin = float((stream.start_time or 0) * stream.time_base)
            container.seek(int(max(0.0, span.start + origin) / stream.time_base), stream=stream, backward=True)
            # Time stamps are rounded to the container's ticks: a frame counts from half a frame before the start on.
            first = span.start - 0.5 / span.fps
            for frame in container.decode(stream):
                if float(frame.pts * stream.time_base) - origin >= first:
                    yield frame
    except (av.FFmpegError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "no video stream"
        raise BrokenVideo(f"cannot be decoded ({reason})") from None

"""Reads and writes mp4 videos with PyAV on one thread. The same frames give the same bytes, and other threads keep their cores."""

import contextlib
import functools
import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from persistworld.runtime.files import disguise

CODEC = {"video.codec": "h264", "video.pix_fmt": "yuv444p", "video.is_depth_map": False, "has_audio": False}
# Full chroma resolution and crf 10: with halved chroma and the usual crf, objects that are six pixels wide would blur.
# mbtree=0: with AVX-512 and frames this small, x264's mbtree reads uninitialised memory, and the bytes differ between runs.
OPTIONS = {"crf": "10", "preset": "medium", "threads": "1", "flags": "+bitexact", "x264-params": "mbtree=0"}


@dataclass(frozen=True)
class Span:
    """`count` frames of a file, starting at frame number `first`."""

    first: int
    count: int


@dataclass(frozen=True)
class VideoIndex:
    """The frames of a video according to its container; no frame is decoded.

    `times` (N,) are seconds since the first frame, `stamps` (N,) are timestamps in ticks, `keys` are the numbers of the key frames,
    ascending. `shown`: stamps are presentation timestamps (PTS); otherwise decoding timestamps (DTS).
    """

    times: np.ndarray
    stamps: np.ndarray
    keys: np.ndarray
    shown: bool


class BrokenVideo(Exception):
    """A video that is missing or cannot be decoded to its end. The message gives a short reason."""


def write_video(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write `frames` (T, H, W, 3) uint8 RGB as an H.264 mp4. H and W may have any value."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = CODEC["video.pix_fmt"]
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def read_video(path: str | Path) -> np.ndarray:
    """All frames of a video, (T, H, W, 3) uint8 RGB. Raises BrokenVideo when it is missing or cannot be decoded to its end."""
    return np.concatenate(list(video_batches(path)))


def video_batches(
    path: str | Path, stride: int = 1, batch: int = 64, span: Span | None = None
) -> Generator[np.ndarray, None, int]:
    """Yield every `stride`-th frame of a video, or of a span of it, in batches (B, H, W, 3) uint8 RGB with B = `batch`.

    The last batch may be smaller. Only one batch is in memory. Returns the number of frames that were decoded, including
    skipped ones, so that the caller can compare it with the expected number. Raises BrokenVideo when the file is missing,
    has no frame in the span, or cannot be decoded to its end.
    """
    path = Path(path)
    if not path.is_file():
        raise BrokenVideo("missing")
    found: list[np.ndarray] = []
    count, reformatter = 0, VideoReformatter()  # one for all frames: setup takes longer than use
    for frame in _decoded(path) if span is None else itertools.islice(_decoded(path, span.first), span.count):
        if count % stride == 0:
            found.append(reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
        count += 1
        if len(found) == batch:
            yield np.stack(found)
            found.clear()
    if not count:
        raise BrokenVideo("holds no frame" if span is None else f"holds no frame number {span.first}")
    if found:
        yield np.stack(found)
    return count


def video_index(path: str | Path, exact: bool = False) -> VideoIndex:
    """The index of a video's frames. Raises BrokenVideo when the file is missing or is not a video.

    An mp4 lists decoding timestamps. If frames refer to later frames (B-frames), these match the presentation timestamps only at a
    constant frame rate. With `exact`, the whole file is read for the presentation timestamps.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError:
        raise BrokenVideo("missing") from None
    return _video_index(path, status.st_mtime_ns, status.st_size, exact)


@functools.lru_cache(maxsize=64)  # a LeRobot v3.0 file holds hundreds of episodes, and each one asks for the index
def _video_index(path: Path, changed: int, size: int, exact: bool) -> VideoIndex:
    with _opened(path) as container:
        stream = container.streams.video[0]
        found = [(e.timestamp, e.is_keyframe) for e in stream.index_entries if not e.is_discard]
        shown = exact or not found or len(found) != stream.frames  # containers other than mp4 list key frames at most
        if shown:
            packets = [p for p in container.demux(stream) if p.size and p.pts is not None]
            found = sorted((p.pts, p.is_keyframe) for p in packets)
        if not found:
            raise BrokenVideo("holds no frame")
        stamps = np.array([stamp for stamp, _ in found], dtype=np.int64)
        times = (stamps - stamps[0]) * float(stream.time_base)
        return VideoIndex(times, stamps, np.flatnonzero([key for _, key in found]), shown)


def _decoded(path: Path, first: int = 0) -> Iterator[av.VideoFrame]:
    """The frames of a video from number `first` to the end.

    It seeks to a key frame at or before `first`, so that the time does not grow with `first`. Frames are counted from that key frame;
    the container's timestamps are not used for counting.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        if first == 0:
            yield from container.decode(stream)
            return
        index = video_index(path)
        for key in index.keys[index.keys <= first][::-1]:
            container.seek(int(index.stamps[key]), stream=stream, backward=True)
            packets = container.demux(stream)
            begin = next(packets)
            number = _number(index, begin)
            if number is not None and number <= first:
                break
        else:  # no usable key frame: decode from the beginning
            container.seek(0, stream=stream, backward=True)
            packets, begin, number = container.demux(stream), None, 0
        leading = begin.pts if begin is not None else None
        for packet in itertools.chain([] if begin is None else [begin], packets):
            for frame in packet.decode():
                if leading is not None and frame.pts is not None and frame.pts < leading:
                    continue  # presented before the key frame, so its number is smaller than the key frame's
                if number >= first:
                    yield frame
                number += 1


def _number(index: VideoIndex, packet: av.Packet) -> int | None:
    """The number of the frame in a key frame's packet; None when its timestamp is not in the index."""
    stamp = packet.pts if index.shown else packet.dts
    place = len(index.stamps) if stamp is None else int(np.searchsorted(index.stamps, stamp))
    return place if place < len(index.stamps) and index.stamps[place] == stamp else None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open the container as a context. Turns every error while it is read into a BrokenVideo with a short reason."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BrokenVideo("cannot be decoded (no video stream)")
            yield container
    except (av.FFmpegError, OSError) as error:
        reason = disguise(path) or getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BrokenVideo(f"cannot be decoded ({reason})") from None

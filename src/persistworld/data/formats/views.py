"""What the readers have in common: how long each view's video is beside the episode's rows, and its frames cut to their common length."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persistworld.data.episodes import BadEpisode
from persistworld.data.formats.clocks import OFF, Clock, common_length, fault_of, notes_of, read_clock
from persistworld.data.video import BrokenVideo, Span, video_batches, video_index


@dataclass(frozen=True)
class View:
    """One view's frames: `count` of them from number `first` on in the file `path`, with their clock.

    `fault` says why it cannot be used, `notes` what was odd.
    """

    path: Path
    first: int = 0
    count: int = 0
    clock: Clock | None = None
    fault: str | None = None
    notes: tuple[str, ...] = ()


def whole_file(path: Path) -> View:
    """The view whose frames are all of those in `path`."""
    try:
        times = video_index(path).times
        clock = read_clock(times)
        if clock is not None and clock.off > OFF:
            clock = read_clock(video_index(path, exact=True).times)
    except BrokenVideo as error:
        return View(path, fault=str(error))
    return View(path, 0, len(times), clock)


def length_of(rows: int, views: Mapping[str, View]) -> int:
    """How many frames rows and usable views have in common."""
    return common_length(rows, {name: (view.count, view.clock) for name, view in views.items() if view.fault is None})


def view_notes(rows: int, views: Mapping[str, View], fps: float) -> list[str]:
    """What is odd in the usable views and is dealt with."""
    usable = {name: v for name, v in views.items() if v.fault is None and fault_of(rows, v.count, v.clock) is None}
    return [note for name, v in usable.items() for note in (*v.notes, *notes_of(name, rows, v.count, v.clock, fps))]


def view_batches(index: int, rows: int, length: int, view: View, stride: int, batch: int) -> Iterator[np.ndarray]:
    """Every `stride`-th of the first `length` frames, `batch` at a time. Raises BadEpisode when the view cannot be used."""
    fault = view.fault or fault_of(rows, view.count, view.clock)
    if fault is not None:
        raise BadEpisode(index, f"video {view.path} {fault}")
    try:
        count = yield from video_batches(view.path, stride, batch, Span(view.first, length))
    except BrokenVideo as error:
        raise BadEpisode(index, f"video {view.path} {error}") from None
    if count != length:
        raise BadEpisode(index, f"video {view.path} cannot be decoded whole ({count} of {length} frames)")

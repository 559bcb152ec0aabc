"""The common part of the readers: compares the length of each view's video with the episode's rows, and reads the common length."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persistworld.data.episodes import BadEpisode
from persistworld.data.formats.clocks import OFF, Clock, common_length, fault_of, notes_of, read_clock
from persistworld.data.video import BrokenVideo, Span, video_batches, video_index


@dataclass(frozen=True)
class View:
    """The frames of one view: `count` frames of the file `path`, starting at number `first`, with their clock.

    `fault` says why the view cannot be used. `notes` lists irregularities.
    """

    path: Path
    first: int = 0
    count: int = 0
    clock: Clock | None = None
    fault: str | None = None
    notes: tuple[str, ...] = ()


def whole_file(path: Path) -> View:
    """The view that consists of all frames of the file `path`."""
    try:
        times = video_index(path).times
        clock = read_clock(times)
        if clock is not None and clock.off > OFF:
            clock = read_clock(video_index(path, exact=True).times)
    except BrokenVideo as error:
        return View(path, fault=str(error))
    return View(path, 0, len(times), clock)


def length_of(rows: int, views: Mapping[str, View]) -> int:
    """The number of frames that the rows and all usable views have."""
    return common_length(rows, {name: (view.count, view.clock) for name, view in views.items() if view.fault is None})


def view_notes(rows: int, views: Mapping[str, View], fps: float) -> list[str]:
    """Notes on irregularities in the usable views that are handled."""
    usable = {name: v for name, v in views.items() if v.fault is None and fault_of(rows, v.count, v.clock) is None}
    return [note for name, v in usable.items() for note in (*v.notes, *notes_of(name, rows, v.count, v.clock, fps))]


def view_batches(index: int, rows: int, length: int, view: View, stride: int, batch: int) -> Iterator[np.ndarray]:
    """Every `stride`-th of the first `length` frames, in batches of `batch`. Raises BadEpisode when the view cannot be used."""
    fault = view.fault or fault_of(rows, view.count, view.clock)
    if fault is not None:
        raise BadEpisode(index, f"video {view.path} {fault}")
    try:
        count = yield from video_batches(view.path, stride, batch, Span(view.first, length))
    except BrokenVideo as error:
        raise BadEpisode(index, f"video {view.path} {error}") from None
    if count != length:
        raise BadEpisode(index, f"video {view.path} cannot be decoded whole ({count} of {length} frames)")

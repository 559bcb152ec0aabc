"""Finds an episode's frames in a video that holds many episodes, by counting the frames of the episodes before it.

The container's timestamps and the list's `from_timestamp` are compared with the count. If they disagree by more than a quarter of a
frame, the count is still used when the file has exactly as many frames as its episodes. Otherwise the episode is left out, because
its frames might belong to another episode.
"""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persistworld.data.episodes import BadEpisode
from persistworld.data.formats.clocks import LACKING, OFF, read_clock
from persistworld.data.formats.listing import Listing, whole
from persistworld.data.formats.views import View
from persistworld.data.video import BrokenVideo, video_index


@dataclass(frozen=True)
class Place:
    """The position of an episode in a file: `count` frames starting at number `first`. All episodes of the file have `total` frames.

    `start` (s) is the episode's start time in the list. `lead` (frames) is the start of the file's first listed episode. `last`: the
    episode is the file's last one. `members` are the file's episodes. `doubt` says why the count cannot be trusted.
    """

    first: int
    count: int
    total: int
    start: float | None
    lead: int
    last: bool
    members: tuple[int, ...]
    doubt: str | None


class Spans:
    """The positions of all episodes in the files of one view."""

    def __init__(self, listed: Listing, group: str, fps: float, rows: Callable[[int], int | None]) -> None:
        """group: the prefix of the view's columns in the list; rows: a function that counts an episode's rows, None if it cannot."""
        self._listed, self._fps, self._rows, self._places = listed, fps, rows, {}
        files: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index in listed.indices():
            chunk, file = whole(listed[index].get(f"{group}/chunk_index")), whole(listed[index].get(f"{group}/file_index"))
            if chunk is not None and file is not None:
                files[chunk, file].append(index)
        for members in files.values():
            self._places |= _places(listed, group, members, fps)

    def view(self, index: int, path: Path) -> View:
        """The episode's frames in `path`; if they cannot be located, a View whose `fault` gives the reason."""
        place = self._places[index]
        try:
            times = video_index(path).times
        except BrokenVideo as error:
            return View(path, fault=str(error))
        if len(times) >= place.total + place.lead:  # the file also holds frames before its first listed episode
            place = dataclasses.replace(place, first=place.first + place.lead, total=place.total + place.lead)
        # The last episode gets the frames that remain, at most as many as it has rows. Frames after that belong to no episode.
        count = min(place.count, len(times) - place.first)
        if count <= 0:
            return View(path, fault=f"holds {len(times)} frames, and those of this episode begin at number {place.first}")
        own = times[place.first : place.first + count]
        off = _off(own, place.start, self._fps)
        sure = place.doubt is None and (len(times) == place.total or (place.last and 0 < place.total - len(times) <= LACKING))
        notes = ()
        if off is not None and off > OFF:
            why = place.doubt or (self._miscounted(place) if sure else f"the file holds {len(times)} frames, its episodes {place.total}")
            if why:
                return View(path, fault=f"shows frames {off:.3g} frames off the time that the list gives them, and {why}")
            notes = ("the video's clock and the list's differ; frames are counted",)
        elif not sure and off is None:
            why = place.doubt or f"the file holds {len(times)} frames, its episodes {place.total}, and the list gives no time"
            return View(path, fault=f"cannot be shared out: {why}")
        clock = read_clock(own)
        if count < place.count and clock is not None and clock.off > OFF:
            return View(path, fault=f"holds {count} frames from number {place.first} on, {place.count} are listed")
        return View(path, place.first, count, clock, notes=notes)


    def _miscounted(self, place: Place) -> str | None:
        """A message about the first episode of the file whose number of rows differs from the list, on which the count relies; or None."""
        for index in place.members:
            rows, length = self._rows(index), _length(self._listed, index)
            if rows != length:
                return f"episode {index} of the same file has {rows} rows, the list says {length}"
        return None


def _places(listed: Listing, group: str, members: list[int], fps: float) -> dict[int, Place]:
    """The positions of the episodes `members` in their file. They are ordered by start time. If times are missing or overlap, they are
    ordered by index, as LeRobot writes them."""
    lengths = {i: _length(listed, i) for i in members}
    starts = {i: _time(listed[i].get(f"{group}/from_timestamp")) for i in members}
    unknown = [i for i in members if lengths[i] is None]
    doubt = f"episode {unknown[0]} of the same file has no length" if unknown else None
    order = members
    if all(start is not None for start in starts.values()):
        by_time = sorted(members, key=lambda i: (starts[i], i))
        if by_time != members:
            overlap = any(starts[b] - starts[a] < ((lengths[a] or 0) - 0.5) / fps for a, b in itertools.pairwise(by_time))
            order, doubt = (members if overlap else by_time), doubt or ("its episodes' times are not in their order" if overlap else None)
    places, end = {}, 0
    for number, i in enumerate(order):
        end += _unlisted(listed, order[number - 1], i) if number else 0
        places[i] = end
        end += lengths[i] or 0
    lead = round((starts[order[0]] or 0) * fps)
    return {i: Place(first, lengths[i] or 0, end, starts[i], lead, i == order[-1], tuple(order), doubt) for i, first in places.items()}


def _unlisted(listed: Listing, before: int, after: int) -> int:
    """The number of frames of unlisted episodes between two listed ones, from the list's frame numbers within the whole data set."""
    last, next_one = whole(listed[before].get("dataset_to_index")), whole(listed[after].get("dataset_from_index"))
    return 0 if last is None or next_one is None else max(0, next_one - last)


def _length(listed: Listing, index: int) -> int | None:
    try:
        return listed.length(index)
    except BadEpisode:
        return None


def _time(value: object) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if known else None


def _off(times: np.ndarray, start: float | None, fps: float) -> float | None:
    """The largest deviation (frames) of an episode's frames from their times in the list; None when the list gives no start time."""
    if start is None:
        return None
    return float(np.abs((times - start) * fps - np.arange(len(times))).max())

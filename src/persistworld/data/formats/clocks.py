"""Holds clocks against the count: picture k belongs to row k, whatever the container or the column `timestamp` say.

The count decides; the clocks say whether it can be trusted. A clock that is off is told in a note or leaves the episode out.
"""

from dataclasses import dataclass

import numpy as np

from persistworld.data.episodes import BadEpisode

# In frames. Below the first a clock is as good as exact (rounding to ticks), above the second it contradicts the count.
EXACT, OFF = 0.1, 0.25
SAME_RATE = 0.01  # relative
# A recording often ends one frame early or late in one of its files. So many frames more, or fewer, than the shortest of the others
# are cut; a larger difference means that frames are missing somewhere else.
SURPLUS, LACKING = 3, 1


@dataclass(frozen=True)
class Clock:
    """A clock of N ticks: its rate (Hz), how far (frames) its worst tick lies off an even one, and which that is."""

    rate: float
    off: float
    worst: int


def read_clock(times: np.ndarray) -> Clock | None:
    """The clock of ascending `times` (N,) in s; None for fewer than two. One that stands still or runs back is infinitely off."""
    if len(times) < 2:
        return None
    steps = np.diff(times)
    if not np.isfinite(times).all() or not (steps > 0).all():
        wrong = ~np.isfinite(times[1:]) | ~(steps > 0)
        return Clock(0.0, np.inf, int(np.argmax(wrong)) + 1)
    count = np.arange(len(times))
    rate = (len(times) - 1) / (times[-1] - times[0])
    residual = np.abs((times - times[0]) * rate - count)
    if residual.max() <= OFF:
        return Clock(float(rate), float(residual.max()), int(residual.argmax()))
    rate = 1 / np.median(steps)  # a hole spoils the mean
    jumps = np.abs(steps * rate - 1)
    return Clock(float(rate), float(max(jumps.max(), residual.max())), int(jumps.argmax()) + 1)


def check_timestamps(index: int, times: np.ndarray, fps: float) -> list[str]:
    """Notes on the rows' own times (s) beside `fps`. Raises BadEpisode when they lie more than a quarter of a frame off an even clock of
    that rate: rows are missing, or the rate is another.
    """
    clock = read_clock(times)
    if clock is None:
        return []
    if clock.off > OFF:
        step = times[clock.worst] - times[clock.worst - 1]
        raise BadEpisode(
            index, f"timestamp: row {clock.worst} comes {step:.3g} s after the one before it, at {fps:g} frames a second {1 / fps:.3g} s "
            "are right: rows are missing or doubled"
        )  # fmt: skip
    drift = abs(clock.rate / fps - 1)
    if drift > SAME_RATE and drift * (len(times) - 1) > 2 * OFF:
        raise BadEpisode(index, f"timestamp: rows come at {clock.rate:.4g} Hz, meta/info.json says {fps:g}")
    if clock.off > EXACT or drift * (len(times) - 1) > OFF:
        return ["timestamp is uneven; rows are taken as even"]
    return []


def common_length(rows: int, frames: dict[str, tuple[int, Clock | None]]) -> int:
    """How many frames all files of an episode have in common: of `rows` and of those views whose length is close to it."""
    return min([rows, *(count for count, clock in frames.values() if fault_of(rows, count, clock) is None)])


def fault_of(rows: int, count: int, clock: Clock | None) -> str | None:
    """Why `count` frames cannot be those of `rows` rows; None when they can, all or but for a few at the end."""
    if not -LACKING <= count - rows <= SURPLUS:
        return f"holds {count} frames for {rows} rows"
    if count != rows and clock is not None and clock.off > OFF:
        return f"holds {count} frames for {rows} rows and its clock jumps at frame {clock.worst}: which are missing cannot be told"
    return None


def notes_of(view: str, rows: int, count: int, clock: Clock | None, fps: float) -> list[str]:
    """What is odd in a view's video and is dealt with."""
    notes = []
    if count != rows:
        notes.append(f"{view} has {abs(count - rows)} frame{'s' * (abs(count - rows) > 1)} {'more' if count > rows else 'fewer'} "
                     "than rows: the end is cut")
    if clock is not None and clock.off > OFF:
        notes.append(f"{view}'s clock is uneven; its frames are counted")
    elif clock is not None and abs(clock.rate / fps - 1) > SAME_RATE and abs(clock.rate / fps - 1) * count > OFF:
        notes.append(f"{view} plays at {clock.rate:.3g} fps and is taken as {fps:g} Hz")
    return notes

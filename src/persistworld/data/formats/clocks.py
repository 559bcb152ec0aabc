"""Checks timestamps against frame counts. Frame k always belongs to row k, whatever the container or the column `timestamp` says.

Timestamps only show whether the count can be trusted. If they disagree with it, the episode gets a note or is left out.
"""

from dataclasses import dataclass

import numpy as np

from persistworld.data.episodes import BadEpisode

# In frames. Below EXACT, the deviation of a clock is rounding to ticks. Above OFF, the clock contradicts the count.
EXACT, OFF = 0.1, 0.25
SAME_RATE = 0.01  # relative
# In frames. A recording often ends a frame early or late in one of its files. Up to SURPLUS frames more or LACKING fewer than the other
# files have are cut at the end. A larger difference means that frames are missing elsewhere.
SURPLUS, LACKING = 3, 1


@dataclass(frozen=True)
class Clock:
    """A sequence of N timestamps: its rate (Hz), the largest deviation from an even clock (frames), and the position of that deviation."""

    rate: float
    off: float
    worst: int


def read_clock(times: np.ndarray) -> Clock | None:
    """The clock of ascending `times` (N,) in s; None for fewer than two. `off` is infinite when times stand still or run backwards."""
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
    rate = 1 / np.median(steps)  # the median, since a gap would distort the mean
    jumps = np.abs(steps * rate - 1)
    return Clock(float(rate), float(max(jumps.max(), residual.max())), int(jumps.argmax()) + 1)


def check_timestamps(index: int, times: np.ndarray, fps: float) -> list[str]:
    """Compare the rows' timestamps (s) with `fps` and return notes. Raises BadEpisode when they deviate more than a quarter of a frame from
    an even clock, or have another rate: then rows are missing, or `fps` is wrong.
    """
    clock = read_clock(times)
    if clock is None:
        return []
    if clock.off > OFF:
        step = times[clock.worst] - times[clock.worst - 1]
        raise BadEpisode(
            index, f"timestamp: row {clock.worst} comes {step:.3g} s after the previous one, but at {fps:g} frames a second rows are "
            f"{1 / fps:.3g} s apart: rows are missing or doubled"
        )  # fmt: skip
    drift = abs(clock.rate / fps - 1)
    if drift > SAME_RATE and drift * (len(times) - 1) > 2 * OFF:
        raise BadEpisode(index, f"timestamp: rows come at {clock.rate:.4g} Hz, meta/info.json says {fps:g}")
    if clock.off > EXACT or drift * (len(times) - 1) > OFF:
        return ["timestamp is uneven; rows are taken as even"]
    return []


def common_length(rows: int, frames: dict[str, tuple[int, Clock | None]]) -> int:
    """The number of frames that all files of an episode have: the minimum of `rows` and the lengths of the usable views."""
    return min([rows, *(count for count, clock in frames.values() if fault_of(rows, count, clock) is None)])


def fault_of(rows: int, count: int, clock: Clock | None) -> str | None:
    """Why `count` frames cannot belong to `rows` rows; None when they can, apart from a few frames at the end."""
    if not -LACKING <= count - rows <= SURPLUS:
        return f"holds {count} frames for {rows} rows"
    if count != rows and clock is not None and clock.off > OFF:
        return f"holds {count} frames for {rows} rows and its clock jumps at frame {clock.worst}: which are missing cannot be told"
    return None


def notes_of(view: str, rows: int, count: int, clock: Clock | None, fps: float) -> list[str]:
    """Notes on irregularities in a view's video that are handled."""
    notes = []
    if count != rows:
        notes.append(f"{view} has {abs(count - rows)} frame{'s' * (abs(count - rows) > 1)} {'more' if count > rows else 'fewer'} "
                     "than rows: the end is cut")
    if clock is not None and clock.off > OFF:
        notes.append(f"{view}'s clock is uneven; its frames are counted")
    elif clock is not None and abs(clock.rate / fps - 1) > SAME_RATE and abs(clock.rate / fps - 1) * count > OFF:
        notes.append(f"{view} plays at {clock.rate:.3g} fps and is taken as {fps:g} Hz")
    return notes

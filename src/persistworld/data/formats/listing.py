"""LeRobot's list of episodes, and the check of an episode's length against it."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from persistworld.data.episodes import BadEpisode, Episode
from persistworld.data.formats.clocks import LACKING
from persistworld.runtime.errors import UserError


class Listing:
    """The list of episodes: index -> row. `path` is the list's file or folder."""

    def __init__(self, path: Path, rows: Iterable[dict[str, Any]]) -> None:
        """Raises UserError when two rows have the same episode. A malformed row raises other exceptions; `odd_file` turns them into a
        one-line UserError."""
        self.path = path
        self._rows: dict[int, dict[str, Any]] = {}
        for row in rows:
            index = whole(row["episode_index"])
            if index is None or index < 0:
                raise ValueError(f"episode_index {row['episode_index']!r}")
            if index in self._rows:
                raise UserError(f"{path}: lists episode {index} twice; remove one of the two")
            self._rows[index] = row

    def indices(self) -> list[int]:
        return sorted(self._rows)

    def require(self, index: int) -> None:
        """Raise BadEpisode unless the episode is listed."""
        if index not in self._rows:
            raise BadEpisode(index, f"not listed in {self.path}")

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.require(index)
        return self._rows[index]

    def length(self, index: int) -> int | None:
        """The episode's number of rows according to the list; None when the list has none. Raises BadEpisode when it is not a number."""
        value = self[index].get("length")
        length = whole(value)
        if value is not None and (length is None or length < 1):
            raise BadEpisode(index, f"{self.path}: length = {value!r}, expected the number of frames")
        return length


def whole(value: Any) -> int | None:
    """`value` as an int, also if pandas has made it a float, or it is in a list of one. None if it is not a whole number, such as NaN."""
    only = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    if isinstance(only, bool) or not isinstance(only, int | float) or not math.isfinite(only) or only != int(only):
        return None
    return int(only)


def rows_of(index: int, found: int, listed: int | None, path: Path, listing: Path) -> int:
    """The number of rows of an episode: `found` in its file `path`, or `listed` if that is one fewer.

    Raises BadEpisode when there are no rows, or when `found` and `listed` differ by more than one.
    """
    if not found or (listed is not None and abs(found - listed) > LACKING):
        raise BadEpisode(index, f"{path} holds {found} of its frames, {listing} says {listed}")
    return found if listed is None else min(found, listed)


def cut(episode: Episode, length: int) -> Episode:
    """The episode's first `length` frames."""
    if length == len(episode.pose):
        return episode
    parts = {name: None if (value := getattr(episode, name)) is None else value[:length] for name in ("pose", "joints", "action")}
    return dataclasses.replace(episode, **parts)

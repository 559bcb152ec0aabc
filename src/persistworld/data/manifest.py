"""The manifest lists every episode with its split, length and instruction, and holds the pose statistics of the training split."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from persistworld.config.data import EpisodesConfig
from persistworld.config.evaluation import EvaluationConfig
from persistworld.config.reading import build_section
from persistworld.data.episodes import EpisodeSource, split_of
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, write_json
from persistworld.world_model.poses import PoseStatistics, pose_statistics

if TYPE_CHECKING:  # the stage `episodes` does not need torch
    from persistworld.data.latents import Encoded, LatentStore


@dataclass(frozen=True)
class Entry:
    """One usable episode. `frames` is counted at the world model's frame rate. `notes` lists irregularities that were handled."""

    index: int
    split: str
    instruction: str
    success: bool | None
    frames: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    episodes: tuple[Entry, ...]  # by index
    bad: dict[int, str]  # index -> reason
    pose_statistics: PoseStatistics | None  # of the training split; None if only other splits are read
    notes: dict[str, int]  # irregularity that was handled -> number of episodes that have it

    @property
    def statistics(self) -> PoseStatistics:
        """The pose statistics, for training a base model. Raises UserError when no training episode was read."""
        if self.pose_statistics is None:
            raise UserError("data/manifest.json: no training episodes, so no pose statistics; add 'train' to episodes.splits")
        return self.pose_statistics

    def split(self, name: str) -> tuple[Entry, ...]:
        return tuple(e for e in self.episodes if e.split == name)

    def too_short(self, split: str, frames: int) -> tuple[Entry, ...]:
        """The split's episodes with fewer than `frames` frames."""
        return tuple(e for e in self.split(split) if e.frames < frames)

    def long_enough(self, split: str, frames: int) -> tuple[Entry, ...]:
        """The split's episodes with at least `frames` frames. Raises UserError when there are none."""
        chosen = tuple(e for e in self.split(split) if e.frames >= frames)
        if not self.split(split):
            raise UserError(
                f"data/manifest.json: no episode of split '{split}'; name it in episodes.splits, raise episodes.count, or change "
                "episodes.modulus, .validation and .tuning, which share episodes out"
            )
        if not chosen:
            raise UserError(
                f"data/manifest.json: no episode of split '{split}' has {frames} frames; "
                "shorten rollout.chunks or post_training.prefix, or add longer episodes"
            )
        return chosen


def evaluation_episodes(manifest: Manifest, settings: EvaluationConfig, frames: int) -> tuple[Entry, ...]:
    """The episodes that are rolled out and scored: the first `settings.episodes` of the split that have at least `frames` frames.

    All of them if `settings.episodes` is 0. Raises UserError when there are none.
    """
    chosen = manifest.long_enough(settings.split, frames)
    return chosen[: settings.episodes] if settings.episodes else chosen


def wanted_indices(settings: EpisodesConfig, source: EpisodeSource | None = None) -> list[int]:
    """The indices below `count` whose split is in `settings.splits`.

    With `source`, only the indices that it lists; without, all of them (these are then simulated).
    """
    indices = range(settings.count) if source is None else [i for i in source.indices() if i < settings.count]
    return [i for i in indices if _split(i, settings, source) in settings.splits]


def split_indices(settings: EpisodesConfig, source: EpisodeSource) -> dict[str, list[int]]:
    """The wanted indices of `source` by split."""
    found: dict[str, list[int]] = {name: [] for name in settings.splits}
    for index in wanted_indices(settings, source):
        found[_split(index, settings, source)].append(index)
    return found


def _split(index: int, settings: EpisodesConfig, source: EpisodeSource | None) -> str:
    """The split that the data set records; if it records none, the split by the rule `split_of`."""
    recorded = None if source is None else source.split(index)
    return recorded or split_of(index, settings.modulus, settings.validation, settings.tuning)


def build_manifest(
    source: EpisodeSource,
    store: "LatentStore",
    encoded: "dict[int, Encoded]",
    bad: dict[int, str],
    settings: EpisodesConfig,
    rotation: str,
    future: int,
) -> Manifest:
    """Build the manifest from the encoded and the bad episodes of all shards. The recordings are not read again.

    An episode with fewer frames than one chunk of `future` (L) frames is bad, too. Raises UserError when too many episodes
    cannot be used.
    """
    bad = bad | {i: f"{e.frames} frames are fewer than a chunk's {future}" for i, e in encoded.items() if e.frames < future}
    usable = {i: e for i, e in sorted(encoded.items()) if i not in bad}
    check_bad_share(len(usable), bad, settings, store.folder)
    entries = [Entry(i, _split(i, settings, source), e.instruction, e.success, e.frames, e.notes) for i, e in usable.items()]
    notes = Counter(note for entry in entries for note in entry.notes)
    training = [store.poses(e.index).numpy() for e in entries if e.split == "train"]
    # Only training a base model needs these statistics. A checkpoint has its own, so evaluation works without the split 'train'.
    statistics = pose_statistics(np.concatenate(training), rotation) if training else None
    return Manifest(tuple(entries), bad, statistics, dict(notes))


def check_bad_share(usable: int, bad: dict[int, str], settings: EpisodesConfig, kept: str | Path | None = None) -> None:
    """Raise UserError when no episode can be used, or when the share of unusable ones (`bad`: index -> reason) exceeds
    episodes.bad_share.

    kept: the folder that caches what was read, if there is one. The error tells the user to delete it before a new run.
    """
    total = usable + len(bad)
    if usable == 0 or len(bad) > settings.bad_share * total:
        first = "; ".join(f"episode {i}: {reason}" for i, reason in sorted(bad.items())[:3]) or "none found"
        forget = "" if kept is None else f"delete {kept} and "
        raise UserError(
            f"{settings.path}: {len(bad)} of {total} episodes cannot be used, more than episodes.bad_share = "
            f"{settings.bad_share} allows ({first}); fix them, {forget}run again, or raise episodes.bad_share"
        )


def save_manifest(manifest: Manifest, path: str | Path, future: int) -> None:
    """Write the manifest as sorted JSON, with the number of windows of each episode and the number of episodes of each split.

    A window is a chunk of `future` (L) frames that can be predicted. One begins at each frame that L - 1 frames follow.
    """
    counts = {name: len(manifest.split(name)) for name in ("train", "tuning", "validation")}
    value = {
        "episodes": [dataclasses.asdict(e) | {"windows": e.frames - future + 1} for e in manifest.episodes],
        "bad": {str(k): v for k, v in sorted(manifest.bad.items())},
        "counts": counts | {"bad": len(manifest.bad)},
        "notes": manifest.notes,
        "pose_statistics": manifest.pose_statistics and dataclasses.asdict(manifest.pose_statistics),
    }
    write_json(path, value)


def load_manifest(path: str | Path) -> Manifest:
    """Read a manifest. Raises UserError when it is missing or damaged."""
    raw = read_json(path)
    try:
        known = [field.name for field in dataclasses.fields(Entry)]
        entries = tuple(Entry(**{name: e[name] for name in known} | {"notes": tuple(e["notes"])}) for e in raw["episodes"])
        statistics = raw["pose_statistics"] and build_section(PoseStatistics, raw["pose_statistics"], "pose_statistics")
        return Manifest(entries, {int(k): v for k, v in raw["bad"].items()}, statistics, raw["notes"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a manifest ({error!r}); delete it and run the stage manifest again") from None

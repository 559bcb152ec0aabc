"""The ground truth for the scores of all models: the recorded frames of evaluation episodes, and the autoencoder's reconstructions.

The frames are stored once for all models (a folder of memory-mapped arrays, uncompressed uint8), or decoded at every access.
"""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from persistworld.config.models import Model
from persistworld.config.params import Params
from persistworld.data.formats import open_episodes
from persistworld.data.frames import resized_frames
from persistworld.data.latents import LatentStore
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, write_json
from persistworld.runtime.workspace import ABLATION_TRUTH, EPISODES, LATENTS, TRUTH
from persistworld.world_model.autoencoder import Autoencoder, decode_views

KINDS = ("recorded", "decoded")
INDEX = "episodes.json"


class TruthFrames(Protocol):
    """Frames of evaluation episodes, uint8 (T, V, H, W, 3), at the world model's rate and size. T is the length of a rollout."""

    def recorded(self, episode: int) -> Tensor:
        """The data set's own frames."""

    def decoded(self, episode: int) -> Tensor:
        """The autoencoder's reconstruction of the frames from their latents: the best that the world model could generate."""


class LiveTruth:
    """Decodes videos and latents at every call."""

    def __init__(self, params: Params, autoencoder: Autoencoder) -> None:
        self._settings, self._count, self._autoencoder = params.episodes, params.rollout_frames, autoencoder
        self._source = open_episodes(EPISODES)

    @functools.cached_property
    def _store(self) -> LatentStore:  # opened on first use, because recorded frames need no latents
        return LatentStore(LATENTS, self._settings)

    def recorded(self, episode: int) -> Tensor:
        views = [resized_frames(self._source, episode, self._settings, view)[: self._count] for view in self._settings.views]
        return torch.stack(views, dim=1)

    def decoded(self, episode: int) -> Tensor:
        latents = self._store.latents(episode, slice(0, self._count))
        return decode_views(self._autoencoder, latents, len(self._settings.views))


class StoredTruth:
    """Reads frames from the folder that the stage `truth` writes, one episode at a time."""

    def __init__(self, folder: Path = TRUTH) -> None:
        """Raises UserError when the folder is missing or incomplete."""
        self._folder = folder
        self._rows = {episode: row for row, episode in enumerate(read_json(folder / INDEX))}
        try:
            self._arrays = {kind: np.load(array_path(folder, kind), mmap_mode="r") for kind in KINDS}
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: not whole ({error}); delete it and run the stage truth again") from None

    def recorded(self, episode: int) -> Tensor:
        return self._read("recorded", episode)

    def decoded(self, episode: int) -> Tensor:
        return self._read("decoded", episode)

    def _read(self, kind: str, episode: int) -> Tensor:
        if episode not in self._rows:
            raise UserError(f"{self._folder}: holds no frames of episode {episode}; run the stage truth again")
        return torch.from_numpy(np.array(self._arrays[kind][self._rows[episode]]))


def array_path(folder: Path, kind: str) -> Path:
    """The path of the array (E, T, V, H, W, 3) of one of `KINDS`."""
    return folder / f"{kind}.npy"


def create_arrays(folder: Path, episodes: Sequence[int], shape: tuple[int, ...]) -> None:
    """Write the index and arrays of zeros for `episodes`; the frames of each episode have the shape `shape` (T, V, H, W, 3)."""
    folder.mkdir()
    for kind in KINDS:
        np.lib.format.open_memmap(array_path(folder, kind), "w+", np.uint8, (len(episodes), *shape)).flush()
    write_json(folder / INDEX, list(episodes))


def write_frames(folder: Path, rows: Iterable[int], episodes: Sequence[int], truth: TruthFrames) -> None:
    """Write the frames of `episodes[row]` for each of `rows`. Several processes may write to the same folder."""
    for row in rows:
        _write(array_path(folder, "recorded"), row, truth.recorded(episodes[row]))
        _write(array_path(folder, "decoded"), row, truth.decoded(episodes[row]))


def _write(path: Path, row: int, frames: Tensor) -> None:
    """Write through the file, not the memory map. A full disk then raises OSError; with a memory map it would kill the process."""
    start = np.load(path, mmap_mode="r").offset + row * frames.nbytes
    with path.open("r+b") as file:
        file.seek(start)
        file.write(frames.contiguous().numpy().data)


def truth_of(model: Model) -> Path:
    """The folder of the ground truth that a model is scored with. The ablations have episodes and a length of their own."""
    return ABLATION_TRUTH if model.role == "ablation" else TRUTH


def open_truth(params: Params, autoencoder: Autoencoder, folder: Path = TRUTH) -> TruthFrames:
    """The frames stored in `folder`; with `compute.store_truth: false`, frames that are decoded at every access."""
    return StoredTruth(folder) if params.compute.store_truth else LiveTruth(params, autoencoder)

"""Encodes episodes into latent shards, one episode at a time. Encoding is resumable, and several processes can share the work."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from persistworld.config.checks import require
from persistworld.config.data import EpisodesConfig, LatentsConfig
from persistworld.data.episodes import BadEpisode, EpisodeSource, frame_stride
from persistworld.data.frames import resized_batches
from persistworld.data.latents import Encoded
from persistworld.data.prefetch import prefetched
from persistworld.data.recorded_latents import RecordedLatents
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, write_json
from persistworld.runtime.progress import track
from persistworld.runtime.randomness import generator
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.views import images_to_float, stack_views

ABOUT = "episode"  # key of a file's metadata that holds the episode's Encoded
AHEAD = 2  # batches of frames that are decoded ahead of the encoder


@torch.no_grad()
def encode_episode(
    source: EpisodeSource,
    index: int,
    settings: EpisodesConfig,
    latents: LatentsConfig,
    batch: int,
    autoencoder: Autoencoder,
    seed: int,
) -> Tensor:
    """Scaled, stacked latents (T, C, V * h, w) float32 of one episode, `batch` images per autoencoder call. Raises BadEpisode.

    While one batch is encoded, a thread decodes and resizes the next one, also when that belongs to the next view. Memory
    holds the latents and a few batches of frames, whatever the length of the episode.
    """

    def batches() -> Iterator[tuple[str, Tensor]]:
        for view in settings.views:
            for frames in resized_batches(source, index, settings, view, batch):
                yield view, frames

    parts: dict[str, list[Tensor]] = {view: [] for view in settings.views}
    draws = {view: generator(seed, "posterior", index, number) for number, view in enumerate(settings.views)}
    shape = (autoencoder.sizes.latent_channels, settings.height // autoencoder.factor, settings.width // autoencoder.factor)
    with closing(prefetched(batches(), AHEAD)) as made:
        for view, frames in made:
            noise = None
            if latents.posterior == "sample":  # drawn per frame, so that the result does not depend on the batch size
                noise = torch.stack([torch.randn(shape, generator=draws[view]) for _ in frames])
            parts[view].append(autoencoder.encode(images_to_float(frames), noise).cpu())
    views = [torch.cat(parts[view]) for view in settings.views]
    if len({len(v) for v in views}) != 1:
        raise BadEpisode(index, f"views differ in length: {[len(v) for v in views]}")
    return stack_views(torch.stack(views, dim=1)).contiguous()  # with a single view, the tensor would be a transposed view


def encode_episodes(
    source: EpisodeSource,
    indices: Sequence[int],
    settings: EpisodesConfig,
    latents: LatentsConfig,
    batch: int,
    autoencoder: Autoencoder,
    seed: int,
    folder: Path,
    label: str,
) -> dict[int, str]:
    """Encode `indices` into `folder`, one file per episode. Returns index -> reason for the episodes that cannot be used.

    A file is written as soon as its episode is encoded, and existing files are kept. So a killed call resumes where it
    stopped, and several processes can fill one folder. The folder's name must therefore contain everything that the
    latents depend on. Raises UserError when the frame size is not a multiple of the autoencoder's downsampling factor.
    """
    _check_size(settings, autoencoder)
    if latents.source == "recorded":
        read = RecordedLatents(source, settings, autoencoder).episode
    else:
        def read(index: int) -> Tensor:
            return encode_episode(source, index, settings, latents, batch, autoencoder, seed)

    bad = {}
    for index in track(indices, len(indices), label):
        if (path := _episode_file(folder, index)).is_file():
            continue
        try:
            tensors, about = _with_poses(source, index, settings, read(index))
        except BadEpisode as error:
            bad[index] = error.reason
            continue
        with atomic_path(path) as part:
            save_file(tensors, part, {ABOUT: json.dumps(dataclasses.asdict(about))})
    return bad


def join_shard(indices: Sequence[int], bad: dict[int, str], folder: Path, path: Path) -> None:
    """Join the files that `encode_episodes` wrote to `folder` for the episodes `indices` into one shard at `path`.

    A .json beside the shard lists what is known of its episodes (`Encoded`) and those that are left out (`bad`: index -> reason). Raises
    UserError when an episode has no file and is not in `bad`: another process encoded it on a disk that is not shared.
    """
    tensors, episodes = {}, {}
    for index in indices:
        if index in bad:
            continue
        try:
            with safe_open(_episode_file(folder, index), "pt") as file:
                tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
                episodes[str(index)] = json.loads(file.metadata()[ABOUT])
        except FileNotFoundError:
            raise UserError(
                f"{_episode_file(folder, index)}: another process encoded it, but it is not here; put runs/ on a disk that all nodes "
                "share, or run each shard on one node"
            ) from None
    with atomic_path(path) as part:
        save_file(tensors, part)
    write_json(path.with_suffix(".json"), {"episodes": episodes, "bad": {str(index): reason for index, reason in bad.items()}})


def _episode_file(folder: Path, index: int) -> Path:
    return folder / f"{index}.safetensors"


def _check_size(settings: EpisodesConfig, autoencoder: Autoencoder) -> None:
    """Raise UserError unless the frame size is a multiple of the autoencoder's factor.

    The autoencoder drops rows and columns that do not fill a cell, so its output would be smaller than the frames.
    """
    factor = autoencoder.factor
    for key in ("height", "width"):
        size = getattr(settings, key)
        fitting = max(1, round(size / factor)) * factor
        advice = f"the checkpoint's autoencoder makes cells of {factor} pixels: choose a multiple, e.g. {fitting}"
        require(size % factor == 0, f"episodes.{key}", size, advice)


def _with_poses(source: EpisodeSource, index: int, settings: EpisodesConfig, encoded: Tensor) -> tuple[dict[str, Tensor], Encoded]:
    """The two tensors of one episode in a shard, latents and poses, and what else the recording says. Raises BadEpisode when they differ
    in length."""
    episode = source.episode(index)
    poses = torch.from_numpy(episode.pose[:: frame_stride(source.fps, settings.fps)].copy())
    if len(poses) != len(encoded):
        raise BadEpisode(index, f"{len(poses)} poses but {len(encoded)} frames")
    about = Encoded(len(encoded), episode.instruction, episode.success, episode.notes)
    return {str(index): encoded, f"{index}.poses": poses}, about

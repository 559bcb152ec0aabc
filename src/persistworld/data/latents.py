"""Latents and poses of all frames, in a few safetensors shards (uncompressed, so that a window is a seek and not a decode).

A shard holds, for each episode i, tensor "i" (T, C, V * h, w), the scaled and stacked latents, and "i.poses" (T, 7), both float32.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from persistworld import params
from persistworld.data.episodes import BadEpisode, EpisodeSource, frame_stride
from persistworld.data.prefetch import prefetched
from persistworld.errors import UserError
from persistworld.files import atomic_path, read_json, write_json
from persistworld.progress import track
from persistworld.randomness import generator
from persistworld.world_model.views import images_to_float, stack_views

if TYPE_CHECKING:  # diffusers takes seconds to import, and whoever has an autoencoder has imported it
    from persistworld.world_model.autoencoder import Autoencoder


AHEAD = 2  # batches of frames that wait for the encoder, or are being decoded for it
FEW = 4  # images that are resized at once: their floats stay in the cache, which is three times as fast as a batch


def resized_batches(source: EpisodeSource, index: int, settings: params.Episodes, view: str, batch: int) -> Iterator[Tensor]:
    """One view at the frame rate and size that the world model sees: (`batch` or, at the end, fewer; H, W, 3) uint8.

    Raises BadEpisode when it comes to what cannot be decoded, and at the end when the video is of another length.
    """
    size = (settings.height, settings.width)
    for part in source.frame_batches(index, view, frame_stride(source.fps, settings.fps), batch):
        frames = torch.from_numpy(part)
        yield frames if frames.shape[1:3] == size else torch.cat([_resized(few, size) for few in frames.split(FEW)])


def _resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    images = F.interpolate(frames.movedim(-1, 1).float(), size, mode="bilinear", antialias=True, align_corners=False)
    return images.round().clamp(0, 255).to(torch.uint8).movedim(1, -1)


def resized_frames(source: EpisodeSource, index: int, settings: params.Episodes, view: str) -> Tensor:
    """(T, H, W, 3) uint8: the whole view. Raises BadEpisode."""
    return torch.cat(list(resized_batches(source, index, settings, view, batch=64)))


@torch.no_grad()
def encode_episode(
    source: EpisodeSource,
    index: int,
    settings: params.Episodes,
    latents: params.Latents,
    autoencoder: "Autoencoder",
    seed: int,
) -> Tensor:
    """Scaled, stacked latents (T, C, V * h, w) float32 of one episode. Raises BadEpisode.

    While one batch is encoded a thread decodes and resizes the next, past the ends of views. Memory holds the latents and
    a few batches of frames, however long the episode.
    """

    def batches() -> Iterator[tuple[str, Tensor]]:
        for view in settings.views:
            for frames in resized_batches(source, index, settings, view, latents.batch):
                yield view, frames

    parts: dict[str, list[Tensor]] = {view: [] for view in settings.views}
    draws = {view: generator(seed, "posterior", index, number) for number, view in enumerate(settings.views)}
    shape = (autoencoder.sizes.latent_channels, settings.height // autoencoder.factor, settings.width // autoencoder.factor)
    with closing(prefetched(batches(), AHEAD)) as made:
        for view, frames in made:
            noise = None
            if latents.posterior == "sample":  # drawn frame by frame: `latents.batch` must not matter
                noise = torch.stack([torch.randn(shape, generator=draws[view]) for _ in frames])
            parts[view].append(autoencoder.encode(images_to_float(frames), noise).cpu())
    views = [torch.cat(parts[view]) for view in settings.views]
    if len({len(v) for v in views}) != 1:
        raise BadEpisode(index, f"views differ in length: {[len(v) for v in views]}")
    return stack_views(torch.stack(views, dim=1))


def encode_shard(
    source: EpisodeSource,
    indices: Sequence[int],
    settings: params.Episodes,
    latents: params.Latents,
    autoencoder: "Autoencoder",
    seed: int,
    path: Path,
    resume: Path | None = None,
) -> None:
    """Encode `indices` into `path`; beside it a .json lists frame counts and, with the reason, the episodes left out.

    With a folder `resume` of its own, every episode is kept there as soon as it is encoded, until the shard is whole: a
    killed call takes up where it stopped. Whatever an episode's latents depend on must be in the folder's name.
    """
    if latents.source == "recorded":
        from persistworld.data.recorded import RecordedLatents  # it needs this module

        read = RecordedLatents(source, settings, autoencoder).episode
    else:
        def read(index: int) -> Tensor:
            return encode_episode(source, index, settings, latents, autoencoder, seed)

    tensors, bad = {}, {}
    for index in track(indices, len(indices), path.stem):
        kept = resume and resume / f"{index}.safetensors"
        try:
            found = load_file(kept) if kept and kept.is_file() else _with_poses(source, index, settings, read(index))
        except BadEpisode as error:
            bad[str(index)] = error.reason
            continue
        if kept and not kept.is_file():
            with atomic_path(kept) as part:
                save_file(found, part)
        tensors |= found
    with atomic_path(path) as part:
        save_file(tensors, part)
    write_json(path.with_suffix(".json"), {"frames": {k: len(v) for k, v in tensors.items() if not k.endswith(".poses")}, "bad": bad})
    if resume:
        shutil.rmtree(resume, ignore_errors=True)  # not there when no episode could be used


def _with_poses(source: EpisodeSource, index: int, settings: params.Episodes, encoded: Tensor) -> dict[str, Tensor]:
    """A shard's two tensors of one episode. Raises BadEpisode when they differ in length."""
    poses = torch.from_numpy(source.episode(index).pose[:: frame_stride(source.fps, settings.fps)].copy())
    if len(poses) != len(encoded):
        raise BadEpisode(index, f"{len(poses)} poses but {len(encoded)} frames")
    return {str(index): encoded, f"{index}.poses": poses}


class LatentStore:
    """Reads latents and poses from the shards of a folder."""

    def __init__(self, folder: str | Path) -> None:
        self._shards = {}
        paths = sorted(Path(folder).glob("shard-*.safetensors"))
        if not paths:
            raise UserError(f"{folder}: no latent shards; run the stage 'latents' first")
        for path in paths:
            handle = safe_open(path, "pt")
            self._shards |= dict.fromkeys(handle.keys(), handle)

    def latents(self, episode: int, rows: Sequence[int] | slice = slice(None)) -> Tensor:
        """(len(rows), C, V * h, w) float32, scaled: these frames' latents, all by default."""
        return self._read(str(episode), rows)

    def poses(self, episode: int, rows: Sequence[int] | slice = slice(None)) -> Tensor:
        """(len(rows), 7) float32 in m, rad, 0..1: these frames' poses, all by default."""
        return self._read(f"{episode}.poses", rows)

    def _read(self, key: str, rows: Sequence[int] | slice) -> Tensor:
        view = self._shards[key].get_slice(key)
        if isinstance(rows, slice):
            return view[rows]
        low = min(rows)
        return view[low : max(rows) + 1][torch.as_tensor(rows) - low]


def read_shard_indices(folder: Path, shards: int) -> tuple[dict[int, int], dict[int, str]]:
    """Frame counts and bad episodes of all `shards` in a folder, from the .json beside each."""
    frames, bad = {}, {}
    for number in range(shards):
        raw = read_json(folder / f"shard-{number}.json")
        frames |= {int(k): v for k, v in raw["frames"].items()}
        bad |= {int(k): v for k, v in raw["bad"].items()}
    return frames, bad


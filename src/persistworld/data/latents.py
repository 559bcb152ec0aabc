"""Latents and poses of all frames, in a few safetensors shards (uncompressed, so that a window is a seek and not a decode).

A shard holds, for each episode i, tensor "i" (T, C, V * h, w), the scaled and stacked latents, and "i.poses" (T, 7), both float32.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from persistworld import params
from persistworld.data.episodes import BadEpisode, EpisodeSource, frame_stride
from persistworld.data.prefetch import prefetched
from persistworld.errors import UserError
from persistworld.files import atomic_path, read_json, write_json
from persistworld.progress import track
from persistworld.randomness import generator
from persistworld.ranges import require
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
    return stack_views(torch.stack(views, dim=1)).contiguous()  # of a single view it would be a transposed one


def encode_episodes(
    source: EpisodeSource,
    indices: Sequence[int],
    settings: params.Episodes,
    latents: params.Latents,
    autoencoder: "Autoencoder",
    seed: int,
    folder: Path,
    label: str,
) -> dict[int, str]:
    """Encode `indices` into `folder`, a file each as soon as it is encoded; returns those that cannot be used, with the reason.

    Files that are there are kept, so that a killed call takes up where it stopped, and several processes can fill one
    folder: whatever an episode's latents depend on must be in the folder's name. Raises UserError when frames cannot be
    divided into the autoencoder's cells.
    """
    _check_size(settings, autoencoder)
    if latents.source == "recorded":
        from persistworld.data.recorded import RecordedLatents  # it needs this module

        read = RecordedLatents(source, settings, autoencoder).episode
    else:
        def read(index: int) -> Tensor:
            return encode_episode(source, index, settings, latents, autoencoder, seed)

    bad = {}
    for index in track(indices, len(indices), label):
        if (path := _episode_file(folder, index)).is_file():
            continue
        try:
            found = _with_poses(source, index, settings, read(index))
        except BadEpisode as error:
            bad[index] = error.reason
            continue
        with atomic_path(path) as part:
            save_file(found, part)
    return bad


def join_shard(indices: Sequence[int], bad: dict[int, str], folder: Path, path: Path) -> None:
    """Write the episodes `indices` that `encode_episodes` left in `folder` into one shard; beside it a .json lists frame
    counts and, with the reason, the episodes left out (`bad`).

    Raises UserError when an episode is in neither: another process encoded it, on a disk of its own.
    """
    tensors = {}
    for index in indices:
        if index in bad:
            continue
        try:
            tensors |= load_file(_episode_file(folder, index))
        except FileNotFoundError:
            raise UserError(
                f"{_episode_file(folder, index)}: another process encoded it, but it is not here; put runs/ on a disk that all nodes "
                "share, or run each shard on one node"
            ) from None
    with atomic_path(path) as part:
        save_file(tensors, part)
    frames = {name: len(tensor) for name, tensor in tensors.items() if not name.endswith(".poses")}
    write_json(path.with_suffix(".json"), {"frames": frames, "bad": {str(index): reason for index, reason in bad.items()}})


def _episode_file(folder: Path, index: int) -> Path:
    return folder / f"{index}.safetensors"


def _check_size(settings: params.Episodes, autoencoder: "Autoencoder") -> None:
    """An autoencoder drops the rows and columns that do not fill a cell; what it decodes would be smaller than the frames."""
    factor = autoencoder.factor
    for key in ("height", "width"):
        size = getattr(settings, key)
        fitting = max(1, round(size / factor)) * factor
        mend = f"the checkpoint's autoencoder makes cells of {factor} pixels: choose a multiple, e.g. {fitting}"
        require(size % factor == 0, f"episodes.{key}", size, mend)


def _with_poses(source: EpisodeSource, index: int, settings: params.Episodes, encoded: Tensor) -> dict[str, Tensor]:
    """A shard's two tensors of one episode. Raises BadEpisode when they differ in length."""
    poses = torch.from_numpy(source.episode(index).pose[:: frame_stride(source.fps, settings.fps)].copy())
    if len(poses) != len(encoded):
        raise BadEpisode(index, f"{len(poses)} poses but {len(encoded)} frames")
    return {str(index): encoded, f"{index}.poses": poses}


class LatentStore:
    """Reads latents and poses from the shards of a folder."""

    def __init__(self, folder: str | Path, settings: params.Episodes | None = None) -> None:
        """Raises UserError when there are no shards, or `settings` are given and the latents are of other views or sizes."""
        self.folder, self._shards = folder, {}
        paths = sorted(Path(folder).glob("shard-*.safetensors"))
        if not paths:
            raise UserError(f"{folder}: no latent shards; run the stage 'latents' first")
        for path in paths:
            try:
                handle = safe_open(path, "pt")
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path}: not a whole shard ({error}); delete it and run the stage 'latents' again") from None
            self._shards |= dict.fromkeys(handle.keys(), handle)
        if settings is not None:
            self._check_views(folder, settings)

    def _check_views(self, folder: str | Path, settings: params.Episodes) -> None:
        """As many views as `settings` name, in their proportions. Rows of three views would be read as two without complaint."""
        name = next((name for name in self._shards if not name.endswith(".poses")), None)
        if name is None:
            return
        rows, columns = self._shards[name].get_slice(name).get_shape()[2:]
        found = rows * settings.width / (columns * settings.height)  # a view has height / f rows and width / f columns
        require(
            found == len(settings.views), "episodes.views", ", ".join(settings.views),
            f"the latents in {folder}, {rows} x {columns}, are of {found:g} views of {settings.height} x {settings.width} pixels; "
            "run the stage 'latents' again",
        )  # fmt: skip

    def latents(self, episode: int, rows: Sequence[int] | slice = slice(None)) -> Tensor:
        """(len(rows), C, V * h, w) float32, scaled: these frames' latents, all by default. Raises UserError without the episode."""
        return self._read(str(episode), rows)

    def poses(self, episode: int, rows: Sequence[int] | slice = slice(None)) -> Tensor:
        """(len(rows), 7) float32 in m, rad, 0..1: these frames' poses, all by default."""
        return self._read(f"{episode}.poses", rows)

    def _read(self, key: str, rows: Sequence[int] | slice) -> Tensor:
        if key not in self._shards:
            raise UserError(
                f"{self.folder}: no shard holds episode {key.removesuffix('.poses')}, which data/manifest.json lists; "
                "run the stages 'latents' and 'manifest' again"
            )
        view = self._shards[key].get_slice(key)
        if isinstance(rows, slice):
            return view[rows]
        low = min(rows)
        return view[low : max(rows) + 1][torch.as_tensor(rows) - low]


def read_shard_indices(folder: Path, shards: int) -> tuple[dict[int, int], dict[int, str]]:
    """Frame counts and bad episodes of all `shards` in a folder, from the .json beside each."""
    frames, bad = {}, {}
    for number in range(shards):
        raw = read_json(path := folder / f"shard-{number}.json")
        try:
            frames |= {int(k): v for k, v in raw["frames"].items()}
            bad |= {int(k): v for k, v in raw["bad"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path}: not a shard's index ({error!r}); delete it and run the stage 'latents' again") from None
    return frames, bad


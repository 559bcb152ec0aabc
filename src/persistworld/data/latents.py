"""Stores latents and poses of all frames in a few safetensors shards. They are uncompressed, so that reading a window needs only a seek.

For each episode i, a shard holds two float32 tensors: "i" (T, C, V * h, w), the scaled and stacked latents, and "i.poses" (T, 7).
A .json beside it says what else was read with them, so that no later stage reads the recordings for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from persistworld.config.checks import require
from persistworld.config.data import EpisodesConfig
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json


@dataclass(frozen=True)
class Encoded:
    """What a shard's .json says of an episode. `frames` is counted at the world model's frame rate; the rest is as in `Episode`."""

    frames: int
    instruction: str
    success: bool | None
    notes: tuple[str, ...] = ()


class LatentStore:
    """Reads latents and poses from the shards of a folder."""

    def __init__(self, folder: str | Path, settings: EpisodesConfig | None = None) -> None:
        """Raises UserError when there are no shards, or when `settings` are given and the latents have other views or sizes."""
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

    def _check_views(self, folder: str | Path, settings: EpisodesConfig) -> None:
        """Raise UserError unless the latents have the number and the aspect ratio of the views in `settings`.

        Without this check, latents of three views would be read as two without an error.
        """
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
        """Scaled latents of the frames `rows` (default: all), (len(rows), C, V * h, w) float32. Raises UserError for an unknown episode."""
        return self._read(str(episode), rows)

    def poses(self, episode: int, rows: Sequence[int] | slice = slice(None)) -> Tensor:
        """Poses of the frames `rows` (default: all), (len(rows), 7) float32 in m, rad and 0..1. Raises UserError for an unknown episode."""
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


def read_shard_indices(folder: Path, shards: int) -> tuple[dict[int, Encoded], dict[int, str]]:
    """The encoded episodes (index -> Encoded) and bad ones (index -> reason) of all `shards` in a folder, from the .json beside each shard.

    Raises UserError when a .json is damaged.
    """
    encoded, bad = {}, {}
    for number in range(shards):
        raw = read_json(path := folder / f"shard-{number}.json")
        try:
            encoded |= {int(k): Encoded(**v | {"notes": tuple(v["notes"])}) for k, v in raw["episodes"].items()}
            bad |= {int(k): v for k, v in raw["bad"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{path}: not a shard's index ({error!r}); delete it and run the stage 'latents' again") from None
    return encoded, bad

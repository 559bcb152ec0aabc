"""Latents and poses of all frames, in a few safetensors shards (uncompressed, so that a window is a seek and not a decode).

A shard holds, for each episode i, tensor "i" (T, C, V * h, w), the scaled and stacked latents, and "i.poses" (T, 7), both float32.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from persistworld.config.checks import require
from persistworld.config.data import EpisodesConfig
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json


class LatentStore:
    """Reads latents and poses from the shards of a folder."""

    def __init__(self, folder: str | Path, settings: EpisodesConfig | None = None) -> None:
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

    def _check_views(self, folder: str | Path, settings: EpisodesConfig) -> None:
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


"""Scores generated frames against the ground truth, for every frame, view, region, metric and protocol (paper, section 4).

Protocols: `decoded` compares with the autoencoder's reconstruction of the ground truth (the best that the world model could generate);
`raw` compares with the data set's frames. Regions: `full`, and `robot` and `object` from the ground truth's masks. A frame with an empty
mask has no row.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from persistworld.config.evaluation import MetricsConfig
from persistworld.data.windows import CHUNK_STRIDE
from persistworld.evaluation.conventions import comparison
from persistworld.evaluation.frame_metrics import masked_mean, psnr_of, squared_error_map
from persistworld.evaluation.perceptual import PerceptualDistance

REGIONS = {"robot": 1, "object": 2}
BATCH = 19  # frames that are scored together: few enough to stay in the CPU cache

Columns = dict[tuple[str, str, str], Tensor]  # (protocol, region, metric) -> (T,), NaN where the mask is empty


@dataclass(frozen=True)
class Truth:
    """The ground truth of one episode. raw, decoded: uint8 (T, V, H, W, 3); masks: (T, V, H, W) or None."""

    episode: int
    raw: Tensor
    decoded: Tensor
    masks: Tensor | None


class Scorer:
    """Scores the rollouts of one episode at a time, on the perceptual network's device, and counts the empty masks.

    convention: the convention of SSIM and PSNR (evaluation/conventions.py).
    """

    def __init__(
        self, perceptual: PerceptualDistance, settings: MetricsConfig, views: tuple[str, ...], convention: str = "ctrl_world"
    ) -> None:
        self.perceptual, self.settings, self.views, self.convention = perceptual, settings, views, convention
        self.empty_masks: Counter[str] = Counter()

    @torch.no_grad()
    def score(self, rollouts: Mapping[tuple[str, int], Tensor], truth: Truth) -> pd.DataFrame:
        """The rows of one episode. rollouts: (model, seed) -> uint8 (T, V, H, W, 3). Frame 0 is the given frame, generated again.

        The ground truth's statistics and features are computed once for all rollouts. A rollout's features are computed once for both
        protocols, because the perceptual network takes nearly all of the time.
        """
        keys, values, device = [], [], self.perceptual.device
        for place, view in enumerate(self.views):
            films = [_images(frames[:, place].to(device)) for frames in rollouts.values()]
            truths = {"decoded": truth.decoded, "raw": truth.raw}
            targets = {protocol: _images(frames[:, place].to(device)) for protocol, frames in truths.items()}
            labels = None if truth.masks is None else truth.masks[:, place].to(device)
            for (model, seed), columns in zip(rollouts, self._view(films, targets, labels), strict=True):
                keys += [(*names, view, model, seed) for names in columns]
                values += columns.values()
        return _rows(keys, torch.stack(values).cpu().numpy()).assign(episode=truth.episode)

    def _view(self, films: list[Tensor], targets: dict[str, Tensor], labels: Tensor | None) -> list[Columns]:
        """The columns of each video (T, 3, H, W) of one view, compared with the targets of both protocols."""
        masks = {} if labels is None else {region: labels == label for region, label in REGIONS.items()}
        batches = []
        for start in range(0, len(films[0]), BATCH):
            rows = slice(start, start + BATCH)
            parts = ({name: images[rows] for name, images in group.items()} for group in (targets, masks))
            batches.append(self._batch([film[rows] for film in films], *parts))
        return [{name: torch.cat([part[name] for part in parts]) for name in parts[0]} for parts in zip(*batches, strict=True)]

    def _batch(self, films: list[Tensor], targets: dict[str, Tensor], masks: dict[str, Tensor]) -> list[Columns]:
        """`_view` for one batch of frames. masks: region -> (T, H, W) bool."""
        found: list[Columns] = [{} for _ in films]
        for protocol, target in targets.items():
            known = comparison(target, self.convention, self.settings.ssim_window)
            for columns, film in zip(found, films, strict=True):
                columns[protocol, "full", "ssim"], similarity = known.ssim(film)
                columns[protocol, "full", "psnr"] = known.psnr(film)
                error = squared_error_map(film, target) if masks else None
                for region, mask in masks.items():
                    columns[protocol, region, "ssim"] = masked_mean(similarity, mask)
                    columns[protocol, region, "psnr"] = psnr_of(masked_mean(error, mask))
        spatial = self.settings.masked_lpips == "spatial"
        self._lpips(found, films, targets, masks if spatial else {})
        if not spatial:
            for region, mask in masks.items():
                self._multiplied_lpips(found, films, targets, region, mask)
        return found

    def _lpips(self, found: list[Columns], films: list[Tensor], targets: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
        """Add LPIPS to each video's columns: of the full frames, and the mean of the LPIPS map over every mask."""
        truths = {protocol: self._features(target) for protocol, target in targets.items()}
        for columns, film in zip(found, films, strict=True):
            features = self._features(film)
            for protocol, known in truths.items():
                if not masks:
                    columns[protocol, "full", "lpips"] = self.perceptual.distance(features, known)
                    continue
                whole, distances = self.perceptual.distance_and_map(features, known, film.shape[-2:])
                columns[protocol, "full", "lpips"] = whole
                for region, mask in masks.items():
                    columns[protocol, region, "lpips"] = masked_mean(distances, mask)

    def _multiplied_lpips(self, found: list[Columns], films: list[Tensor], targets: dict[str, Tensor], region: str, mask: Tensor) -> None:
        """Add one region's LPIPS, computed on images that are zero outside its mask. For an empty mask it is NaN and not computed."""
        shown = mask.flatten(1).any(dim=1)
        for columns in found:
            for protocol in targets:
                columns[protocol, region, "lpips"] = torch.full(shown.shape, float("nan"), device=shown.device)
        if not shown.any():  # the region is out of view
            return
        weight = mask[shown][:, None]
        truths = {protocol: self._features(target[shown] * weight) for protocol, target in targets.items()}
        for columns, film in zip(found, films, strict=True):
            features = self._features(film[shown] * weight)
            for protocol, known in truths.items():
                columns[protocol, region, "lpips"][shown] = self.perceptual.distance(features, known)

    def _features(self, images: Tensor) -> list[Tensor]:
        return self.perceptual.features(images * 2 - 1)

    def count_empty(self, masks: Tensor) -> None:
        """Count the frames of `masks` (T, V, H, W) without robot, and without object, per view."""
        for region, label in REGIONS.items():
            empty = ~(masks == label).flatten(2).any(dim=2)
            for place, view in enumerate(self.views):
                self.empty_masks[f"{region}.{view}"] += int(empty[:, place].sum())


def _rows(keys: list[tuple[str, str, str, str, str, int]], values: np.ndarray) -> pd.DataFrame:
    """One row for every number in `values` (len(keys), T) that is not NaN; keys: (protocol, region, metric, view, model, seed)."""
    count = values.shape[1]
    frames = np.tile(np.arange(count), len(keys))
    names = {
        name: np.repeat(np.array(column, dtype=object if isinstance(column[0], str) else None), count)
        for name, column in zip(("protocol", "region", "metric", "view", "model", "seed"), zip(*keys, strict=True), strict=True)
    }
    chunks = np.maximum(frames - 1, 0) // CHUNK_STRIDE
    return pd.DataFrame({"frame": frames, "value": values.ravel(), **names, "chunk": chunks}).dropna(subset="value")


def _images(frames: Tensor) -> Tensor:
    """uint8 (T, H, W, 3) -> float (T, 3, H, W) in [0, 1]."""
    return frames.movedim(-1, 1).float() / 255

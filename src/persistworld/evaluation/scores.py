"""Scores of generated frames against the ground truth: every frame, view, region, metric and protocol (FACTS 1, 3, 4).

Protocols: `decoded` compares with the ground truth as the autoencoder reconstructs it (what the world model could reach
at best), `raw` with the dataset's frames. Regions: `full`, and `robot` and `object` by the ground truth's masks; an
empty mask has no row.
"""

from collections import Counter
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from persistworld import params
from persistworld.data.windows import CHUNK_STRIDE
from persistworld.metrics.frame import masked_mean, psnr_of, squared_error_map, ssim_map, ssim_target, valid_mean
from persistworld.metrics.perceptual import PerceptualDistance

REGIONS = {"robot": 1, "object": 2}
BATCH = 32  # images per pass of the perceptual network: what stays in the processor's cache

Columns = dict[tuple[str, str, str], Tensor]  # (protocol, region, metric) -> (T,), NaN where the mask is empty


@dataclass(frozen=True)
class Truth:
    """Ground truth of one episode. raw, decoded: uint8 (T, V, H, W, 3); masks: (T, V, H, W) or None."""

    episode: int
    raw: Tensor
    decoded: Tensor
    masks: Tensor | None


class Scorer:
    """Scores one episode's rollouts at a time, where the perceptual network is; counts the empty masks that it meets."""

    def __init__(self, perceptual: PerceptualDistance, settings: params.Metrics, views: tuple[str, ...]) -> None:
        self.perceptual, self.settings, self.views = perceptual, settings, views
        self.empty_masks: Counter[str] = Counter()

    @torch.no_grad()
    def score(self, model: str, rollouts: dict[int, Tensor], truth: Truth) -> pd.DataFrame:
        """The rows of all of a model's rollouts of an episode, by seed; each uint8 (T, V, H, W, 3), frame 0 given.

        The ground truth's statistics and features are computed once for all seeds, a rollout's features once for both
        protocols: the perceptual network is nearly all of the time.
        """
        parts, device = [], self.perceptual.device
        for place, view in enumerate(self.views):
            films = [_images(frames[:, place].to(device)) for frames in rollouts.values()]
            truths = {"decoded": truth.decoded, "raw": truth.raw}
            targets = {protocol: _images(frames[:, place].to(device)) for protocol, frames in truths.items()}
            labels = None if truth.masks is None else truth.masks[:, place].to(device)
            for seed, columns in zip(rollouts, self._view(films, targets, labels), strict=True):
                for (protocol, region, metric), values in columns.items():
                    rows = pd.DataFrame({"frame": range(len(values)), "value": values.float().cpu().numpy()})
                    names = {"protocol": protocol, "region": region, "metric": metric, "view": view, "seed": seed}
                    parts.append(rows.assign(**names))
        table = pd.concat(parts, ignore_index=True).dropna(subset="value")
        table["chunk"] = ((table["frame"] - 1).clip(lower=0)) // CHUNK_STRIDE
        return table.assign(model=model, episode=truth.episode)

    def _view(self, films: list[Tensor], targets: dict[str, Tensor], labels: Tensor | None) -> list[Columns]:
        """The columns of each film (T, 3, H, W) of one view against the targets of both protocols."""
        window = self.settings.ssim_window
        masks = {} if labels is None else {region: labels == label for region, label in REGIONS.items()}
        found: list[Columns] = [{} for _ in films]
        for protocol, target in targets.items():
            statistics = ssim_target(target, window)
            for columns, film in zip(found, films, strict=True):
                similarity, error = ssim_map(film, statistics), squared_error_map(film, target)
                columns[protocol, "full", "ssim"] = valid_mean(similarity, window)
                columns[protocol, "full", "psnr"] = psnr_of(error.mean(dim=(1, 2)))
                for region, mask in masks.items():
                    columns[protocol, region, "ssim"] = masked_mean(similarity, mask)
                    columns[protocol, region, "psnr"] = psnr_of(masked_mean(error, mask))
        self._lpips(found, films, targets, "full", None, masks)
        if self.settings.masked_lpips == "multiplied":
            for region, mask in masks.items():
                self._lpips(found, films, targets, region, mask, {})
        return found

    def _lpips(
        self,
        found: list[Columns],
        films: list[Tensor],
        targets: dict[str, Tensor],
        region: str,
        weight: Tensor | None,
        masks: dict[str, Tensor],
    ) -> None:
        """Add LPIPS of one region to each film's columns, of images multiplied by `weight` if given.

        Images whose weight is zero everywhere are not computed. With masked_lpips 'spatial', `masks` are the regions to
        average the map over.
        """
        count = len(films[0])
        device = films[0].device
        chosen = torch.arange(count, device=device) if weight is None else weight.flatten(1).any(dim=1).nonzero()[:, 0]
        for columns in found:
            for protocol in targets:
                columns[protocol, region, "lpips"] = torch.full((count,), float("nan"), device=device)
        if len(chosen) == 0:  # a view that never shows the region
            return
        for rows in chosen.split(BATCH):
            part = None if weight is None else weight[rows]
            truths = {protocol: self._features(target[rows], part) for protocol, target in targets.items()}
            for columns, film in zip(found, films, strict=True):
                features = self._features(film[rows], part)
                for protocol, known in truths.items():
                    if self.settings.masked_lpips != "spatial" or not masks:
                        columns[protocol, region, "lpips"][rows] = self.perceptual.distance(features, known)
                    else:
                        whole, spatial = self.perceptual.distance_and_map(features, known, film.shape[-2:])
                        columns[protocol, region, "lpips"][rows] = whole
                        for name, mask in masks.items():
                            empty = torch.full((count,), float("nan"), device=device)
                            values = columns.setdefault((protocol, name, "lpips"), empty)
                            values[rows] = masked_mean(spatial, mask[rows])

    def _features(self, images: Tensor, weight: Tensor | None) -> list[Tensor]:
        return self.perceptual.features((images if weight is None else images * weight[:, None]) * 2 - 1)

    def count_empty(self, masks: Tensor) -> None:
        """Count (frame, view) pairs of `masks` (T, V, H, W) without robot or object."""
        for region, label in REGIONS.items():
            empty = ~(masks == label).flatten(2).any(dim=2)
            for place, view in enumerate(self.views):
                self.empty_masks[f"{region}.{view}"] += int(empty[:, place].sum())


def _images(frames: Tensor) -> Tensor:
    """uint8 (T, H, W, 3) -> float (T, 3, H, W) in [0, 1]."""
    return frames.movedim(-1, 1).float() / 255

"""Frechet distances between generated and recorded frames (FID; Heusel et al. 2017, arXiv 1706.08500), by torchmetrics.

Two normal distributions are fitted to the features of a network: of recorded frames, and of a model's frames. Their Frechet distance is
|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)). A score is named by its network; scores of different networks are not comparable.

On the tabletop the network is the small one behind `metrics.lpips: tabletop`; elsewhere it is Inception v3, as in the literature.
Clips stand for videos: no video network (I3D) is used, so the distance of clips is not the FVD of the literature.
"""

import urllib.error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from persistworld.data.windows import CHUNK_STRIDE
from persistworld.evaluation.perceptual import TABLETOP_FILE, load_segmentation_backbone
from persistworld.evaluation.score_table import view_group, view_groups
from persistworld.evaluation.segmentation_backbone import SegmentationBackbone
from persistworld.runtime.errors import UserError
from persistworld.world_model.views import images_to_float

BATCH = 64  # images
GROUPS = 16  # of episodes, for standard errors
KINDS = ("frames", "clips")
LARGEST = 512  # numbers of a feature up to which standard errors are computed: a distance takes the eigenvalues of such a matrix


class FrameFeatures(Protocol):
    """A network that describes single frames. name: as printed; size: D."""

    name: str
    size: int

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> features (N, D) float32 on the CPU."""


class TabletopFeatures:
    """The last feature map of the tabletop's perceptual network, averaged over positions, as Inception's last one is for FID."""

    name = "the tabletop's perceptual network"

    def __init__(self, network: SegmentationBackbone, place: torch.device) -> None:
        self._network, self._place = network.to(place).eval(), place
        self.size = network.class_heads[-1].in_channels

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        parts = (self._network(images_to_float(part.to(self._place)))[-1].mean(dim=(2, 3)) for part in frames.split(BATCH))
        return torch.cat([part.cpu() for part in parts])


class InceptionFeatures:
    """The last pooled features of torchmetrics' Inception v3, the network of FID. It resizes the frames itself."""

    name, size = "Inception v3", 2048

    def __init__(self, place: torch.device) -> None:
        """Raises UserError when torch-fidelity or its weights are missing."""
        try:
            self._network = FrechetInceptionDistance(feature=self.size).inception.to(place)
        except ModuleNotFoundError:
            raise UserError(
                "fidelity: Inception v3 needs the package torch-fidelity: pip install torch-fidelity; or set metrics.lpips: tabletop"
            ) from None
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise UserError(
                f"fidelity: Inception v3's weights are neither in {folder} nor to be downloaded ({' '.join(str(error).split())}); put the "
                "file that torch-fidelity names there"
            ) from None
        self._place = place

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        return torch.cat([self._network(part.movedim(-1, 1).to(self._place)).float().cpu() for part in frames.split(BATCH)])


def load_features(lpips: str, checkpoint_folder: str | Path, place: torch.device) -> FrameFeatures:
    """The network for `metrics.lpips`: tabletop's own (from the base checkpoint's folder), or Inception v3. Raises UserError."""
    if lpips == "tabletop":
        return TabletopFeatures(load_segmentation_backbone(Path(checkpoint_folder) / TABLETOP_FILE), place)
    return InceptionFeatures(place)


def clip_features(features: Tensor) -> Tensor:
    """Frame features (..., T, D) of rollouts -> features (..., chunks, 2 D) of their clips.

    A clip is a chunk: its current frame and the CHUNK_STRIDE new ones. Its features are the mean of the frames' features, and the mean of
    the absolute differences of neighbouring frames' features, which tells a jerk or a flicker from a smooth motion.
    """
    clips = features.unfold(-2, CHUNK_STRIDE + 1, CHUNK_STRIDE)  # (..., chunks, D, frames)
    return torch.cat([clips.mean(dim=-1), clips.diff(dim=-1).abs().mean(dim=-1)], dim=-1)


class _AsTheyAre(nn.Module):
    """A feature module for features that were computed before."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, made: Tensor) -> float:
    """The Frechet distance of features (N, D) and (M, D), in float64, with unbiased covariances. Needs two of each."""
    metric = FrechetInceptionDistance(feature=_AsTheyAre(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(made.double(), real=False)
    return float(metric.compute())


def distances(real: Tensor, made: Tensor) -> list[float]:
    """The Frechet distance of features (E, n, D) of the same E episodes, then the distances without each group of episodes.

    Episode e is in group e % GROUPS. `jackknife` makes standard errors of these lists. No groups where features are larger than LARGEST,
    or of fewer than three episodes.
    """
    found = [frechet_distance(real.flatten(0, 1), made.flatten(0, 1))]
    groups = min(GROUPS, len(real))
    if real.shape[-1] > LARGEST or groups < 3:
        return found
    group = torch.arange(len(real)) % groups
    return found + [frechet_distance(real[group != k].flatten(0, 1), made[group != k].flatten(0, 1)) for k in range(groups)]


@dataclass(frozen=True)
class FrechetScore:
    """One distance. values: as `distances` returns them. samples, size: of each of the two sets: how many features, of how many numbers."""

    values: tuple[float, ...]
    samples: int
    size: int


def frechet_scores(truths: Mapping[str, Tensor], made: Sequence[Tensor], views: Sequence[str]) -> dict[tuple[str, str, str], FrechetScore]:
    """(protocol, kind of KINDS, group of views) -> a model's distance, the mean over the group's views and over the seeds.

    truths: protocol -> frame features (E, T, V, D) of the recordings; made: the same of the model's rollouts, one per seed. Every distance
    is of one view and one seed, so that it has as many samples for a model with one seed as for a model with many.
    """
    found = {}
    for protocol, truth in truths.items():
        for kind in KINDS:
            real, seeds = _samples(truth, kind), [_samples(seed, kind) for seed in made]
            for group in view_groups(views):
                places = [place for place, view in enumerate(views) if view_group(view) == group]
                each = [distances(real[:, :, place], seed[:, :, place]) for place in places for seed in seeds]
                values = tuple(sum(column) / len(each) for column in zip(*each, strict=True))
                found[protocol, kind, group] = FrechetScore(values, real.shape[0] * real.shape[1], real.shape[3])
    return found


def _samples(features: Tensor, kind: str) -> Tensor:
    """Frame features (E, T, V, D) -> those of a kind, (E, n, V, size)."""
    return clip_features(features.transpose(1, 2)).transpose(1, 2) if kind == "clips" else features


def jackknife(values: Sequence[float]) -> float:
    """The standard error of values[0], from the same number without each group of episodes (delete-a-group jackknife).

    It holds for any mean or difference of `distances`, number by number. nan without groups.
    """
    left_out = torch.tensor(values[1:], dtype=torch.float64)
    if not len(left_out):
        return float("nan")
    return float(((len(left_out) - 1) * left_out.var(correction=0)).sqrt())

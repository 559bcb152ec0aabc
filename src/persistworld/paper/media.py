"""Selects the episodes to show and reads their recorded and generated frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from persistworld.config.models import OURS, THEIRS
from persistworld.config.params import Params
from persistworld.data.manifest import load_manifest
from persistworld.evaluation.masks import MaskStore
from persistworld.evaluation.rollout_files import read_rollout
from persistworld.evaluation.score_table import Scores, cell_values, view_group
from persistworld.evaluation.statistics import LOWER_IS_BETTER
from persistworld.evaluation.truth import open_truth
from persistworld.runtime.distributed import device
from persistworld.runtime.workspace import BASE, MANIFEST
from persistworld.world_model.autoencoder import decode_views, load_autoencoder

DECODED = 32  # images per decoder call: 8 GB at 192 x 320
VISIBLE = 0.8  # a region is shown only from episodes where it is visible in at least this share of the frames


@dataclass(frozen=True)
class Media:
    """One episode's frames, uint8 (T, V, H, W, 3) for T frames and V views: the recorded ones, and the generated ones by model.

    `masks` is uint8 (T, V, H, W): 0 background, 1 robot, 2 object. It is None if masks were not requested.
    """

    episode: int
    seed: int
    instruction: str
    views: tuple[str, ...]
    truth: np.ndarray
    generated: dict[str, np.ndarray]
    masks: np.ndarray | None


def ranked_episodes(scores: Scores, protocol: str, group: str, region: str, metric: str) -> pd.Series:
    """Each episode's gain of the post-trained model over the base in one cell, largest first.

    For a region, only episodes where it is visible in four fifths of the frames are ranked. If there are none, all episodes are.
    """
    values = scores.cells
    mine, other = (cell_values(values, protocol, model, group, region, metric) for model in (OURS, THEIRS))
    common = mine.index.intersection(other.index)
    gain = (mine[common] - other[common]) * (-1 if metric in LOWER_IS_BETTER else 1)
    frame = scores.frame
    rows = frame[
        (frame["model"] == OURS) & (frame["metric"] == metric) & (frame["protocol"] == protocol)
        & (frame["view"].map(view_group) == group)
    ]  # fmt: skip
    in_view, whole = rows[rows["region"] == region], rows[rows["region"] == "full"]
    seen = in_view.groupby("episode").size()
    frames = whole.groupby("episode").size().reindex(seen.index)
    clear = gain[gain.index.isin(seen[seen >= VISIBLE * frames].index)]
    # The order is deterministic: equal gains are sorted by episode.
    return (clear if len(clear) else gain).sort_index().sort_values(ascending=False, kind="stable")


def ranked_by_object(scores: Scores, protocol: str, group: str) -> tuple[str, pd.Series]:
    """The region for ranking episodes, and their PSNR gains: the object, which rollouts tend to lose, or the full frame without masks."""
    ranked = ranked_episodes(scores, protocol, group, "object", "psnr")
    return ("object", ranked) if len(ranked) else ("full", ranked_episodes(scores, protocol, group, "full", "psnr"))


def spread_over(ranked: pd.Series, count: int) -> list[tuple[int, int]]:
    """(episode, rank from 1) at `count` evenly spaced ranks from first to last. For a count of 1, the median."""
    count = min(count, len(ranked))
    if count == 0:
        return []
    places = [(len(ranked) - 1) / 2] if count == 1 else np.linspace(0, len(ranked) - 1, count)
    return [(int(ranked.index[int(place)]), int(place) + 1) for place in places]


class MediaReader:
    """Reads episodes' frames and decodes their rollouts for figures and the report. Each episode is read once."""

    def __init__(self, params: Params, models: Sequence[str], seed: int, masks: MaskStore | None = None) -> None:
        self.params, self.models, self.seed, self.masks = params, tuple(models), seed, masks
        self.autoencoder = load_autoencoder(BASE).to(device())
        self.truth = open_truth(params, self.autoencoder)
        self.instructions = {entry.index: entry.instruction for entry in load_manifest(MANIFEST).episodes}
        self.known: dict[int, Media] = {}

    def read(self, episode: int) -> Media:
        """The episode's frames, as many as its rollouts have."""
        if episode not in self.known:
            views = self.params.episodes.views
            latents = {model: read_rollout(model, self.seed, episode) for model in self.models}
            generated = {
                model: decode_views(self.autoencoder, stack, len(views), DECODED).numpy() for model, stack in latents.items()
            }
            truth = self.truth.recorded(episode).numpy()
            masks = None if self.masks is None else self.masks.masks(episode)[: len(truth)].numpy()
            self.known[episode] = Media(episode, self.seed, self.instructions[episode], views, truth, generated, masks)
        return self.known[episode]

"""Frames to show: which episodes, and their recorded and generated pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from persistworld.config.params import Params
from persistworld.data.manifest import load_manifest
from persistworld.evaluation.masks import MaskStore
from persistworld.evaluation.rollout_files import read_rollout
from persistworld.evaluation.score_table import Scores, cell_values, episode_cells, view_group
from persistworld.evaluation.statistics import LOWER_IS_BETTER
from persistworld.evaluation.truth import open_truth
from persistworld.runtime.distributed import device
from persistworld.runtime.workspace import BASE, MANIFEST
from persistworld.world_model.autoencoder import decode_views, load_autoencoder

DECODED = 32  # images that are decoded at once: 8 GB at 192 x 320
VISIBLE = 0.8  # a region is shown only in episodes where it is in view in this share of the frames


@dataclass(frozen=True)
class Media:
    """One episode's pictures, T frames and V views: uint8 (T, V, H, W, 3) recorded and, by model, generated.

    `masks` is uint8 (T, V, H, W) in 0 background, 1 robot, 2 object, or None where nobody asked for them.
    """

    episode: int
    seed: int
    instruction: str
    views: tuple[str, ...]
    truth: np.ndarray
    generated: dict[str, np.ndarray]
    masks: np.ndarray | None


def ranked_episodes(scores: Scores, protocol: str, group: str, region: str, metric: str) -> pd.Series:
    """Every episode's gain of the post-trained model over the base in one cell, the largest first.

    For a region, only episodes are ranked in which it is visible in four fifths of the frames, if there are any.
    """
    values = episode_cells(scores.frame)
    mine, other = (cell_values(values, protocol, model, group, region, metric) for model in ("post_trained", "base"))
    common = mine.index.intersection(other.index)
    gain = (mine[common] - other[common]) * (-1 if metric in LOWER_IS_BETTER else 1)
    frame = scores.frame
    rows = frame[
        (frame["model"] == "post_trained") & (frame["metric"] == metric) & (frame["protocol"] == protocol)
        & (frame["view"].map(view_group) == group)
    ]  # fmt: skip
    in_view, whole = rows[rows["region"] == region], rows[rows["region"] == "full"]
    seen = in_view.groupby("episode").size()
    frames = whole.groupby("episode").size().reindex(seen.index)
    clear = gain[gain.index.isin(seen[seen >= VISIBLE * frames].index)]
    # A stable order: equal gains by episode.
    return (clear if len(clear) else gain).sort_index().sort_values(ascending=False, kind="stable")


def ranked_by_object(scores: Scores, protocol: str, group: str) -> tuple[str, pd.Series]:
    """The region that episodes are ranked by, and their PSNR gains: the object, which rollouts tend to lose, or without masks all."""
    ranked = ranked_episodes(scores, protocol, group, "object", "psnr")
    return ("object", ranked) if len(ranked) else ("full", ranked_episodes(scores, protocol, group, "full", "psnr"))


def spread_over(ranked: pd.Series, count: int) -> list[tuple[int, int]]:
    """(episode, rank from 1) at `count` evenly spaced ranks from the first to the last; one alone is the median."""
    count = min(count, len(ranked))
    if count == 0:
        return []
    places = [(len(ranked) - 1) / 2] if count == 1 else np.linspace(0, len(ranked) - 1, count)
    return [(int(ranked.index[int(place)]), int(place) + 1) for place in places]


class MediaReader:
    """Reads the frames of episodes for figures and the report, and decodes their rollouts; an episode once."""

    def __init__(self, params: Params, models: Sequence[str], seed: int, masks: MaskStore | None = None) -> None:
        self.params, self.models, self.seed, self.masks = params, tuple(models), seed, masks
        self.autoencoder = load_autoencoder(BASE).to(device())
        self.truth = open_truth(params, self.autoencoder)
        self.instructions = {entry.index: entry.instruction for entry in load_manifest(MANIFEST).episodes}
        self.known: dict[int, Media] = {}

    def read(self, episode: int) -> Media:
        """The episode's pictures, as many frames as the rollouts have."""
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

"""Frames to show: which episodes, and their recorded and generated pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from persistworld.config.params import Params
from persistworld.data.episodes import EpisodeSource
from persistworld.data.formats import open_episodes
from persistworld.data.frames import resized_frames
from persistworld.evaluation.masks import MaskStore
from persistworld.evaluation.rollout_files import read_rollout
from persistworld.evaluation.score_table import Scores, cell_values, episode_cells, view_group
from persistworld.evaluation.statistics import LOWER_IS_BETTER
from persistworld.runtime.distributed import device
from persistworld.runtime.workspace import BASE, EPISODES
from persistworld.world_model.autoencoder import decode_views, load_autoencoder

SHOWN = ("base", "post_trained")  # the models that film strips and videos hold side by side
DECODED = 32  # images at once: a fifth of a film, 8 GB at 192x320
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
    """Every episode's gain of the post-trained model over the base in one cell, the largest first: the order that episodes are shown from.

    Of a region, only episodes in which it is in view in four fifths of the frames are ranked, when there are any.
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
    """What episodes are shown by, in which order: PSNR gain on the object, which is what rollouts lose; without masks on full frames."""
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
    """Reads and decodes episodes for figures and the report; each picture is decoded once.

    `masks` is where the masks are, for whoever needs them.
    """

    def __init__(self, params: Params, models: Sequence[str], seed: int, masks: MaskStore | None = None) -> None:
        self.params, self.models, self.seed, self.masks = params, tuple(models), seed, masks
        self.source: EpisodeSource = open_episodes(EPISODES)
        self.autoencoder = load_autoencoder(BASE).to(device())
        self.known: dict[int, Media] = {}

    def read(self, episode: int) -> Media:
        """The episode's pictures, as many frames as the rollouts have."""
        if episode not in self.known:
            views = self.params.episodes.views
            latents = {model: read_rollout(model, self.seed, episode) for model in self.models}
            generated = {
                model: decode_views(self.autoencoder, stack, len(views), DECODED).numpy() for model, stack in latents.items()
            }
            frames = len(next(iter(generated.values())))
            recorded = [resized_frames(self.source, episode, self.params.episodes, view)[:frames] for view in views]
            masks = None if self.masks is None else self.masks.masks(episode)[:frames].numpy()
            instruction = self.source.episode(episode).instruction
            truth = torch.stack(recorded, dim=1).numpy()
            self.known[episode] = Media(episode, self.seed, instruction, views, truth, generated, masks)
        return self.known[episode]

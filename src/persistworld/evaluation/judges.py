"""Automatic judges. For two models' rollouts of the same episode, seed and view, each metric prefers the one with the better score.

They replace human votes if there are none; otherwise they are compared with them. They need only the score table.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from persistworld.evaluation.agreement import krippendorff_alpha
from persistworld.evaluation.score_table import view_group
from persistworld.evaluation.statistics import LOWER_IS_BETTER, Interval, bootstrap_mean
from persistworld.evaluation.votes import ITEM

JUDGES = ("lpips", "ssim", "psnr")  # LPIPS is first, because it is designed to match human perception
REGIONS = ("full", "object")


@dataclass(frozen=True)
class Share:
    """How often a judge prefers ours: the mean over episodes with its bootstrap interval. `pairs` does not include `ties`."""

    share: Interval
    pairs: int
    ties: int


def judgements(frame: pd.DataFrame, ours: str, theirs: str, protocol: str) -> pd.DataFrame:
    """One row per judge (columns `judge`, the metric, and `region`) and item (`ITEM`). `gain` is positive if ours has the better score.

    frame: a score table. A video's score is the mean over its frames. A region that is never in view has no row.
    """
    rows = frame[frame["model"].isin([ours, theirs]) & (frame["protocol"] == protocol) & frame["region"].isin(REGIONS)]
    films = rows.groupby(["metric", "region", *ITEM, "model"], observed=True)["value"].mean().unstack("model").dropna()
    sign = np.where(films.index.get_level_values("metric").isin(LOWER_IS_BETTER), -1, 1)
    gain = (films[ours].astype(float) - films[theirs].astype(float)) * sign
    found = gain.rename("gain").reset_index().rename(columns={"metric": "judge"})
    return found.astype({name: str for name in ("judge", "region", "view")})


def share(judged: pd.DataFrame, bootstrap: int, confidence: float, seed: int) -> Share | None:
    """The Share for one judge's rows; None if all are ties. Episodes are resampled, since views and seeds of an episode are dependent."""
    decided = judged[judged["gain"] != 0]
    if decided.empty:
        return None
    by_episode = (decided["gain"] > 0).groupby(decided["episode"]).mean()
    return Share(bootstrap_mean(by_episode, bootstrap, confidence, seed), len(decided), len(judged) - len(decided))


def of_group(judged: pd.DataFrame, group: str) -> pd.DataFrame:
    """The rows of one group of views (external, wrist, ...)."""
    return judged[judged["view"].map(view_group) == group]


def winners(judged: pd.DataFrame) -> pd.DataFrame:
    """A table of items (rows) by judges (columns (judge, region)): 1 if ours wins, 0 if it loses, NaN for a tie or no value."""
    signs = np.sign(judged["gain"]).replace(0, np.nan)
    table = judged.assign(won=(signs + 1) / 2).pivot(index=ITEM, columns=["judge", "region"], values="won")
    return table.sort_index(axis=1)


def majority(votes: pd.DataFrame, ours: str) -> pd.Series:
    """The majority vote on each item: 1 for ours, 0 for the other model. Items with a draw are left out."""
    mean = (votes["winner"] == ours).astype(float).groupby([votes[name] for name in ITEM]).mean()
    return (mean[mean != 0.5] > 0.5).astype(float)


def same(first: pd.Series, second: pd.Series) -> tuple[float | None, int]:
    """How often two judges agree, on the items that both decide: the share with the same winner (None without items), and their number."""
    both = pd.concat([first, second], axis=1, join="inner").dropna()
    return (float((both.iloc[:, 0] == both.iloc[:, 1]).mean()), len(both)) if len(both) else (None, 0)


def alpha(table: pd.DataFrame) -> float:
    """Krippendorff's alpha with the judges as raters. table: from `winners`."""
    counts = np.stack([(table == value).sum(axis=1) for value in (0, 1)], axis=1)
    return krippendorff_alpha(counts)

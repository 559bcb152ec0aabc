"""Automatic judges: each metric prefers, of two models' rollouts of the same episode, seed and view, the one that it scores better.

They stand in for people where nobody has voted, and are compared with people where somebody has. From the score table alone.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from persistworld.evaluation.agreement import krippendorff_alpha
from persistworld.evaluation.score_table import view_group
from persistworld.evaluation.statistics import LOWER_IS_BETTER, Interval, bootstrap_mean
from persistworld.evaluation.votes import ITEM

JUDGES = ("lpips", "ssim", "psnr")  # the perceptual network first: it is the one that is meant to see as people do
REGIONS = ("full", "object")


@dataclass(frozen=True)
class Share:
    """How often a judge prefers ours: mean over episodes with its bootstrap interval; `ties` are left out of the `pairs`."""

    share: Interval
    pairs: int
    ties: int


def judgements(frame: pd.DataFrame, ours: str, theirs: str, protocol: str) -> pd.DataFrame:
    """A row per judge (columns `judge`, a metric, and `region`) and item (`ITEM`): `gain`, positive where ours is scored better.

    frame: a score table. A film's score is the mean over its frames; a region that is never in view has no row.
    """
    rows = frame[frame["model"].isin([ours, theirs]) & (frame["protocol"] == protocol) & frame["region"].isin(REGIONS)]
    films = rows.groupby(["metric", "region", *ITEM, "model"], observed=True)["value"].mean().unstack("model").dropna()
    sign = np.where(films.index.get_level_values("metric").isin(LOWER_IS_BETTER), -1, 1)
    gain = (films[ours].astype(float) - films[theirs].astype(float)) * sign
    found = gain.rename("gain").reset_index().rename(columns={"metric": "judge"})
    return found.astype({name: str for name in ("judge", "region", "view")})


def share(judged: pd.DataFrame, bootstrap: int, confidence: float, seed: int) -> Share | None:
    """Of one judge's rows; None when all are ties. Episodes are resampled: an episode's views and seeds are not independent."""
    decided = judged[judged["gain"] != 0]
    if decided.empty:
        return None
    by_episode = (decided["gain"] > 0).groupby(decided["episode"]).mean()
    return Share(bootstrap_mean(by_episode, bootstrap, confidence, seed), len(decided), len(judged) - len(decided))


def of_group(judged: pd.DataFrame, group: str) -> pd.DataFrame:
    """The rows of one group of views (external, wrist, ...)."""
    return judged[judged["view"].map(view_group) == group]


def winners(judged: pd.DataFrame) -> pd.DataFrame:
    """Items (rows) by judge (columns (judge, region)): 1 where ours wins, 0 where it loses, NaN for a tie or no value."""
    signs = np.sign(judged["gain"]).replace(0, np.nan)
    table = judged.assign(won=(signs + 1) / 2).pivot(index=ITEM, columns=["judge", "region"], values="won")
    return table.sort_index(axis=1)


def majority(votes: pd.DataFrame, ours: str) -> pd.Series:
    """What most people say of each item: 1 for ours, 0 for the other; items with a draw are left out."""
    mean = (votes["winner"] == ours).astype(float).groupby([votes[name] for name in ITEM]).mean()
    return (mean[mean != 0.5] > 0.5).astype(float)


def same(first: pd.Series, second: pd.Series) -> tuple[float | None, int]:
    """In what share of the items that both decide they name the same winner, and of how many; None of none."""
    both = pd.concat([first, second], axis=1, join="inner").dropna()
    return (float((both.iloc[:, 0] == both.iloc[:, 1]).mean()), len(both)) if len(both) else (None, 0)


def alpha(table: pd.DataFrame) -> float:
    """Krippendorff's alpha of the judges as raters (`winners`)."""
    counts = np.stack([(table == value).sum(axis=1) for value in (0, 1)], axis=1)
    return krippendorff_alpha(counts)

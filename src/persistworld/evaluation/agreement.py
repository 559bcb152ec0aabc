"""Agreement of several raters on the same items (paper, appendix D), computed by statsmodels and krippendorff."""

import krippendorff
import numpy as np
from statsmodels.stats import inter_rater


def fleiss_kappa(counts: np.ndarray, draws: int = 200, seed: int = 0) -> float:
    """Fleiss' kappa of a table of vote counts (items, categories), by statsmodels. Items with fewer than two votes are left out.

    Fleiss defines kappa for the same number of votes on every item. If the numbers differ, each item is subsampled without replacement to
    the smallest number, and the result is the mean over `draws` such tables. NaN when no item is left or all votes are in one category.
    """
    counts = np.asarray(counts, np.int64)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    fewest = int(counts.sum(axis=1).min())
    if (counts.sum(axis=1) == fewest).all():
        return float(inter_rater.fleiss_kappa(counts))
    rng = np.random.default_rng(seed)
    tables = (np.array([rng.multivariate_hypergeometric(row, fewest) for row in counts]) for _ in range(draws))
    return float(np.mean([inter_rater.fleiss_kappa(table) for table in tables if (table.sum(axis=0) > 0).sum() > 1]))


def krippendorff_alpha(counts: np.ndarray, level: str = "nominal") -> float:
    """Krippendorff's alpha of a table of vote counts (items, ordered categories), by the package `krippendorff`. Votes may be missing.

    level: nominal, or interval if the category's position is a quantity. NaN when no item has two votes, or all votes are in one category.
    """
    counts = np.asarray(counts, np.int64)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement=level))

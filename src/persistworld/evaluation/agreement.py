"""How far several raters agree on the same items (paper, appendix D), by the libraries that compute it."""

import krippendorff
import numpy as np
from statsmodels.stats import inter_rater


def fleiss_kappa(counts: np.ndarray, draws: int = 200, seed: int = 0) -> float:
    """Fleiss' kappa of a table (items, categories) of votes, by statsmodels; items with fewer than two votes are left out.

    Fleiss defines it for equally many votes an item. Where they are not, each item gives as many as the one with the fewest has, drawn
    without replacement, and the result is the mean over `draws` such tables. NaN when nothing is left or all votes are in one category.
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
    """Krippendorff's alpha of a table (items, categories in order) of votes, by the package `krippendorff`; votes may be missing.

    level: nominal, or interval where the category's place is a quantity. NaN without an item of two votes, or with one category alone.
    """
    counts = np.asarray(counts, np.int64)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts) or (counts.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement=level))

"""Which rows of an ablation differ: ranks for bold and underline, and how far apart rows and training seeds are.

A cell's values are (training seeds, episodes). With few training seeds no test covers them, so a row counts as better only if
episodes and seeds agree: its mean is better, Wilcoxon's test over episodes (means over seeds) finds p < ALPHA, and its worst seed is better
than the other's best.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from persistworld.evaluation.statistics import standard_errors, wilcoxon

ALPHA = 0.05
ENOUGH = 3.0  # standard errors that tell two models apart
Values = NDArray[np.float64]  # (training seeds, episodes)


def better(mine: Values, theirs: Values, lower_is_better: bool) -> bool:
    """Whether `mine` is better than `theirs` beyond chance, as the module says."""
    sign = -1 if lower_is_better else 1
    gain = sign * (mine.mean(axis=0) - theirs.mean(axis=0))
    apart = (sign * mine.mean(axis=1)).min() > (sign * theirs.mean(axis=1)).max()
    return bool(gain.mean() > 0 and apart and wilcoxon(gain) < ALPHA)


def marks(rows: Mapping[str, Values], lower_is_better: bool) -> dict[str, str]:
    """row -> "best" or "second", where that can be told.

    The best row is marked if it is better than each other row; the second if it is better than each row behind it. It needs no correction
    for several tests, since all of them must agree. Rows with the same runs are not better than each other, so neither is marked.
    """
    sign = -1 if lower_is_better else 1
    order = sorted(rows, key=lambda row: sign * rows[row].mean(), reverse=True)
    found = {}
    for place, mark in enumerate(("best", "second")):
        behind = order[place + 1 :]
        if behind and all(better(rows[order[place]], rows[other], lower_is_better) for other in behind):
            found[order[place]] = mark
    return found


@dataclass(frozen=True)
class Sensitivity:
    """What one cell of an axis can tell, in standard errors of the paired difference over episodes.

    over_base: of the row "ours" against the base, positive if better. seeds: the largest difference of two training seeds of a row; nan
    with one seed. rows: the largest difference of two rows.
    """

    over_base: float
    seeds: float
    rows: float

    @property
    def tells(self) -> bool:
        """Whether training shows at all, and by more than the training seed does."""
        return abs(self.over_base) >= ENOUGH and not self.seeds >= abs(self.over_base)


def sensitivity(rows: Mapping[str, Values], ours: str, base: Values, lower_is_better: bool) -> Sensitivity:
    """rows: row -> its values; base: (1, episodes)."""
    sign = -1 if lower_is_better else 1
    seeds = [abs(standard_errors(a - b)) for values in rows.values() for a, b in itertools.combinations(values, 2)]
    means = [values.mean(axis=0) for values in rows.values()]
    pairs = [abs(standard_errors(a - b)) for a, b in itertools.combinations(means, 2)]
    over_base = standard_errors(sign * (rows[ours].mean(axis=0) - base.mean(axis=0)))
    return Sensitivity(over_base, max(seeds, default=float("nan")), max(pairs))

"""Statistics over episodes, votes and policies: paired tests, intervals, preference, Elo, rank correlation (paper, section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

LOWER_IS_BETTER = ("lpips",)


@dataclass(frozen=True)
class Resampling:
    """How bootstrap intervals are made. The fields are the last arguments of the bootstrap functions below, in their order."""

    samples: int = 2000
    confidence: float = 0.95  # of the interval, 0..1
    seed: int = 0


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """A paired comparison over episodes. `difference` is ours - theirs in the metric's unit, also if lower values are better."""

    episodes: int
    wins: int
    losses: int
    ties: int
    win_rate: float  # wins / episodes: a tie is not a win
    difference: Interval
    wilcoxon_p: float  # two-sided, on the differences that are not zero
    sign_p: float  # exact two-sided sign test, ties left out


def bootstrap_mean(values: Sequence[float], samples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The mean of the values (one per episode) and the percentile interval of resampled means. The same input and seed
    give the same interval.
    """
    values = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(len(values), size=(samples, len(values)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[picks].mean(axis=1), [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_crossed(
    values: Sequence[Sequence[float]], samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The mean of values (training seeds, episodes) and its percentile interval; seeds and episodes are resampled independently."""
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    seeds, episodes = (rng.integers(size, size=(samples, size)) for size in values.shape)
    means = values[seeds[:, :, None], episodes[:, None, :]].mean(axis=(1, 2))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def standard_errors(differences: Sequence[float]) -> float:
    """The mean of paired differences in units of its standard error (sample standard deviation / sqrt(n)).

    0 if all are 0; infinite if all are equal but not 0. Needs two values at least, and is nan with one.
    """
    differences = np.asarray(differences, np.float64)
    if len(differences) < 2:
        return float("nan")
    mean, error = differences.mean(), differences.std(ddof=1) / np.sqrt(len(differences))
    if error == 0:
        return 0.0 if mean == 0 else float(np.copysign(np.inf, mean))
    return float(mean / error)


def bootstrap_ratio(
    ours: Sequence[float], base: Sequence[float], samples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The change of the mean in percent, 100 * (mean(ours) / mean(base) - 1), with its interval. Episodes are resampled
    as pairs.
    """
    ours, base = np.asarray(ours, np.float64), np.asarray(base, np.float64)
    picks = np.random.default_rng(seed).integers(len(ours), size=(samples, len(ours)))
    change = 100 * (ours[picks].mean(axis=1) / base[picks].mean(axis=1) - 1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(change, [tail, 1 - tail])
    return Interval(float(100 * (ours.mean() / base.mean() - 1)), float(low), float(high))


def paired(
    ours: Sequence[float],
    theirs: Sequence[float],
    lower_is_better: bool = False,
    samples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Paired:
    """Compare two models on the same episodes, one value per episode and model in the same order."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    difference = ours - theirs
    gain = -difference if lower_is_better else difference
    wins, losses = int((gain > 0).sum()), int((gain < 0).sum())
    return Paired(
        episodes=len(gain),
        wins=wins,
        losses=losses,
        ties=len(gain) - wins - losses,
        win_rate=wins / len(gain),
        difference=bootstrap_mean(difference, samples, confidence, seed),
        wilcoxon_p=wilcoxon(difference),
        sign_p=sign_test(wins, losses),
    )


def sign_test(wins: int, losses: int) -> float:
    """Exact two-sided sign test: the probability of a split at least this uneven if wins and losses are equally likely.
    Returns 1 without any pair.
    """
    return float(scipy.stats.binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided Wilcoxon signed-rank p value. Zeros are dropped. Returns 1 when no difference is left.

    It is exact for up to 50 differences without ties, and the normal approximation otherwise.
    """
    differences = np.asarray(differences, np.float64)
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    exact = len(differences) <= 50 and len(np.unique(np.abs(differences))) == len(differences)
    return float(scipy.stats.wilcoxon(differences, method="exact" if exact else "approx").pvalue)


def preference(wins: int, losses: int, confidence: float = 0.95, alternative: str = "greater") -> tuple[Interval, float]:
    """The share of wins with its exact (Clopper-Pearson) interval, and the exact binomial p against 1/2 (paper, Figure 6).

    alternative: greater (as in the paper; the interval's upper end is 1) or two-sided. At least one vote is needed.
    """
    test = scipy.stats.binomtest(wins, wins + losses, 0.5, alternative=alternative)
    bounds = test.proportion_ci(confidence, method="exact")
    return Interval(wins / (wins + losses), float(bounds.low), float(bounds.high)), float(test.pvalue)


def elo(votes: Sequence[tuple[str, str]], start: float = 800.0, k: float = 32.0) -> dict[str, float]:
    """Elo ratings after the votes (winner, loser) in this order (paper, appendix D): E = 1 / (1 + 10^((R_j - R_i) /
    400)).

    The result depends on the order; `elo_mean` averages over orders.
    """
    ratings = {name: start for vote in votes for name in vote}
    for winner, loser in votes:
        expected = 1 / (1 + 10 ** ((ratings[loser] - ratings[winner]) / 400))
        ratings[winner] += k * (1 - expected)
        ratings[loser] -= k * (1 - expected)
    return ratings


def elo_mean(
    votes: Sequence[tuple[str, str]], shuffles: int = 1000, seed: int = 0, start: float = 800.0, k: float = 32.0
) -> dict[str, Interval]:
    """Mean Elo over random orders of the votes, with the 2.5 % and 97.5 % quantiles over the orders."""
    rng = np.random.default_rng(seed)
    runs = [elo([votes[i] for i in rng.permutation(len(votes))], start, k) for _ in range(shuffles)]
    result = {}
    for name in sorted(runs[0]):
        values = np.array([run[name] for run in runs])
        low, high = np.quantile(values, [0.025, 0.975])
        result[name] = Interval(float(values.mean()), float(low), float(high))
    return result


def pearson_r(real: Sequence[float], simulated: Sequence[float]) -> float:
    """Pearson's correlation between the policies' scores in reality and in simulation (paper, Figure 8)."""
    return float(np.corrcoef(np.asarray(real, np.float64), np.asarray(simulated, np.float64))[0, 1])


def mmrv(real: Sequence[float], simulated: Sequence[float]) -> float:
    """Mean maximum rank violation (SIMPLER): mean_i max_j |R_i - R_j| * 1[(S_i > S_j) != (R_i > R_j)]. 0 is perfect."""
    real, simulated = np.asarray(real, np.float64), np.asarray(simulated, np.float64)
    gap = np.abs(real[:, None] - real[None])
    wrong = (simulated[:, None] > simulated[None]) != (real[:, None] > real[None])
    return float((gap * wrong).max(axis=1).mean())

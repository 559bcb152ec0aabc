"""When a row of an ablation counts as better, and what an axis can tell, against cases worked out by hand."""

import math

import numpy as np
import pytest

from persistworld.evaluation.statistics import bootstrap_crossed, bootstrap_mean, standard_errors
from persistworld.paper.ranking import better, marks, sensitivity

EPISODES = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])


def row(*levels: float) -> np.ndarray:
    """(training seeds, episodes): the same episodes, shifted by one level per training seed."""
    return np.stack([EPISODES + level for level in levels])


def test_better_needs_the_episodes_and_every_training_seed() -> None:
    assert better(row(1.0, 1.2), row(0.0, 0.5), lower_is_better=False)
    assert not better(row(0.0, 0.5), row(1.0, 1.2), lower_is_better=False)
    assert better(row(0.0, 0.5), row(1.0, 1.2), lower_is_better=True)
    # The seeds overlap: the mean is better in every episode, but the worst seed is behind the other's best.
    assert not better(row(0.4, 2.0), row(0.0, 0.5), lower_is_better=False)
    # The gain is not the same way in enough episodes: five of eight.
    mixed = EPISODES + np.array([3, 3, 3, 3, 3, -2, -2, -2.0])
    assert not better(mixed[None], EPISODES[None], lower_is_better=False)


def test_five_episodes_cannot_be_significant() -> None:
    """The smallest two-sided p of Wilcoxon's test with five pairs is 2 / 2^5 = 0.0625; with six it is 0.031."""
    assert not better(EPISODES[None, :5] + np.arange(1, 6), EPISODES[None, :5], lower_is_better=False)
    assert better(EPISODES[None, :6] + np.arange(1, 7), EPISODES[None, :6], lower_is_better=False)


def test_bold_and_underline_only_where_all_the_tests_agree() -> None:
    rows = {"low": row(0.0, 0.1), "high": row(2.0, 2.1), "middle": row(1.0, 1.1)}
    assert marks(rows, lower_is_better=False) == {"high": "best", "middle": "second"}
    assert marks(rows, lower_is_better=True) == {"low": "best", "middle": "second"}
    # The first two cannot be told apart, so neither is bold; the second is better than the third.
    assert marks(rows | {"middle": row(1.8, 2.2)}, lower_is_better=False) == {"middle": "second"}
    # The same runs twice.
    assert marks({"a": row(1.0), "b": row(1.0)}, lower_is_better=False) == {}
    # Of two rows, the worse one is never underlined.
    assert marks({"a": row(1.0), "b": row(0.0)}, lower_is_better=False) == {"a": "best"}


def test_differences_in_standard_errors() -> None:
    """Differences 1, 2, 3, 4: mean 2.5, standard deviation sqrt(5/3), standard error sqrt(5/12)."""
    assert standard_errors([1, 2, 3, 4]) == pytest.approx(2.5 / math.sqrt(5 / 12))
    assert standard_errors([0, 0, 0]) == 0.0
    assert standard_errors([-1, -1]) == -math.inf
    assert math.isnan(standard_errors([1.0]))


def test_an_axis_tells_if_training_shows_by_more_than_its_seed() -> None:
    episodes = np.zeros(4)
    ours, other = np.array([[1.0, 2, 3, 4], [1.0, 2, 3, 4.4]]), np.array([[3.0, 4, 5, 6], [3.0, 4, 5, 6]])
    found = sensitivity({"ours": ours, "other": other}, "ours", episodes[None], lower_is_better=False)
    mean = np.array([1, 2, 3, 4.2])
    assert found.over_base == pytest.approx(mean.mean() / (mean.std(ddof=1) / 2))
    assert found.seeds == pytest.approx(1.0)  # differences 0, 0, 0, .4: mean .1, standard error .1
    assert found.rows == pytest.approx(1.95 / 0.05)  # differences 2, 2, 2, 1.8
    assert found.tells
    same = mean + np.array([0.1, -0.1, 0.1, -0.1])  # the base differs, but not on average
    assert not sensitivity({"ours": ours, "other": other}, "ours", same[None], lower_is_better=False).tells
    one = sensitivity({"ours": ours[:1], "other": other[:1]}, "ours", episodes[None], lower_is_better=False)
    assert math.isnan(one.seeds) and one.tells


def test_the_crossed_bootstrap_is_that_over_episodes_with_one_seed_and_wider_with_seeds_that_differ() -> None:
    one, usual = bootstrap_crossed(EPISODES[None]), bootstrap_mean(EPISODES)
    assert (one.mean, one.low, one.high) == pytest.approx((usual.mean, usual.low, usual.high), abs=0.15)
    # Constant episodes: only the seeds vary; of two seeds a resample has the mean 0, 1 or 2.
    apart = bootstrap_crossed(np.array([[0.0] * 5, [2.0] * 5]))
    assert (apart.mean, apart.low, apart.high) == (1.0, 0.0, 2.0)

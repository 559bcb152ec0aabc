"""Statistics against closed forms, scipy and the paper's own numbers."""

import numpy as np
import pytest
import scipy.stats

from persistworld.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    elo,
    elo_mean,
    mmrv,
    paired,
    pearson_r,
    preference,
    sign_test,
    wilcoxon,
)


def test_preference_gives_the_papers_numbers():
    share, p = preference(174, 43)  # paper, Figure 6
    assert round(share.mean, 2) == 0.80
    assert p == pytest.approx(3.5e-20, rel=0.02)
    assert share.high == 1 and 0.74 < share.low < 0.80


def test_the_bootstrap_interval_is_the_t_interval_of_many_values_and_is_seeded():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    interval = bootstrap_mean(values, samples=4000)
    low, high = scipy.stats.t.interval(0.95, 399, loc=values.mean(), scale=scipy.stats.sem(values))
    assert interval.mean == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.02)
    assert interval == bootstrap_mean(values, samples=4000) != bootstrap_mean(values, samples=4000, seed=1)


def test_a_constant_ratio_has_no_spread():
    base = np.random.default_rng(1).uniform(1, 2, size=20)
    change = bootstrap_ratio(1.1 * base, base)
    assert (change.mean, change.low, change.high) == pytest.approx((10, 10, 10))


def test_paired_counts_wins_in_the_metrics_own_direction():
    result = paired([0.1, 0.2, 0.3, 0.5], [0.2, 0.3, 0.3, 0.4], lower_is_better=True)
    assert (result.episodes, result.wins, result.losses, result.ties, result.win_rate) == (4, 2, 1, 1, 0.5)
    assert result.difference.mean == pytest.approx(-0.025)


def test_sign_test_and_wilcoxon_in_closed_form():
    assert sign_test(10, 0) == pytest.approx(2 / 2**10)
    assert sign_test(0, 0) == 1
    assert wilcoxon(np.arange(1, 11)) == pytest.approx(2 / 2**10)  # exact: all ten ranks on one side
    assert wilcoxon([0.0, 0.0]) == 1
    tied = [1.0, 1.0, 2.0, -1.0, 3.0, 2.0, 0.0]
    assert wilcoxon(tied) == pytest.approx(scipy.stats.wilcoxon(tied[:-1], method="approx").pvalue)


def test_elo_is_zero_sum_depends_on_order_and_its_mean_does_not():
    assert elo([("a", "b")]) == {"a": 816, "b": 784}
    votes = [("ours", "theirs")] * 20 + [("theirs", "ours")] * 5
    late, early = elo(votes), elo(votes[::-1])
    assert sum(late.values()) == pytest.approx(1600) and late != early
    mean = elo_mean(votes, shuffles=200)
    assert mean["ours"].low < mean["ours"].mean < mean["ours"].high
    assert mean["ours"].mean + mean["theirs"].mean == pytest.approx(1600)


def test_correlation_of_policies():
    real = [0.2, 0.5, 0.9]
    assert pearson_r(real, [0.1, 0.4, 0.8]) == pytest.approx(1)
    assert mmrv(real, [0.3, 0.35, 0.7]) == 0
    assert mmrv(real, [0.5, 0.2, 0.9]) == pytest.approx((0.3 + 0.3 + 0) / 3)

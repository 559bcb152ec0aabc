"""Pearson's r and MMRV of policies against scipy and closed forms, their intervals, outcomes by stage, and people's labels."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from persistworld.evaluation.policy_ranking import REAL, Means, ordered_pairs, outcomes, policy_numbers
from persistworld.evaluation.statistics import Resampling
from persistworld.evaluation.votes import PROGRESS, read_progress
from persistworld.runtime.errors import UserError

STAGES = {"put": ("reach", "grasp", "inside"), "stack": ("reach", "grasp", "inside")}
HOW = Resampling(samples=200)


def progress(levels: dict[str, dict[str, list[int]]], states: int = 6, seeds: int = 1) -> pd.DataFrame:
    """levels: world -> policy -> the stages reached in each state (cycled)."""
    rows = []
    for (world, policies), task, seed, state in itertools.product(levels.items(), STAGES, range(seeds), range(states)):
        for policy, reached in policies.items():
            level = reached[state % len(reached)]
            rows.append((world, policy, task, state, seed, level, 3, level / 3))
    return pd.DataFrame(rows, columns=["world", "policy", "task", "state", "seed", "reached", "stages", "progress"])


REALITY = {"good": [3], "fair": [3, 0, 2], "poor": [0, 1, 0], "bad": [0]}
MODEL = {"good": [3], "fair": [3, 1, 3], "poor": [2, 3, 2], "bad": [0]}


def test_r_and_mmrv_are_those_of_the_policies_means():
    means = Means(progress({REAL: REALITY, "base": MODEL}), HOW)
    real, model = ([np.mean(policies[name]) / 3 for name in REALITY] for policies in (REALITY, MODEL))
    found = means.agreement("base")
    assert found["pearson"][0] == pytest.approx(scipy.stats.pearsonr(real, model).statistic)
    # The model gives fair (really 5/9) and poor (1/9) 7/9 each: by the formula, such a tie is a violation for the better one alone.
    assert model[1] == pytest.approx(model[2]) and found["mmrv"][0] == pytest.approx((real[1] - real[2]) / 4)
    inner = means.agreement("base", means.extremes())
    assert means.extremes() == ["bad", "good"] and np.isnan(inner["pearson"][0])  # two points have no correlation


def test_worlds_with_the_same_states_share_the_draws():
    means = Means(progress({REAL: REALITY, "base": REALITY, "post_trained": MODEL}), HOW)
    assert np.array_equal(means.values[REAL], means.values["base"])
    assert np.allclose(means.agreement("base")["pearson"], 1) and not means.agreement("base")["mmrv"].any()
    interval = means.interval(means.of_policies(REAL)[:, 1])
    assert interval.low < interval.mean < interval.high and interval.mean == pytest.approx(5 / 9)


def test_worlds_with_other_states_are_compared_too():
    """As in the paper: 5 real rollouts and 11 in the world model."""
    table = pd.concat([progress({REAL: REALITY}, states=5), progress({"base": MODEL}, states=11)])
    found = policy_numbers(table, ["base"], STAGES, HOW)
    assert found["agreement"]["base"]["pearson"]["low"] <= found["agreement"]["base"]["pearson"]["mean"] <= 1


def test_clear_pairs_and_outcomes_by_stage():
    table = progress({REAL: REALITY, "base": MODEL}, seeds=2)
    assert ordered_pairs(Means(table, HOW), "base")["right"] <= ordered_pairs(Means(table, HOW), "base")["clear"] <= 6
    counts = outcomes(table, "base", STAGES)
    # fair: false success in one state of three; poor: in one of three; two tasks, six states, two seeds.
    assert counts["inside"] == {"false": 2 * 8, "of_misses": 2 * 2 * (4 + 6 + 6), "missed": 0, "of_hits": 2 * 2 * (6 + 2)}
    assert counts["reach"]["false"] == 2 * 2 * (2 + 4)


def test_numbers_have_differences_and_replayed_poses():
    worlds = {REAL: REALITY, "base": MODEL, "post_trained": REALITY}
    table = pd.concat([progress(worlds), progress({"base_replayed": REALITY}, states=2)])
    found = policy_numbers(table, ["base", "post_trained"], STAGES, HOW)
    difference = found["agreement"]["post_trained_minus_base"]["pearson"]
    r = {name: found["agreement"][name]["pearson"]["mean"] for name in ("base", "post_trained")}
    assert difference["mean"] == pytest.approx(r["post_trained"] - r["base"], abs=1e-5)
    assert found["agreement"]["base"]["replayed"]["pearson"] == pytest.approx(1) and found["agreement"]["base"]["optimism"]["mean"] > 0
    assert found["progress"]["base"]["poor"]["put"] == pytest.approx(7 / 9, abs=1e-5)


def row(**changes) -> dict:
    known = {"rater": "a", "world": "real", "policy": "pi0", "task": "rotate_marker", "state": 0, "seed": 0, "reached": 2, "stages": 3}
    return known | {"progress": 0.66, "at": "2026-01-01"} | changes


def test_peoples_labels_are_read(tmp_path):
    path = tmp_path / "policies.csv"
    pd.DataFrame([row(), row(rater="b", reached=3), row(world="base", seed=4)])[list(PROGRESS)].to_csv(path, index=False)
    table = read_progress(path)
    assert table["progress"].tolist() == pytest.approx([2 / 3, 1, 2 / 3]) and table["state"].dtype == int


@pytest.mark.parametrize("wrong", [{"reached": 4}, {"policy": ""}, {"state": "x"}, {}])
def test_a_wrong_label_is_named_by_its_line(tmp_path, wrong):
    path = tmp_path / "policies.csv"
    pd.DataFrame([row(), row(**wrong)]).to_csv(path, index=False)
    with pytest.raises(UserError, match="line 3"):
        read_progress(path)
    pd.DataFrame([row(world="base")]).to_csv(path, index=False)
    with pytest.raises(UserError, match="real"):
        read_progress(path)

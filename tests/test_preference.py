"""Votes and automatic judges: statistics against closed forms and the paper's numbers, files that are no votes, Figure 6."""

import json

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats import inter_rater
from synthetic_scores import EFFECTS, write_synthetic

from persistworld.evaluation import judges
from persistworld.evaluation.agreement import fleiss_kappa, krippendorff_alpha
from persistworld.evaluation.preference import analysed, mixed
from persistworld.evaluation.score_table import load_scores
from persistworld.evaluation.statistics import elo, elo_mean, preference
from persistworld.evaluation.votes import VOTES, read_votes, write_rows
from persistworld.paper.figure_6 import figure_6, preference_numbers
from persistworld.paper.notes import Settings
from persistworld.runtime.errors import UserError

SETTINGS = Settings("tabletop", "decoded", (0, 1), bootstrap=100)
OURS, THEIRS = "post_trained", "base"
NO_VOTES = pd.DataFrame(columns=list(VOTES))


def row(rater: str, episode: int, won: bool, view: str = "wrist", side: str = "a") -> dict:
    winner, loser = (OURS, THEIRS) if won else (THEIRS, OURS)
    item = {"episode": episode, "seed": 0, "view": view, "task": ("push", "put")[episode % 2]}
    return {"rater": rater, **item, "winner": winner, "loser": loser, "side": side, "at": "2026-01-01T00:00:00+00:00"}


def made_up(share: float, raters: int = 8, episodes: int = 24, seed: int = 0) -> pd.DataFrame:
    """Votes that are won independently with probability `share`."""
    rng = np.random.default_rng(seed)
    sides = rng.permutation(["a", "b"] * (raters * episodes // 2))
    rows = [row(f"r{r}", e, rng.random() < share, side=sides[r * episodes + e]) for r in range(raters) for e in range(episodes)]
    return pd.DataFrame(rows)


def test_the_papers_votes_give_the_papers_p_and_neither_its_interval_nor_a_single_elo():
    """174 to 43 (paper, section 4 and appendix D): what follows from the counts alone. See docs/claims.md."""
    one, p = preference(174, 43)
    two, _ = preference(174, 43, alternative="two-sided")
    assert p == pytest.approx(3.5e-20, rel=0.01)
    assert (one.low, one.high) == pytest.approx((0.752, 1), abs=5e-4) and (two.low, two.high) == pytest.approx((0.743, 0.853), abs=5e-4)
    assert preference(174, 43, confidence=0.995)[0].low == pytest.approx(0.7235, abs=5e-4)  # the paper's 72 % is this bound
    votes = [(OURS, THEIRS)] * 174 + [(THEIRS, OURS)] * 43
    shuffled = elo_mean(votes, shuffles=400)[OURS]
    assert shuffled.low < 884.8 < shuffled.high and shuffled.mean == pytest.approx(925, abs=6)
    assert elo(votes)[OURS] < 650 and elo(votes[::-1])[OURS] > 1100  # the order alone


def test_agreement_is_the_libraries_and_bears_missing_votes():
    rng = np.random.default_rng(0)
    table = np.stack([(first := rng.binomial(6, rng.beta(2, 1, 30))), 6 - first], axis=1)
    assert fleiss_kappa(table) == pytest.approx(inter_rater.fleiss_kappa(table))
    # Fleiss (1971): ten subjects, fourteen raters, five categories, kappa .210.
    fleiss = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(np.array(fleiss)) == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(np.array([[3, 0], [0, 2], [4, 0], [1, 0]])) == pytest.approx(1)
    # Votes that are missing at random change the estimate by chance alone: drawn tables are near the whole one.
    fewer = np.array([np.random.default_rng(i).multivariate_hypergeometric(r, 3 + i % 3) for i, r in enumerate(table)])
    assert fleiss_kappa(fewer) == pytest.approx(fleiss_kappa(table), abs=0.15)
    # Krippendorff (2011), nominal data of two raters without missing values: alpha .095.
    pairs = [(0, 1), (1, 1), (0, 1), (0, 0), (0, 0), (0, 1), (0, 0), (0, 0), (1, 0), (0, 0)]
    counts = np.array([[pair.count(0), pair.count(1)] for pair in pairs])
    assert krippendorff_alpha(counts) == pytest.approx(0.095, abs=1e-3)
    assert np.isnan(krippendorff_alpha(np.array([[2, 0], [3, 0]]))) and np.isnan(fleiss_kappa(np.array([[1, 0]])))


def test_shares_by_view_and_task_by_hand():
    votes = pd.DataFrame([row("r1", 0, True), row("r1", 1, False, "exterior_1", "b"), row("r2", 0, True, side="b"),
                          row("r2", 1, True, "exterior_2")])  # fmt: skip
    found = analysed(votes, OURS)
    assert (found["votes"], found["raters"], found["items"]) == (4, 2, 3)
    parts = found["preference"]
    assert (parts["all"]["wins"], parts["all"]["losses"], parts["all"]["share"]) == (3, 1, 0.75)
    assert parts["all"]["p"] == pytest.approx(5 / 16)
    assert {name: part["share"] for name, part in parts["view"].items()} == {"external": 0.5, "wrist": 1.0}
    assert {name: part["share"] for name, part in parts["task"].items()} == {"push": 1.0, "put": 0.5}
    assert found["position"]["share_a"] == 0.5 and found["position"]["ours_as_a"] == pytest.approx(2 / 3)
    assert found["elo"]["in_order"][OURS] + found["elo"]["in_order"][THEIRS] == pytest.approx(1600)
    json.dumps(found, allow_nan=False)


def test_a_position_bias_is_found_and_does_not_move_the_share():
    rng = np.random.default_rng(1)
    rows = []
    for rater in range(8):
        for episode in range(30):
            ours_is_a = episode % 2 == rater % 2
            won = ours_is_a if rng.random() < 0.5 else rng.random() < 0.5
            rows.append(row(f"r{rater}", episode, won, side="a" if won == ours_is_a else "b"))
    found = analysed(pd.DataFrame(rows), OURS)
    assert found["position"]["p"] < 1e-6 and found["position"]["ours_as_a"] > found["position"]["ours_as_b"] + 0.3
    assert found["preference"]["all"]["low"] < 0.5 < found["preference"]["all"]["high"]


def test_a_rater_who_votes_against_the_others_is_named():
    votes = made_up(0.9)
    inverted = votes["rater"] == "r3"
    votes.loc[inverted, ["winner", "loser"]] = votes.loc[inverted, ["loser", "winner"]].to_numpy()
    far = {name for name, who in analysed(votes, OURS)["by_rater"].items() if who["far"]}
    assert far == {"r3"}
    assert not any(who["far"] for who in analysed(made_up(0.8, seed=3), OURS)["by_rater"].values())


def test_one_rater_or_one_episode_that_carries_the_result_is_seen():
    plain = analysed(made_up(0.75, seed=1), OURS)["mixed"]
    assert plain["p"] < 1e-3 and plain["low"] < 0.75 < plain["high"] and plain["without_one_rater"]["share"] > 0.6
    # Two of eight raters always choose ours, the others throw a coin.
    rng = np.random.default_rng(2)
    votes = pd.DataFrame([row(f"r{r}", e, r < 2 or rng.random() < 0.5) for r in range(8) for e in range(24)])
    found = analysed(votes, OURS)
    assert found["preference"]["all"]["p"] < 1e-3 and found["mixed"]["p"] > 0.02  # the binomial test is too sure
    assert found["mixed"]["sd_rater"] > 3 * max(found["mixed"]["sd_episode"], 0.03)
    assert found["mixed"]["without_one_rater"]["without"] in ("r0", "r1")


def test_few_votes_are_no_error():
    """On a tenth of such small studies the mixed model's first method runs into a singular matrix."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        votes = [row(f"r{r}", e, rng.random() < 0.5) for r in range(rng.integers(2, 5)) for e in range(rng.integers(2, 5))]
        found = mixed(pd.DataFrame(votes).assign(won=lambda frame: (frame["winner"] == OURS).astype(int)), 0.95)
        assert found["share"] is None or found["low"] < found["share"] < found["high"]


def test_all_votes_for_one_model_is_no_error():
    found = analysed(pd.DataFrame([row("r1", 0, True), row("r2", 0, True)]), OURS)
    assert found["preference"]["all"]["share"] == 1 and found["agreement"]["fleiss_kappa"] is None and found["mixed"]["share"] is None
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"side": "c"}, 3), ({"winner": OURS}, 3), ({"winner": "third"}, 3), ({"episode": "x"}, 3), ({"episode": 1.5}, 3),
        ({"rater": ""}, 3), ({"rater": "r1", "episode": 0}, 3), ({"seed": ""}, 3),
    ],
)  # fmt: skip
def test_what_is_no_vote_is_refused_with_its_line(tmp_path, change, line):
    path, good = tmp_path / "votes.csv", [row("r1", 0, True), row("r2", 1, False)]
    write_rows(path, VOTES, good)
    assert len(read_votes(path)) == 2
    write_rows(path, VOTES, [good[0], good[1] | change])
    with pytest.raises(UserError, match=f"votes.csv, line {line}"):
        read_votes(path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", ",".join(VOTES[:-1]).encode()])
def test_what_is_no_csv_of_votes_is_refused(tmp_path, content):
    (tmp_path / "votes.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"votes\.csv"):
        read_votes(tmp_path / "votes.csv")


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    paths = write_synthetic(tmp_path_factory.mktemp("scores"), 8, 5, spread=1.5)
    return load_scores([path for path in paths if path.stem in (OURS, THEIRS)])


def test_a_judge_prefers_the_film_with_the_better_mean(scores):
    judged = judges.judgements(scores.frame, OURS, THEIRS, "decoded")
    assert len(judged) == 3 * 2 * 8 * 2 * 3  # metrics, regions, episodes, seeds, views
    one = judged[(judged["judge"] == "lpips") & (judged["region"] == "full")].iloc[0]
    same = scores.frame
    for column in ("episode", "seed", "view"):
        same = same[same[column] == one[column]]
    same = same[(same["metric"] == "lpips") & (same["region"] == "full") & (same["protocol"] == "decoded")]
    means = same.groupby("model", observed=True)["value"].mean()
    assert one["gain"] == pytest.approx(means[THEIRS] - means[OURS], rel=1e-5)
    share = judges.share(judged[judged["judge"] == "psnr"], 100, 0.95, 0)
    episodes = judged[judged["judge"] == "psnr"].groupby("episode")["gain"].apply(lambda gain: (gain > 0).mean())
    assert share.share.mean == pytest.approx(episodes.mean()) and share.share.low <= share.share.mean <= share.share.high


def test_ties_are_left_out_and_counted(scores):
    equal = scores.frame.assign(value=1.0)
    judged = judges.judgements(equal, OURS, THEIRS, "decoded")
    assert judges.share(judged, 100, 0.95, 0) is None
    half = judged.assign(gain=np.where(judged["seed"] == 0, 1.0, 0.0))
    found = judges.share(half, 100, 0.95, 0)
    assert (found.pairs, found.ties, found.share.mean) == (len(half) // 2, len(half) // 2, 1.0)


def test_figure_6_without_and_with_votes(scores, tmp_path):
    numbers = preference_numbers(scores, NO_VOTES, SETTINGS)
    assert numbers["votes"] is None and set(numbers["judges"]) == {"lpips", "ssim", "psnr"} and EFFECTS[OURS] > EFFECTS[THEIRS]
    assert "same_as_people" not in numbers["judges"]["ssim"]["full"]
    figure_6(numbers, scores, SETTINGS, tmp_path / "judges")
    figure_6(preference_numbers(scores, NO_VOTES, SETTINGS), scores, SETTINGS, tmp_path / "again")
    assert (tmp_path / "judges/figure_6.png").read_bytes() == (tmp_path / "again/figure_6.png").read_bytes()
    episodes = sorted(scores.frame["episode"].unique())
    votes = pd.DataFrame([row(f"r{r}", int(e), True) for r in range(3) for e in episodes])
    numbers = preference_numbers(scores, votes, SETTINGS)
    judged = judges.judgements(scores.frame, OURS, THEIRS, "decoded")
    wrist = judged[(judged["judge"] == "ssim") & (judged["region"] == "full") & (judged["seed"] == 0) & (judged["view"] == "wrist")]
    assert numbers["judges"]["ssim"]["full"]["same_as_people"] == {"share": pytest.approx((wrist["gain"] > 0).mean()), "items": 8}
    figure_6(numbers, scores, SETTINGS, tmp_path / "people")
    assert (tmp_path / "people/figure_6.pdf").is_file()
    json.dumps(numbers, allow_nan=False)

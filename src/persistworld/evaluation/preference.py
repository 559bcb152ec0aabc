"""Statistics of the votes of a preference study (paper, section 4, Figure 6 and appendix D).

A vote is one rater's choice on one item (episode, seed, view). Votes of one rater are not independent, and the same holds for votes on one
episode. The binomial test, which the paper uses, assumes independent votes. The mixed model does not.
"""

import contextlib
import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from statsmodels.formula.api import mixedlm
from statsmodels.stats.multitest import multipletests
from statsmodels.tools.sm_exceptions import ModelWarning

from persistworld.evaluation.agreement import fleiss_kappa, krippendorff_alpha
from persistworld.evaluation.score_table import view_group
from persistworld.evaluation.statistics import elo, elo_mean, preference
from persistworld.evaluation.votes import ITEM

FAR = 0.05  # raters with an adjusted p below it are marked as `far`


def analysed(votes: pd.DataFrame, ours: str, seed: int = 0, confidence: float = 0.95) -> dict[str, Any]:
    """All statistics of `votes` (at least one, as `read_votes` returns them) as JSON values. ours: the model whose share is reported.

    Keys: preference (of all votes, by view group and by task); elo (in the order of the votes, and the mean over shuffles); agreement;
    position; by_rater; mixed. Undefined numbers, such as the agreement without two votes on any item, are None.
    """
    theirs = next((name for name in pd.unique(votes[["winner", "loser"]].to_numpy().ravel()) if name != ours), None)
    if ours not in set(votes["winner"]) | set(votes["loser"]) or theirs is None:
        raise ValueError(f"no vote compares {ours} with another model")
    frame = votes.assign(won=(votes["winner"] == ours).astype(int), view=votes["view"].map(view_group))
    pairs = list(zip(votes["winner"], votes["loser"], strict=True))
    shuffled = elo_mean(pairs, seed=seed)
    return _plain({
        "ours": ours, "theirs": theirs, "votes": len(frame), "raters": frame["rater"].nunique(), "items": votes.groupby(ITEM).ngroups,
        "preference": {
            "all": share(frame, confidence),
            "view": {str(name): share(part, confidence) for name, part in frame.groupby("view")},
            "task": {str(name): share(part, confidence) for name, part in frame.groupby("task")},
        },
        "elo": {"in_order": elo(pairs), "shuffled": {name: [found.mean, found.low, found.high] for name, found in shuffled.items()}},
        "agreement": agreement(votes),
        "position": position(frame),
        "by_rater": raters(votes, ours),
        "mixed": mixed(frame, confidence),
    })  # fmt: skip


def share(frame: pd.DataFrame, confidence: float) -> dict[str, float]:
    """How often ours `won`: counts, share, exact two-sided interval, and the paper's one-sided lower bound and one-sided p."""
    wins, losses = int(frame["won"].sum()), int((1 - frame["won"]).sum())
    both, _ = preference(wins, losses, confidence, "two-sided")
    one, p = preference(wins, losses, confidence)
    return {"wins": wins, "losses": losses, "share": both.mean, "low": both.low, "high": both.high, "low_one_sided": one.low, "p": p}


def counts(votes: pd.DataFrame) -> pd.DataFrame:
    """Votes by item (rows) and winner (columns)."""
    return votes.groupby(ITEM)["winner"].value_counts().unstack(fill_value=0)


def agreement(votes: pd.DataFrame) -> dict[str, float | int]:
    """Agreement of raters on the same items: Fleiss' kappa, Krippendorff's alpha, and the number of items with at least two votes."""
    table = counts(votes).to_numpy()
    shared = int((table.sum(axis=1) >= 2).sum())
    return {"fleiss_kappa": fleiss_kappa(table), "krippendorff_alpha": krippendorff_alpha(table), "items": shared}


def position(frame: pd.DataFrame) -> dict[str, Any]:
    """Position bias: the share of votes for side A with interval and exact two-sided p, and the share of ours when shown as A and as B."""
    on_a = int((frame["side"] == "a").sum())
    found, p = preference(on_a, len(frame) - on_a, alternative="two-sided")
    ours_is_a = (frame["side"] == "a") == (frame["won"] == 1)
    as_a, as_b = frame.loc[ours_is_a, "won"], frame.loc[~ours_is_a, "won"]
    return {"share_a": found.mean, "low": found.low, "high": found.high, "p": p, "ours_as_a": as_a.mean(), "ours_as_b": as_b.mean()}


def raters(votes: pd.DataFrame, ours: str) -> dict[str, dict[str, Any]]:
    """Compare each rater with the others: how often the rater votes with the majority of the others, on items where they have a majority.

    Fisher's exact test compares this rate with that rate of the other raters, with Holm's adjustment for the number of raters. `far` marks
    a rater who differs. This is a reason to inspect the votes, not to leave them out.
    """
    table, names = counts(votes), sorted(votes["rater"].unique())
    rows = []
    for name in names:
        own = votes[votes["rater"] == name]
        others = table.loc[pd.MultiIndex.from_frame(own[ITEM])].reset_index(drop=True)
        for place, winner in enumerate(own["winner"]):
            others.loc[place, winner] -= 1
        first, second = others.iloc[:, 0], (others.iloc[:, 1] if others.shape[1] > 1 else 0 * others.iloc[:, 0])
        most = np.where(first > second, table.columns[0], table.columns[-1])
        decided = (first != second).to_numpy()
        same = int((own["winner"].to_numpy()[decided] == most[decided]).sum())
        rows.append((name, len(own), float((own["winner"] == ours).mean()), same, int(decided.sum()) - same))
    same, other = (sum(row[place] for row in rows) for place in (3, 4))
    p = [scipy.stats.fisher_exact([[row[3], row[4]], [same - row[3], other - row[4]]]).pvalue for row in rows]
    adjusted = multipletests(p, method="holm")[1]
    return {
        name: {
            "votes": total, "share": won, "with_others": agree / (agree + differ) if agree + differ else None,
            "p": float(value), "far": bool(value < FAR),
        }
        for (name, total, won, agree, differ), value in zip(rows, adjusted, strict=True)
    }  # fmt: skip


def mixed(frame: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """Test whether the result depends on one rater or one episode.

    Returns the share of ours from a mixed model of the votes (0 or 1) with crossed random effects of rater and episode (statsmodels'
    `mixedlm`, REML), with its interval and two-sided p against 1/2; the standard deviations of the effects; and the lowest share after one
    rater, or one episode, is left out. In simulated studies with 8 raters and 24 episodes, the 95 % interval contains the true share in
    92 to 97 of 100 studies. The binomial interval contains it in 70 to 96, the interval of statsmodels' logistic mixed model in 55 to 73
    (docs/study.md).
    """
    found: dict[str, Any] = {"without_one_rater": _lowest(frame, "rater"), "without_one_episode": _lowest(frame, "episode")}
    if min(frame["rater"].nunique(), frame["episode"].nunique()) < 2 or frame["won"].nunique() < 2:
        return found | {"share": None, "low": None, "high": None, "p": None}
    fit = _fitted(frame.assign(one=1))
    if fit is None:
        return found | {"share": None, "low": None, "high": None, "p": None}
    mean, error = float(fit.fe_params.iloc[0]), float(fit.bse_fe.iloc[0])
    half = scipy.stats.norm.ppf((1 + confidence) / 2) * error
    spread = {f"sd_{name}": math.sqrt(max(value, 0)) for name, value in zip(fit.model.exog_vc.names, fit.vcomp, strict=True)}
    p = float(2 * scipy.stats.norm.sf(abs(mean - 0.5) / error))
    return found | spread | {"share": mean, "low": mean - half, "high": mean + half, "p": p}


def _fitted(data: pd.DataFrame) -> Any:
    """The mixed model's fit, or None where there are too few votes to determine it."""
    model = mixedlm("won ~ 1", data, groups="one", vc_formula={"rater": "0 + C(rater)", "episode": "0 + C(episode)"})
    # Powell's method first: an effect with zero variance lies on the boundary, and gradient methods stop before they reach it. With few
    # votes it can end in a singular matrix.
    for method in ("powell", "lbfgs"):
        with warnings.catch_warnings(), contextlib.suppress(np.linalg.LinAlgError):
            warnings.simplefilter("ignore", ModelWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            fit = model.fit(reml=True, method=method)
            if np.isfinite([fit.fe_params.iloc[0], fit.bse_fe.iloc[0], *fit.vcomp]).all() and fit.bse_fe.iloc[0] > 0:
                return fit
    return None


def _lowest(frame: pd.DataFrame, column: str) -> dict[str, Any] | None:
    """The lowest share of wins after one value of `column` is left out, and that value; None when `column` has only one value."""
    groups = frame.groupby(column)["won"].agg(["sum", "count"])
    if len(groups) < 2:
        return None
    left = (groups["sum"].sum() - groups["sum"]) / (groups["count"].sum() - groups["count"])
    return {"share": float(left.min()), "without": left.idxmin()}


def _plain(tree: Any) -> Any:
    """Convert to JSON values: numpy numbers become Python numbers, floats get six significant digits, NaN and infinity become None."""
    if isinstance(tree, dict):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(value) for value in tree]
    if isinstance(tree, np.generic):
        tree = tree.item()
    if isinstance(tree, float):
        return float(f"{tree:.6g}") if math.isfinite(tree) else None
    return tree

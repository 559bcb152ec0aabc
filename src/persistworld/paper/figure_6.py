"""Figure 6: how often people (if they voted) and automatic judges prefer the post-trained model's rollouts to the base's."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from persistworld.config.models import FIXED, OURS, THEIRS
from persistworld.evaluation import judges
from persistworld.evaluation.preference import analysed
from persistworld.evaluation.score_table import Scores
from persistworld.evaluation.statistics import elo_mean
from persistworld.paper.notes import Settings, short_note
from persistworld.paper.style import GRID, INK, MUTED, figure, save, title_and_note

LABEL = {model.name: model.label.lower() for model in FIXED}
COLOUR = {model.name: model.colour for model in FIXED}
PEOPLE, ALL = "people", "all"
ELO_SHUFFLES = 200
NAMES = {"lpips": "Perceptual network (LPIPS)", "ssim": "SSIM", "psnr": "PSNR"}


def preference_numbers(scores: Scores, votes: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    """The contents of Figure 6 as JSON values.

    judges: {judge: {region: numbers}}. `numbers` has {share, low, high, pairs, ties} for all views and for each group of views, the Elo
    ratings of ours and theirs, same_as_judges and same_as_people.
    alpha: agreement of the judges.
    votes: all statistics of the people's votes (`evaluation.preference.analysed`), None if nobody has voted.
    """
    judged = judges.judgements(scores.frame, OURS, THEIRS, settings.protocol)
    table = judges.winners(judged)
    people = None if votes.empty else judges.majority(votes, OURS)
    found: dict[str, Any] = {}
    for judge in judges.JUDGES:
        for region in judges.REGIONS:
            own = judged[(judged["judge"] == judge) & (judged["region"] == region)]
            if (judge, region) in table and table[judge, region].notna().any():
                found.setdefault(judge, {})[region] = _judge(own, table, people, scores.groups, settings)
    return {
        "ours": OURS, "theirs": THEIRS, "protocol": settings.protocol, "judges": found, "alpha": _digits(judges.alpha(table)),
        "votes": None if votes.empty else analysed(votes, OURS, settings.seed, settings.confidence),
    }  # fmt: skip


def _judge(own: pd.DataFrame, table: pd.DataFrame, people: pd.Series | None, groups: tuple[str, ...], settings: Settings) -> dict[str, Any]:
    options = (settings.bootstrap, settings.confidence, settings.seed)
    parts = {ALL: judges.share(own, *options), **{group: judges.share(judges.of_group(own, group), *options) for group in groups}}
    numbers: dict[str, Any] = {
        name: {
            "share": _digits(part.share.mean), "low": _digits(part.share.low), "high": _digits(part.share.high),
            "pairs": part.pairs, "ties": part.ties,
        }
        for name, part in parts.items() if part is not None
    }  # fmt: skip
    pairs = [(OURS, THEIRS) if gain > 0 else (THEIRS, OURS) for gain in own["gain"] if gain]
    ratings = elo_mean(pairs, ELO_SHUFFLES, settings.seed)
    numbers["elo"] = [_digits(ratings[OURS].mean), _digits(ratings[THEIRS].mean)]
    column = (own["judge"].iloc[0], own["region"].iloc[0])
    others = [judges.same(table[column], table[other])[0] for other in table if other != column]
    known = [value for value in others if value is not None]
    numbers["same_as_judges"] = _digits(float(np.mean(known))) if known else None
    if people is not None:
        share, count = judges.same(table[column], people)
        numbers["same_as_people"] = {"share": None if share is None else _digits(share), "items": count}
    return numbers


def figure_6(numbers: dict[str, Any], scores: Scores, settings: Settings, folder: Path) -> None:
    """One row per judge, people first. Panels: preference for all views and for each group of views, then Elo, then agreement."""
    rows = _rows(numbers)
    groups = [ALL, *scores.groups]
    widths = [1.0] * len(groups) + [0.9, 0.62]
    height = 1.55 + 0.36 * len(rows)
    with figure(1, len(widths), 10.6, height, sharey=True, width_ratios=widths) as (fig, [axes]):
        for ax, group in zip(axes, groups, strict=False):
            for place, (_, part) in enumerate(rows):
                if group in part:
                    _bar(ax, place, part[group])
            ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "50 %", "100 %"])
            ax.set_title("All views" if group == ALL else f"{group.capitalize()} view")
            ax.axvline(0.5, color=INK, linewidth=0.8, linestyle=(0, (4, 2)))
        _elo(axes[-2], rows)
        _agreement(axes[-1], rows, numbers["votes"] is not None)
        axes[0].set_yticks(range(len(rows)), [name for name, _ in rows], color=INK)
        axes[0].set_ylim(len(rows) - 0.45, -0.55)
        for ax in axes:
            ax.tick_params(axis="y", length=0)
            ax.spines["left"].set_visible(False)
        if numbers["votes"] is not None:
            axes[0].get_yticklabels()[0].set_fontweight("bold")
        fig.tight_layout(rect=(0, 0.3 / height, 1, 1 - 0.4 / height))
        title_and_note(fig, _title(numbers), _note(numbers, scores, settings))
        fig.text(0.012, 1 - 0.33 / height, _legend(), fontsize=8, color=MUTED, va="top")
        save(fig, folder, "figure_6")


def _rows(numbers: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name, numbers by group, elo, agreement) of each row."""
    rows = []
    if (votes := numbers["votes"]) is not None:
        parts = {ALL: votes["preference"]["all"], **votes["preference"]["view"]}
        ratings = votes["elo"]["shuffled"]
        rows.append((f"People ({votes['votes']} votes of {votes['raters']})", {**parts, "elo": [ratings[OURS][0], ratings[THEIRS][0]]}))
    for region in judges.REGIONS:
        for judge, regions in numbers["judges"].items():
            if region in regions:
                where = "" if region == "full" else ", object"
                rows.append((f"{NAMES[judge]}{where}", regions[region]))
    return rows


def _bar(ax: Axes, place: int, part: dict[str, Any]) -> None:
    share, low, high = part["share"], part["low"], part["high"]
    ax.barh(place, share, height=0.62, color=COLOUR[OURS])
    ax.barh(place, 1 - share, left=share, height=0.62, color=COLOUR[THEIRS], alpha=0.85)
    ax.plot([low, high], [place, place], color=INK, linewidth=1.3, solid_capstyle="butt")
    ax.plot([low, low, high, high], [place - 0.13, place + 0.13, place + 0.13, place - 0.13], " ", marker="|", color=INK, markersize=4)
    ax.text(0.03, place, f"{share:.0%}", color="white", va="center", fontsize=8.5, fontweight="bold")


def _elo(ax: Axes, rows: list[tuple[str, dict[str, Any]]]) -> None:
    for place, (_, part) in enumerate(rows):
        ours, theirs = part["elo"]
        ax.plot([theirs, ours], [place, place], color=GRID, linewidth=2.5, zorder=1)
        for rating, other, model in ((ours, theirs, OURS), (theirs, ours, THEIRS)):
            ax.plot(rating, place, "o", color=COLOUR[model], markersize=6)
            outwards = "left" if rating > other else "right"  # so that numbers of like ratings stand apart
            ax.text(rating, place - 0.3, f"{rating:.0f}", ha=outwards, va="bottom", fontsize=7, color=INK)
    ax.axvline(800, color=INK, linewidth=0.7, linestyle=(0, (4, 2)))
    low, high = (pick(rating for _, part in rows for rating in part["elo"]) for pick in (min, max))
    ax.set_xlim(low - 90, high + 90)
    ax.set_title("Elo (800, K = 32)")


def _agreement(ax: Axes, rows: list[tuple[str, dict[str, Any]]], with_people: bool) -> None:
    """Print as text the share of pairs where a judge picks the same winner as people, or as the other judges."""
    ax.set_title("Agrees with\npeople" if with_people else "Agrees with\nother judges", fontsize=8.5)
    ax.set(xlim=(0, 1), xticks=[])
    ax.spines["bottom"].set_visible(False)
    for place, (_, part) in enumerate(rows):
        value = part.get("same_as_people", {}).get("share") if with_people else part["same_as_judges"]
        ax.text(0.06, place, "–" if value is None else f"{value:.0%}", va="center", fontsize=8.5, color=INK)


def _title(numbers: dict[str, Any]) -> str:
    pair = f"{LABEL[OURS]} over {LABEL[THEIRS]}"
    if (votes := numbers["votes"]) is None:
        return f"Figure 6. Preference for {pair}, by automatic judges (no person has voted)"
    return f"Figure 6. Preference for {pair}: {votes['votes']} votes of people, and automatic judges"


def _legend() -> str:
    return f"green: {LABEL[OURS]} preferred  ·  orange: {LABEL[THEIRS]} preferred"


def _note(numbers: dict[str, Any], scores: Scores, settings: Settings) -> str:
    alpha = "–" if numbers["alpha"] is None else f"{numbers['alpha']:.2f}"
    how = "a judge prefers the film (episode, seed, view) with the better mean score"
    bars = f"bars: {settings.confidence:.0%} bootstrap over episodes" + ("" if numbers["votes"] is None else ", of people exact binomial")
    return f"{how}; {bars}; Krippendorff's alpha of the judges {alpha}\n{short_note(scores, settings)}"


def _digits(value: float) -> float | None:
    """Round to six significant digits, so that the JSON does not change with the last bit. None for NaN."""
    return float(f"{value:.6g}") if np.isfinite(value) else None

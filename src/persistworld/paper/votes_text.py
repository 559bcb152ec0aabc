"""Prints the results of a preference study as text."""

from typing import Any

from persistworld.config.models import Models
from persistworld.paper.blocks import p_text


def results_text(found: dict[str, Any], models: Models) -> str:
    """The results of `evaluation.preference.analysed` as text for a terminal. Models that are not in `models` are printed by name."""
    ours, theirs, elo = found["ours"], found["theirs"], found["elo"]
    label = {name: models[name].label if name in models else name for name in (ours, theirs)}
    lines = [
        f"{label[ours]} against {label[theirs]}: {found['votes']} votes of {found['raters']} raters on {found['items']} items",
        "",
        f"{'preferred':24} {'share':>6}  {'95 % exact':>14}  {'votes':>9}  one-sided p",
    ]
    parts = found["preference"]
    named = [(f"{kind} {name}", part) for kind in ("view", "task") for name, part in parts[kind].items()]
    for name, part in [("all", parts["all"]), *named]:
        interval = f"[{part['low']:.1%}, {part['high']:.1%}]"
        lines.append(f"{name:24} {part['share']:6.1%}  {interval:>14}  {part['wins']:>4}:{part['losses']:<4}  {p_text(part['p'])}")
    mean, low, high = elo["shuffled"][ours]
    agreement = found["agreement"]
    kappa, alpha = _number(agreement["fleiss_kappa"]), _number(agreement["krippendorff_alpha"])
    far = [f"{code} (as most others in {_share(who['with_others'])})" for code, who in found["by_rater"].items() if who["far"]]
    lines += [
        "",
        f"Elo (start 800, K 32): {elo['in_order'][ours]:.1f} to {elo['in_order'][theirs]:.1f} in the order of the votes; "
        f"{mean:.1f} to {elo['shuffled'][theirs][0]:.1f} over shuffles (95 % of them {low:.1f} to {high:.1f})",
        f"agreement on {agreement['items']} items with two votes or more: Fleiss' kappa {kappa}, Krippendorff's alpha {alpha}",
        position_text(found["position"], label[ours].lower()),
        *mixed_lines(found["mixed"]),
        f"raters far from the others: {', '.join(far) or 'none'}",
    ]
    return "\n".join(lines)


def position_text(place: dict[str, Any], ours: str) -> str:
    """Text: whether A was chosen more often than B, and how often ours won in each position."""
    return (
        f"position: A was chosen in {place['share_a']:.1%} (two-sided p {p_text(place['p'])}); {ours} won "
        f"{_share(place['ours_as_a'])} as A, {_share(place['ours_as_b'])} as B"
    )


def mixed_lines(mixed: dict[str, Any]) -> list[str]:
    """Text: the check that the result does not depend on a single rater or episode."""
    if mixed["share"] is None:
        return ["mixed model: these votes do not determine it (it needs several raters and episodes, and votes for both models)"]
    p = "–" if mixed["p"] is None else p_text(mixed["p"])
    lines = [
        f"with random raters and episodes: {mixed['share']:.1%} [{mixed['low']:.1%}, {mixed['high']:.1%}], two-sided p {p} "
        f"(standard deviation of raters {mixed['sd_rater']:.2f}, of episodes {mixed['sd_episode']:.2f})"
    ]
    for what in ("rater", "episode"):
        left = mixed[f"without_one_{what}"]
        if left is not None:
            lines.append(f"without any one {what} at least {left['share']:.1%} (without {left['without']})")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"

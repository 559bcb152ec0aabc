"""What stands beside Table 1, as one tree of numbers: Frechet distances, and how well a model's arm follows its commands."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persistworld.data.windows import CHUNK_STRIDE
from persistworld.evaluation.frechet import FrechetScore, jackknife
from persistworld.evaluation.pose_reader import QUANTITIES
from persistworld.evaluation.statistics import Interval, Resampling, bootstrap_mean, paired

RECORDED, DECODED = "recorded", "decoded"  # among the models: the reader on recorded frames, and on their reconstruction
COMMAND, READING = "command", "reading"  # what a pose read from a model's frames is compared with
AGAINST = (COMMAND, READING)  # the commanded pose, and the pose that the same reader reads from the reconstruction of the recorded frame
Following = Mapping[str, NDArray[np.float64]]  # model, RECORDED or DECODED -> (episodes, chunks, QUANTITIES)
Frechet = Mapping[str, Mapping[tuple[str, str, str], FrechetScore]]  # model -> (protocol, kind, group) -> score


def by_chunk(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances (..., T, Q) of the frames of rollouts -> (..., chunks, Q), means over each chunk's new frames.

    Frame 0 is left out: it is the given frame, generated again, and no command leads to it.
    """
    *lead, frames, quantities = distances.shape
    return distances[..., 1:, :].reshape(*lead, (frames - 1) // CHUNK_STRIDE, CHUNK_STRIDE, quantities).mean(axis=-2)


def frechet_numbers(scores: Frechet) -> dict[str, Any]:
    """protocol -> kind -> group -> samples, size, models: model -> distance and its difference from the base, with standard errors.

    Models without a score for a protocol are left out there.
    """
    tree: dict[str, Any] = {}
    for model, found in scores.items():
        for (protocol, kind, group), score in found.items():
            place = tree.setdefault(protocol, {}).setdefault(kind, {}).setdefault(group, {"samples": score.samples, "size": score.size})
            own = {"distance": score.values[0], "standard_error": jackknife(score.values)}
            if model != "base" and "base" in scores:
                against = np.subtract(score.values, scores["base"][protocol, kind, group].values).tolist()
                own |= {"minus_base": against[0], "minus_base_error": jackknife(against)}
            place.setdefault("models", {})[model] = {name: _number(value) for name, value in own.items()}
    return tree


def following_numbers(following: Following, pairs: Sequence[tuple[str, str]], how: Resampling) -> dict[str, Any]:
    """How far the arm is from its commands, or from where it is in the recorded frames: means over frames, seeds and episodes.

    overall: model -> quantity -> mean, low, high; chunks: model -> quantity -> a mean per chunk; paired: ours_vs_theirs -> quantity ->
    the paired comparison over episodes (evaluation/statistics.py); paired_chunks: ours_vs_theirs -> quantity -> mean, low, high of the
    difference, per chunk.
    """
    overall = {
        model: {
            quantity: _interval(bootstrap_mean(each, *astuple(how)))
            for quantity, each in zip(QUANTITIES, values.mean(axis=1).T, strict=True)
        }
        for model, values in following.items()
    }
    chunks = {
        model: {quantity: [_number(mean) for mean in means] for quantity, means in zip(QUANTITIES, values.mean(axis=0).T, strict=True)}
        for model, values in following.items()
    }
    compared, by_chunks = {}, {}
    for ours, theirs in pairs:
        apart = following[ours] - following[theirs]
        by_chunks[f"{ours}_vs_{theirs}"] = {
            quantity: [_interval(bootstrap_mean(each, *astuple(how))) for each in apart[:, :, place].T]
            for place, quantity in enumerate(QUANTITIES)
        }
        for place, quantity in enumerate(QUANTITIES):
            mine, other = (following[model].mean(axis=1)[:, place] for model in (ours, theirs))
            found = paired(mine, other, True, *astuple(how))
            compared.setdefault(f"{ours}_vs_{theirs}", {})[quantity] = {
                "difference": _number(found.difference.mean), "low": _number(found.difference.low), "high": _number(found.difference.high),
                "win_rate": _number(found.win_rate), "wilcoxon_p": _number(found.wilcoxon_p), "episodes": found.episodes,
            }  # fmt: skip
    return {"overall": overall, "chunks": chunks, "paired": compared, "paired_chunks": by_chunks}


def _interval(found: Interval) -> dict[str, float | None]:
    return {name: _number(value) for name, value in vars(found).items()}


def _number(value: float) -> float | None:
    """Six significant digits; None for what is not known (nan)."""
    return None if np.isnan(value) else float(f"{value:.6g}")

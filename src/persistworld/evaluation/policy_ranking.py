"""Does a world model order policies as reality does? Pearson's r and MMRV over policies, with bootstrap intervals over initial states.

Everything is computed from one tidy table of progress: a row per world, policy, task, initial state, noise seed and, where people judged,
rater. `real` is the world that the others are compared with.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from persistworld.config.models import OURS, THEIRS
from persistworld.evaluation.statistics import Interval, Resampling, mmrv, pearson_r

REAL = "real"
UNIT = ["policy", "task", "state"]


class Means:
    """Mean progress of every policy in every task and world, for the states as they are and for resampled ones.

    values: world -> (1 + samples, policies, tasks); row 0 is the mean over all states. Worlds and policies with the same states of a task
    share the draws, so that differences between worlds are paired. A policy without rollouts of a task has NaN there.
    """

    def __init__(self, table: pd.DataFrame, how: Resampling) -> None:
        self.policies, self.tasks = (tuple(dict.fromkeys(table[name])) for name in ("policy", "task"))
        self.worlds, self.confidence = tuple(dict.fromkeys(table["world"])), how.confidence
        shape = (1 + how.samples, len(self.policies), len(self.tasks))
        self.values = {world: np.full(shape, np.nan) for world in self.worlds}
        cells = table.groupby(["world", *UNIT])["progress"].mean()
        random, drawn = np.random.default_rng(how.seed), {}
        for (world, policy, task), cell in cells.groupby(level=["world", "policy", "task"], sort=False):
            states = tuple(cell.index.get_level_values("state"))
            if (task, states) not in drawn:
                drawn[task, states] = random.integers(len(states), size=(how.samples, len(states)))
            column = self.values[world][:, self.policies.index(policy), self.tasks.index(task)]
            column[0], column[1:] = cell.mean(), cell.to_numpy()[drawn[task, states]].mean(axis=1)

    def interval(self, values: np.ndarray) -> Interval:
        """values: (1 + samples,), the first of all states."""
        tail = (1 - self.confidence) / 2
        low, high = np.nanquantile(values[1:], [tail, 1 - tail]) if np.isfinite(values[1:]).any() else (np.nan, np.nan)
        return Interval(float(values[0]), float(low), float(high))

    def of_policies(self, world: str) -> np.ndarray:
        """(1 + samples, policies): the mean over the tasks."""
        return np.nanmean(self.values[world], axis=2)

    def extremes(self) -> list[str]:
        """The policies with the least and the most real progress: r is flattered by policies that span the whole scale."""
        real = self.of_policies(REAL)[0]
        return [self.policies[int(real.argmin())], self.policies[int(real.argmax())]]

    def agreement(self, world: str, leave_out: Sequence[str] = (), by_task: bool = False) -> dict[str, np.ndarray]:
        """{"pearson": (1 + samples,), "mmrv": (1 + samples,)} of `world` with reality.

        Each policy is a point, its mean over the tasks; or, with `by_task`, each policy and task. Fewer than three points give NaN.
        """
        kept = [row for row, policy in enumerate(self.policies) if policy not in leave_out]
        pairs = []
        for name in (REAL, world):
            values = self.values[name].reshape(len(self.values[name]), -1) if by_task else self.of_policies(name)
            places = [row * len(self.tasks) + k for row in kept for k in range(len(self.tasks))] if by_task else kept
            pairs.append(np.round(values[:, places], 9))  # so that ties are ties
        found = {"pearson": [], "mmrv": []}
        for real, other in zip(*pairs, strict=True):
            known = np.isfinite(real) & np.isfinite(other)
            real, other = real[known], other[known]
            spread = len(real) > 2 and np.ptp(real) > 0 and np.ptp(other) > 0
            found["pearson"].append(pearson_r(real, other) if spread else np.nan)
            found["mmrv"].append(mmrv(real, other) if len(real) > 2 else np.nan)
        return {name: np.array(values) for name, values in found.items()}


def outcomes(table: pd.DataFrame, world: str, stages: dict[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """How often a stage is reached in only one of two paired rollouts: stage -> {"false", "of_misses", "missed", "of_hits"}.

    false: reached in `world` but not in reality, out of_misses not reached in reality. missed: reached in reality but not in `world`, out
    of_hits reached in reality. stages: task -> the names of its stages; the last one is success. Each seed of a model counts separately.
    """
    real = table[table["world"] == REAL].groupby(UNIT)["reached"].median()
    rows = table[table["world"] == world].join(real.rename("real"), on=UNIT, how="inner")
    counts: dict[str, dict[str, int]] = {}
    for task, names in stages.items():
        some = rows[rows["task"] == task]
        for number, stage in enumerate(names, 1):
            truth, said = some["real"] >= number, some["reached"] >= number
            place = counts.setdefault(stage, {"false": 0, "of_misses": 0, "missed": 0, "of_hits": 0})
            for name, value in (("false", said & ~truth), ("of_misses", ~truth), ("missed", truth & ~said), ("of_hits", truth)):
                place[name] += int(value.sum())
    return counts


def ordered_pairs(means: Means, world: str) -> dict[str, int]:
    """Pairs of policies whose real progress clearly differs (the interval of the difference excludes 0), and how many `world` orders so."""
    real, other = means.of_policies(REAL), means.of_policies(world)[0]
    right = clear = 0
    for i in range(len(means.policies)):
        for j in range(i):
            gap = means.interval(real[:, i] - real[:, j])
            if gap.low > 0 or gap.high < 0:
                clear += 1
                right += bool((other[i] - other[j]) * gap.mean > 0)
    return {"clear": clear, "right": right}


def policy_numbers(table: pd.DataFrame, models: Sequence[str], stages: dict[str, Sequence[str]], how: Resampling) -> dict[str, Any]:
    """Everything that is reported, as JSON values. `table` holds `real` and `models`, and may hold NAME_replayed with fewer states."""
    main = table[table["world"].isin([REAL, *models])]
    means, result = Means(main, how), {}
    left_out = means.extremes()
    r = {}
    for world in models:
        all_points, inner = means.agreement(world), means.agreement(world, left_out)
        r[world] = all_points["pearson"]
        tasks = means.agreement(world, by_task=True)
        result[world] = {
            **{name: _plain(means.interval(values)) for name, values in all_points.items()},
            "without_extremes": {name: _plain(means.interval(values)) for name, values in inner.items()},
            "by_policy_and_task": {name: _plain(means.interval(values)) for name, values in tasks.items()},
            "optimism": _plain(means.interval((means.of_policies(world) - means.of_policies(REAL)).mean(axis=1))),
            "pairs": ordered_pairs(means, world),
            "stages": outcomes(main, world, stages),
        }
        replayed = table[table["world"] == f"{world}_replayed"]
        if len(replayed):
            result[world]["replayed"] = _replayed(main, replayed, means, world, stages)
    if {OURS, THEIRS} <= {*models}:
        result["post_trained_minus_base"] = {"pearson": _plain(means.interval(r[OURS] - r[THEIRS]))}
    progress = {
        world: {
            policy: {
                "all": _plain(means.interval(means.of_policies(world)[:, row])),
                **{task: _number(means.values[world][0, row, k]) for k, task in enumerate(means.tasks)},
            }
            for row, policy in enumerate(means.policies)
        }
        for world in means.worlds
    }
    return {"agreement": result, "progress": progress, "extremes": left_out}


def _replayed(main: pd.DataFrame, replayed: pd.DataFrame, means: Means, world: str, stages: dict[str, Sequence[str]]) -> dict[str, Any]:
    """The same on the states where true poses were replayed, beside the policies' own rollouts from these states."""
    same = main.merge(replayed[UNIT].drop_duplicates(), on=UNIT)
    both = pd.concat([same, replayed])
    few = Means(both, Resampling(1, means.confidence))
    found: dict[str, Any] = {"states": int(replayed["state"].nunique()), "stages": outcomes(both, f"{world}_replayed", stages)}
    for name, key in ((f"{world}_replayed", "pearson"), (world, "pearson_closed_loop_same_states")):
        found[key] = _number(few.agreement(name)["pearson"][0])
    places = {"real": REAL, "replayed": f"{world}_replayed", "closed_loop": world}
    found["progress"] = {name: _number(np.nanmean(few.of_policies(place)[0])) for name, place in places.items()}
    return found


def _plain(interval: Interval) -> dict[str, float | None]:
    return {name: _number(value) for name, value in asdict(interval).items()}


def _number(value: float) -> float | None:
    """Six significant digits, so that the JSON does not change with the last bit; None for NaN."""
    return float(f"{value:.6g}") if np.isfinite(value) else None

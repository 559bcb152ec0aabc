"""Computes the numbers of Tables 1 and 2 and the paired comparisons from the score table."""

import dataclasses
import itertools
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from persistworld.evaluation.score_table import METRICS, PROTOCOLS, Cells, Scores, cell_values, view_groups
from persistworld.evaluation.statistics import LOWER_IS_BETTER, Interval, Paired, bootstrap_mean, bootstrap_ratio, paired

TABLE_REGIONS = {"table_1": ("full",), "table_2": ("object", "robot")}


@dataclass(frozen=True)
class Cell:
    """One number of a table: the mean over episodes with its bootstrap interval, and the change from base (None for base).

    `change` is in percent of base's mean, `difference` in the metric's unit. Both use only the episodes that both models have.
    """

    value: Interval
    episodes: int
    change: Interval | None
    difference: Interval | None


CellKey = tuple[str, str, str, str, str]  # protocol, group, model, region, metric


def make_cells(scores: Scores, bootstrap: int, confidence: float, seed: int) -> dict[CellKey, Cell]:
    """Every cell that has a value, for both protocols."""
    values = scores.cells
    cells = {}
    for protocol, group, region, metric, model in _grid(scores.groups, scores.models):
        own = cell_values(values, protocol, model, group, region, metric)
        if own.empty:
            continue
        base = cell_values(values, protocol, "base", group, region, metric)
        common = own.index.intersection(base.index)
        against = model != "base" and len(common) > 0
        change = bootstrap_ratio(own[common], base[common], bootstrap, confidence, seed) if against else None
        difference = bootstrap_mean(own[common] - base[common], bootstrap, confidence, seed) if against else None
        value = bootstrap_mean(own, bootstrap, confidence, seed)
        cells[protocol, group, model, region, metric] = Cell(value, len(own), change, difference)
    return cells


def compare(
    values: Cells, protocol: str, ours: str, theirs: str, group: str, region: str, metric: str,
    bootstrap: int, confidence: float, seed: int,
) -> Paired | None:  # fmt: skip
    """Paired statistics of two models over the episodes where both have a value. None if there is no such episode."""
    mine, other = (cell_values(values, protocol, model, group, region, metric) for model in (ours, theirs))
    common = mine.index.intersection(other.index)
    if common.empty:
        return None
    return paired(mine[common], other[common], metric in LOWER_IS_BETTER, bootstrap, confidence, seed)


def table_json(cells: dict[CellKey, Cell], table: str, protocol: str) -> dict[str, Any]:
    """table_1: {view: {model: {metric: mean}}}; table_2: {view: {model: {region: {metric: mean}}}}."""
    result: dict[str, Any] = {}
    for (cell_protocol, group, model, region, metric), cell in cells.items():
        if cell_protocol == protocol and region in TABLE_REGIONS[table]:
            place = result.setdefault(group, {}).setdefault(model, {})
            if table == "table_2":
                place = place.setdefault(region, {})
            place[metric] = rounded(cell.value.mean)
    return result


def paired_json(details: dict[str, Any], protocol: str, ours: str, theirs: str) -> dict[str, Any]:
    """{view: {metric: {win_rate, p_value, episodes}}} of the full frame, from `paired_details`. `p_value` is from Wilcoxon's test."""
    names = {"win_rate": "win_rate", "p_value": "wilcoxon_p", "episodes": "episodes"}
    views = details.get(f"{ours}_vs_{theirs}", {}).get(protocol, {})
    return {
        group: {metric: {k: found[v] for k, v in names.items()} for metric, found in regions.get("full", {}).items()}
        for group, regions in views.items()
    }


def paired_details(
    scores: Scores, pairs: list[tuple[str, str]], bootstrap: int, confidence: float, seed: int
) -> dict[str, Any]:
    """{ours_vs_theirs: {protocol: {view: {region: {metric: all paired statistics}}}}} for everything that was scored."""
    values = scores.cells
    result: dict[str, Any] = {}
    for ours, theirs in pairs:
        if not {ours, theirs} <= set(scores.models):
            continue
        tree = result.setdefault(f"{ours}_vs_{theirs}", {})
        for protocol, group, region, metric, _ in _grid(scores.groups, [ours]):
            found = compare(values, protocol, ours, theirs, group, region, metric, bootstrap, confidence, seed)
            if found is not None:
                place = tree.setdefault(protocol, {}).setdefault(group, {}).setdefault(region, {})
                place[metric] = _numbers(dataclasses.asdict(found))
    return result


@dataclass(frozen=True)
class Claim:
    """The number of cells of a table in which one model is better than another. `worse` names the cells where it is not."""

    table: str
    ours: str
    theirs: str
    better: int
    cells: int
    worse: tuple[str, ...]


def claims(cells: dict[CellKey, Cell], protocol: str, pairs: list[tuple[str, str]]) -> list[Claim]:
    """For each pair and table, count the cells with a better mean. Pairs that were not scored are left out."""
    found = []
    for (ours, theirs), (table, regions) in itertools.product(pairs, TABLE_REGIONS.items()):
        better, worse = 0, []
        for group, region, metric in itertools.product(groups_of(cells), regions, METRICS):
            mine, other = (cells.get((protocol, group, model, region, metric)) for model in (ours, theirs))
            if mine is None or other is None:
                continue
            gain = (mine.value.mean - other.value.mean) * (-1 if metric in LOWER_IS_BETTER else 1)
            better += gain > 0
            if gain <= 0:
                worse.append(f"{group} {region} {metric.upper()}")
        if better + len(worse):
            found.append(Claim(table, ours, theirs, better, better + len(worse), tuple(worse)))
    return found


def reported() -> dict[str, Any]:
    """The numbers that the paper prints."""
    return yaml.safe_load(resources.files("persistworld.paper").joinpath("reported.yaml").read_text())


def groups_of(cells: dict[CellKey, Cell]) -> tuple[str, ...]:
    """The groups of views that have a cell, in the order of the tables."""
    return view_groups(key[1] for key in cells)


def _grid(groups: tuple[str, ...], models: list[str]) -> list[tuple[str, str, str, str, str]]:
    regions = [region for group in TABLE_REGIONS.values() for region in group]
    return list(itertools.product(PROTOCOLS, groups, regions, METRICS, models))


def rounded(value: float) -> float:
    """Round to six significant digits: enough for any comparison, and the JSON does not change with the last bit."""
    return float(f"{value:.6g}")


def _numbers(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _numbers(value) for key, value in tree.items()}
    return rounded(tree) if isinstance(tree, float) else tree

"""Computes and writes the table of one ablation: Tables 3 to 11 (appendix B), and axes that the paper does not have."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persistworld.config.ablations import AxisConfig
from persistworld.evaluation.score_table import METRICS, PAPER_GROUPS, Scores, cell_values, episode_cells
from persistworld.evaluation.statistics import LOWER_IS_BETTER, Interval, bootstrap_crossed
from persistworld.paper.blocks import DIGITS, NOTHING, Block, Entry
from persistworld.paper.cells import reported, rounded
from persistworld.paper.notes import PROTOCOLS, Settings, metrics_note
from persistworld.paper.ranking import ALPHA, ENOUGH, Sensitivity, Values, marks, sensitivity
from persistworld.paper.table_latex import latex_page
from persistworld.paper.tables import markdown_page, write_text
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import write_json

Column = tuple[str, str]  # group of views, metric
COST = ("U-Net evaluations", "Seconds of training")


@dataclass(frozen=True)
class Row:
    """One row. values: per column (training seeds, episodes). evaluations, seconds: of one training, mean over the seeds."""

    label: str
    values: dict[Column, Values]
    intervals: dict[Column, Interval]
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class AblationTable:
    """The numbers of one axis. `marks`: column -> row -> best or second; `sensitivity` by column."""

    name: str
    axis: AxisConfig
    rows: dict[str, Row]
    base: Row
    marks: dict[Column, dict[str, str]]
    sensitivity: dict[Column, Sensitivity]

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(group for group, _ in self.base.values))

    @property
    def title(self) -> str:
        number = self.name.removeprefix("table_")
        return f"Table {number}. {self.axis.title}" if number.isdigit() else f"{self.axis.title} (not in the paper)"


def ablation_table(
    name: str, axis: AxisConfig, runs: Mapping[str, Sequence[str]], base: str, scores: Scores, settings: Settings,
    evaluations: Mapping[str, float], seconds: Mapping[str, float],
) -> AblationTable:  # fmt: skip
    """runs: row -> its models in the score table, one per training seed; base: the base's model; evaluations, seconds: by model.

    Scores are those of full frames under the headline protocol. Raises UserError if two models have other episodes.
    """
    cells = episode_cells(scores.frame)
    columns = list(itertools.product(scores.groups, METRICS))

    def row(label: str, models: Sequence[str]) -> Row:
        values = {}
        for group, metric in columns:
            found = [cell_values(cells, settings.protocol, model, group, "full", metric) for model in models]
            known = cell_values(cells, settings.protocol, base, group, "full", metric)
            for model, each in zip(models, found, strict=True):
                if not each.index.equals(known.index):
                    raise UserError(f"results/scores/{model}.parquet: has other episodes than {base}; score both again")
            values[group, metric] = np.stack([each.to_numpy() for each in found])
        options = (settings.bootstrap, settings.confidence, settings.seed)
        intervals = {column: bootstrap_crossed(each, *options) for column, each in values.items()}
        costs = [np.mean([given.get(model, 0.0) for model in models]) for given in (evaluations, seconds)]
        return Row(label, values, intervals, *map(float, costs))

    rows = {name: row(axis.label(name), models) for name, models in runs.items()}
    base_row = row("Base", [base])
    marked, told = {}, {}
    for column in columns:
        lower, values = column[1] in LOWER_IS_BETTER, {name: row.values[column] for name, row in rows.items()}
        marked[column] = marks(values, lower)
        told[column] = sensitivity(values, axis.ours, base_row.values[column], lower)
    return AblationTable(name, axis, rows, base_row, marked, told)


def write_ablation(table: AblationTable, scores: Scores, settings: Settings, tables: Path, metrics: Path) -> tuple[list[Block], list[str]]:
    """Write NAME.{csv,md,tex} into `tables` and NAME.json into `metrics`; returns the printed blocks and notes."""
    shown, notes = blocks(table, settings), table_notes(table, scores, settings)
    write_text(tables / f"{table.name}.csv", long_table(table).to_csv(index=False, float_format="%.6g"))
    write_text(tables / f"{table.name}.md", markdown_page(table.title, shown, notes, settings))
    write_text(tables / f"{table.name}.tex", latex_page(table.name, table.title, shown, notes, settings.scale))
    write_json(metrics / f"{table.name}.json", metrics_json(table))
    return shown, notes


def metrics_json(table: AblationTable) -> dict[str, Any]:
    """{base, rows: {row}: {view: {metric: mean}, unet_evaluations}}, sensitivity: {view: {metric: {over_base, seeds, rows}}}}.

    For `dvc metrics diff`: seconds are left out, since they differ from run to run, and the standard errors of `sensitivity` have two
    decimals. Numbers that are not finite are null.
    """
    tree: dict[str, Any] = {"base": _means(table.base), "rows": {}, "sensitivity": {}}
    for name, row in table.rows.items():
        tree["rows"][name] = _means(row) | {"unet_evaluations": rounded(row.evaluations)}
    for (group, metric), found in table.sensitivity.items():
        numbers = {key: round(value, 2) if np.isfinite(value) else None for key, value in dataclasses.asdict(found).items()}
        tree["sensitivity"].setdefault(group, {})[metric] = numbers
    return tree


def _means(row: Row) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (group, metric), interval in row.intervals.items():
        tree.setdefault(group, {})[metric] = rounded(interval.mean)
    return tree


def blocks(table: AblationTable, settings: Settings) -> list[Block]:
    """This run's table, its sensitivity, and the paper's numbers if it has this table."""
    return [_run_block(table, settings), _sensitivity_block(table), *_paper_block(table)]


def _run_block(table: AblationTable, settings: Settings) -> Block:
    rows = [(table.base.label, [*(_entry(table.base, column, "") for column in table.marks), NOTHING, NOTHING])]
    for name, row in table.rows.items():
        entries = [_entry(row, column, marked.get(name, "")) for column, marked in table.marks.items()]
        rows.append((row.label, [*entries, Entry(f"{row.evaluations:,.0f}"), Entry(f"{row.seconds:,.0f}")]))
    caption = f"This run ({settings.scale}), against {PROTOCOLS[settings.protocol]}"
    return Block(caption, table.groups, rows, COST, "Row")


def _entry(row: Row, column: Column, mark: str) -> Entry:
    interval, digits = row.intervals[column], DIGITS[column[1]]
    ends = f"{interval.low:.{digits}f}, {interval.high:.{digits}f}"
    return Entry(f"{interval.mean:.{digits}f}", ends, best=mark == "best", second=mark == "second")


def _sensitivity_block(table: AblationTable) -> Block:
    ours = table.axis.label(table.axis.ours)
    names = {"over_base": f"{ours} over base", "seeds": "Two training seeds of a row, at most", "rows": "Two rows, at most"}
    found = table.sensitivity.values()
    rows = [(label, [_number(getattr(each, name)) for each in found]) for name, label in names.items()]
    return Block("Differences in standard errors of the paired difference over episodes", table.groups, rows, first="Difference")


def _number(value: float) -> Entry:
    return NOTHING if np.isnan(value) else Entry(f"{value:.1f}")


def _paper_block(table: AblationTable) -> list[Block]:
    printed = reported()["ablations"].get(table.name)
    if printed is None:
        return []
    rows = []
    for label, *numbers in printed.values():
        digits = (3, 2, 4) * len(PAPER_GROUPS)
        rows.append((label, [Entry(f"{value:.{places}f}") for value, places in zip(numbers, digits, strict=True)]))
    return [Block("As the paper printed (full scale: DROID, AlexNet LPIPS; not measured here)", list(PAPER_GROUPS), rows, first="Row")]


def warning(table: AblationTable) -> str:
    """In plain words: whether this axis can tell anything, and in which columns it cannot."""
    blind = [f"{group} {metric.upper()}" for (group, metric), found in table.sensitivity.items() if not found.tells]
    ours = table.axis.label(table.axis.ours)
    if not blind:
        return f"In all columns “{ours}” differs from the base by {ENOUGH:g} standard errors or more, and by more than training seeds do."
    where = "in any column" if len(blind) == len(table.sensitivity) else f"in {', '.join(blind)}"
    return (
        f"WARNING: this table cannot tell rows apart {where}. There “{ours}” is less than {ENOUGH:g} standard errors from the base, "
        "or two training seeds of a row differ by as much. Do not read differences of rows there."
    )


def table_notes(table: AblationTable, scores: Scores, settings: Settings) -> list[str]:
    """What a reader needs to judge the table."""
    counts = {len(next(iter(row.values.values()))) for row in table.rows.values()}
    episodes, chunks = scores.frame["episode"].nunique(), int(scores.frame["chunk"].max()) + 1
    single = "" if min(counts) > 1 else " Rows with one training seed cannot show what the seed changes."
    tests = (
        f"Bold: better than every other row; underlined: better than every row behind it. Better means a better mean, p < {ALPHA:g} in "
        "Wilcoxon's paired test over episodes, and each training seed better than each of the other row. The base is not ranked."
    )
    return [
        warning(table),
        f"Scale: {settings.scale}. The results of this run were measured at this scale; the paper's numbers are at full scale.",
        f"Full frames, rollouts of {chunks} chunks, {episodes} episodes, evaluation seeds {', '.join(map(str, settings.seeds))}, "
        f"training seeds per row: {' or '.join(map(str, sorted(counts)))}.{single} Brackets: {settings.confidence:.0%} bootstrap interval "
        f"over episodes and training seeds ({settings.bootstrap} samples).",
        tests,
        "U-Net evaluations are the forward passes of a chunk in one training (a backward pass counts as two). Seconds are those of one "
        "training by its log, beside whatever else ran.",
        metrics_note(scores.meta),
    ]


def long_table(table: AblationTable) -> pd.DataFrame:
    """One row per number of this run (by row and training seed -1 for the mean) and of the paper (source 'paper')."""
    lines = []
    for name, row in {"base": table.base, **table.rows}.items():
        for (group, metric), interval in row.intervals.items():
            shared = dict(source="this run", row=name, label=row.label, view=group, metric=metric)
            mark, cost = table.marks[group, metric].get(name, ""), dict(unet_evaluations=row.evaluations, seconds=row.seconds)
            lines.append(shared | dict(training_seed="all", value=interval.mean, low=interval.low, high=interval.high, mark=mark) | cost)
            means = row.values[group, metric].mean(axis=1)
            lines += [shared | dict(training_seed=str(number), value=value) for number, value in enumerate(means) if len(means) > 1]
    for name, (label, *numbers) in reported()["ablations"].get(table.name, {}).items():
        for (group, metric), value in zip(itertools.product(PAPER_GROUPS, METRICS), numbers, strict=True):
            lines.append(dict(source="paper", row=name, label=label, view=group, metric=metric, value=value))
    return pd.DataFrame(lines)

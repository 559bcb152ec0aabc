"""Writes Tables 1 and 2 as csv, md and tex, with this run beside the paper's numbers, and the metrics as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from persistworld.config.models import OURS, THEIRS, Models
from persistworld.evaluation.score_table import METRICS, Scores
from persistworld.evaluation.statistics import Interval
from persistworld.paper.blocks import HEADINGS, Block, Entry, paper_rows, table_blocks
from persistworld.paper.cells import (
    TABLE_REGIONS,
    Cell,
    CellKey,
    make_cells,
    paired_details,
    paired_json,
    table_json,
)
from persistworld.paper.notes import Settings, footnotes
from persistworld.paper.table_latex import latex_page
from persistworld.runtime.files import atomic_path, write_json

TITLES = {
    "table_1": "Table 1. Visual quality of autoregressive rollouts, full frame",
    "table_2": "Table 2. Visual quality of autoregressive rollouts, object and robot only",
}


def write_tables(scores: Scores, settings: Settings, tables: Path, metrics: Path) -> None:
    """Write table_{1,2}.{csv,md,tex} into `tables`, and {table_1,table_2,paired,paired_details}.json into `metrics`."""
    options = (settings.bootstrap, settings.confidence, settings.seed)
    cells = make_cells(scores, *options)
    details = paired_details(scores, comparisons(scores.models, settings.models), *options)
    notes = footnotes(scores, settings)
    for table in TABLE_REGIONS:
        blocks = table_blocks(cells, details, table, settings)
        write_text(tables / f"{table}.csv", long_table(cells, table).to_csv(index=False, float_format="%.6g"))
        write_text(tables / f"{table}.md", markdown_page(TITLES[table], blocks, notes, settings))
        write_text(tables / f"{table}.tex", latex_page(table, TITLES[table], blocks, notes, settings.scale))
        write_json(metrics / f"{table}.json", table_json(cells, table, settings.protocol))
    write_json(metrics / "paired.json", paired_json(details, settings.protocol, OURS, THEIRS))
    write_json(metrics / "paired_details.json", details)


def model_json(scores: Scores, settings: Settings, model: str) -> dict[str, Any]:
    """One model's numbers under the headline protocol in one tree: table_1, table_2, paired (against base) and paired_details."""
    options = (settings.bootstrap, settings.confidence, settings.seed)
    cells = make_cells(scores, *options)
    details = paired_details(scores, [(model, other) for other in settings.models.rivals(model, scores.models)], *options)
    return {
        "model": model,
        "protocol": settings.protocol,
        "scale": settings.scale,
        "convention": scores.meta["convention"],
        "lpips_backbone": scores.meta["lpips_backbone"],
        "seeds": list(settings.seeds),
        "table_1": table_json(cells, "table_1", settings.protocol),
        "table_2": table_json(cells, "table_2", settings.protocol),
        "paired": paired_json(details, settings.protocol, model, THEIRS),
        "paired_details": {pair: tree.get(settings.protocol, {}) for pair, tree in details.items()},
    }


def long_table(cells: dict[CellKey, Cell], table: str) -> pd.DataFrame:
    """One row per number: this run (both protocols, with intervals) and the paper's numbers (source 'paper')."""
    rows = []
    for (protocol, group, model, region, metric), cell in cells.items():
        if region in TABLE_REGIONS[table]:
            names = dict(source="this run", protocol=protocol, view=group, model=model, region=region, metric=metric)
            intervals = (
                _named("", cell.value) | _named("change_percent", cell.change) | _named("difference", cell.difference)
            )
            rows.append(names | {"episodes": cell.episodes} | intervals)
    for group, region, model, numbers, base in paper_rows(table):
        for metric in METRICS:
            names = dict(source="paper", protocol="", view=group, model=model, region=region, metric=metric)
            change = None if base is None or model == "base" else 100 * (numbers[metric] / base[metric] - 1)
            rows.append(names | {"value": numbers[metric], "change_percent": change})
    return pd.DataFrame(rows)


def _markdown(entry: Entry) -> str:
    value = f"**{entry.value}**" if entry.best else f"<ins>{entry.value}</ins>" if entry.second else entry.value
    interval = f" [{entry.interval}]" if entry.interval else ""
    return value + interval + (f" ({entry.change})" if entry.change else "")


def markdown_page(title: str, blocks: list[Block], notes: list[str], settings: Settings) -> str:
    """A Markdown page: one table per block, then the notes."""
    parts = [f"# {title}", f"**Scale: {settings.scale}**"]
    for block in blocks:
        head = [block.first, *(f"{group} {HEADINGS[metric]}" for group in block.groups for metric in METRICS), *block.extra]
        lines = [head, ["---"] * len(head), *([name, *map(_markdown, entries)] for name, entries in block.rows)]
        parts.append(f"## {block.caption}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _named(prefix: str, interval: Interval | None) -> dict[str, float | None]:
    names = (prefix or "value", f"{prefix}_low" if prefix else "low", f"{prefix}_high" if prefix else "high")
    numbers = (interval.mean, interval.low, interval.high) if interval else (None, None, None)
    return dict(zip(names, numbers, strict=True))


def comparisons(names: Sequence[str], models: Models) -> list[tuple[str, str]]:
    """The pairs (ours, theirs) of scored models that are compared episode by episode."""
    base, controls, trained, variants = (models.of_role(names, role) for role in ("base", "control", "post_trained", "variant"))
    pairs = [(trained, base), (trained, controls), (controls, base)]
    found = [(ours, theirs) for mine, others in pairs for ours in mine for theirs in others]
    return found + [(ours, theirs) for ours in variants for theirs in (*base, *controls, *trained)]


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    with atomic_path(path) as part:
        part.write_text(text)

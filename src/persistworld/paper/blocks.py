"""Formats cells into printable tables in page order. Markdown, LaTeX and HTML all use them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from persistworld.evaluation.score_table import METRICS, PAPER_GROUPS, PROTOCOLS
from persistworld.evaluation.statistics import LOWER_IS_BETTER
from persistworld.paper.cells import TABLE_REGIONS, Cell, CellKey, groups_of, reported
from persistworld.paper.notes import Settings

PROTOCOL_TEXT = {
    "decoded": "against autoencoder-decoded ground truth",
    "raw": "against the raw recorded frames",
}
HEADINGS = {"ssim": "SSIM ↑", "psnr": "PSNR (dB) ↑", "lpips": "LPIPS ↓"}
SIGNIFICANT = 0.05  # p values above are printed without the colour of a gain or a loss
DIGITS = {"ssim": 4, "psnr": 2, "lpips": 4}


@dataclass(frozen=True)
class Entry:
    """One printed number: formatted text, interval and change. `better` tells whether the change is an improvement; None: undecided."""

    value: str
    interval: str = ""
    change: str = ""
    best: bool = False
    second: bool = False
    better: bool | None = None


NOTHING = Entry("–")


@dataclass(frozen=True)
class Block:
    """A printable table: a caption, the group headings above the metrics, and rows of (label, one entry per column).

    `extra`: headings of further columns, after the metrics. `first`: heading of the labels.
    """

    caption: str
    groups: list[str]  # one heading per three metric columns
    rows: list[tuple[str, list[Entry]]]
    extra: tuple[str, ...] = ()
    first: str = "Model"


def table_blocks(cells: dict[CellKey, Cell], details: dict[str, Any], table: str, settings: Settings) -> list[Block]:
    """Four tables: this run under the headline protocol, its paired wins, this run under the other protocol, the paper's numbers."""
    order = [settings.protocol, *(p for p in PROTOCOLS if p != settings.protocol)]
    headline, other = [_run_block(cells, table, p, settings, p == settings.protocol) for p in order]
    blocks = [headline, _paired_block(details, table, settings, groups_of(cells)), other, _paper_block(table)]
    return [part for block in blocks for part in _page_wide(block)]


def _page_wide(block: Block) -> list[Block]:
    """Split the block into parts of two headings (six columns), which fit on a page. Several parts name their headings in the captions."""
    width, parts = 2 * len(METRICS), []
    for i in range(0, len(block.groups), 2):
        groups = block.groups[i : i + 2]
        caption = block.caption if len(block.groups) <= 2 else f"{block.caption} ({', '.join(groups)})"
        parts.append(Block(caption, groups, [(name, entries[width * i // 2 : width * i // 2 + width]) for name, entries in block.rows]))
    return parts


def _run_block(cells: dict[CellKey, Cell], table: str, protocol: str, settings: Settings, headline: bool) -> Block:
    columns = _columns(table, groups_of(cells))
    known = settings.models
    models = known.ordered({key[2] for key in cells if key[0] == protocol})
    if protocol == "decoded":  # here the ceiling is identical to the ground truth
        models = [model for model in models if known[model].role != "ceiling"]
    best = {}
    for group, region in columns:
        for metric in METRICS:
            # Only world models are ranked, so the copied frame and the ceiling are never printed bold.
            ranked = {m: cells[protocol, group, m, region, metric].value.mean for m in known.rolled_out(models)
                      if (protocol, group, m, region, metric) in cells}  # fmt: skip
            if ranked:
                choose: Callable = min if metric in LOWER_IS_BETTER else max
                best[group, region, metric] = choose(ranked, key=ranked.get)
    rows = []
    for model in models:
        entries = []
        for group, region in columns:
            for metric in METRICS:
                cell = cells.get((protocol, group, model, region, metric))
                entries.append(_entry(cell, metric, best.get((group, region, metric)) == model))
        rows.append((known[model].label, entries))
    kind = "headline protocol" if headline else "other protocol"
    caption = f"This run ({settings.scale}), {kind}: {PROTOCOL_TEXT[protocol]}"
    return Block(caption, [_heading(table, group, region) for group, region in columns], rows)


def _paired_block(details: dict[str, Any], table: str, settings: Settings, groups: tuple[str, ...]) -> Block:
    """Share of episodes where the first model is better, and the p value of Wilcoxon's test, under the headline protocol."""
    columns = _columns(table, groups)
    rows = []
    for pair, tree in details.items():
        entries = []
        for group, region in columns:
            metrics = tree.get(settings.protocol, {}).get(group, {}).get(region, {})
            entries += [_win_entry(metrics.get(metric)) for metric in METRICS]
        ours, theirs = pair.rsplit("_vs_", 1)  # `ours` may contain "_vs_" (a variant's name), `theirs` never does
        rows.append((f"{settings.models[ours].label} over {settings.models[theirs].label}", entries))
    caption = f"Paired by episode, {settings.protocol}: share of episodes in which the first model is better (two-sided Wilcoxon p)"
    return Block(caption, [_heading(table, group, region) for group, region in columns], rows)


def _win_entry(found: dict[str, Any] | None) -> Entry:
    if found is None:
        return NOTHING
    better = found["win_rate"] > 0.5 if found["wilcoxon_p"] < SIGNIFICANT else None
    return Entry(f"{found['win_rate']:.0%}", change=f"p {p_text(found['wilcoxon_p'])}", better=better)


def p_text(p: float) -> str:
    """Format a p value: three decimals, or one significant digit in scientific notation below 0.001."""
    return f"{p:.0e}" if p < 1e-3 else f"{p:.3f}"


def _paper_block(table: str) -> Block:
    printed = reported()
    names = {**printed["others"], **printed["models"]}
    columns = _columns(table, PAPER_GROUPS)
    found: dict[str, dict[tuple[str, str], list[Entry]]] = {}
    for group, region, model, numbers, base in paper_rows(table):
        entries = []
        for metric in METRICS:
            value = f"{numbers[metric]:.{3 if metric == 'lpips' else 2}f}"
            difference = numbers[metric] - base[metric] if model == "post_trained" else None
            if difference is None:
                entries.append(Entry(value))
            else:
                change = _change_text(metric, difference, 100 * difference / base[metric])
                entries.append(Entry(value, change=change, better=(difference < 0) == (metric in LOWER_IS_BETTER)))
        found.setdefault(model, {})[group, region] = entries
    rows = [
        (names[model], [e for column in columns for e in found[model].get(column, [NOTHING] * len(METRICS))])
        for model in names
        if model in found
    ]
    caption = "As the paper printed (full scale: DROID, AlexNet LPIPS; not measured here)"
    return Block(caption, [_heading(table, group, region) for group, region in columns], rows)


def paper_rows(table: str) -> list[tuple[str, str, str, dict[str, float], dict[str, float] | None]]:
    """(view, region, model, numbers, base's numbers) for every row that the paper prints."""
    rows = []
    for group, models in reported()[table].items():
        for model, numbers in models.items():
            regions = {"full": numbers} if table == "table_1" else numbers
            for region, values in regions.items():
                base = models["base"] if table == "table_1" else models["base"][region]
                rows.append((group, region, model, values, base if model in ("base", "post_trained") else None))
    return rows


def _columns(table: str, groups: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(group, region) for group in groups for region in TABLE_REGIONS[table]]


def _heading(table: str, group: str, region: str) -> str:
    return group if table == "table_1" else f"{group} {region}"


def _entry(cell: Cell | None, metric: str, best: bool) -> Entry:
    if cell is None:
        return NOTHING
    digits = DIGITS[metric]
    interval = f"{cell.value.low:.{digits}f}, {cell.value.high:.{digits}f}"
    if cell.change is None or cell.difference is None:
        return Entry(f"{cell.value.mean:.{digits}f}", interval, best=best)
    change = _change_text(metric, cell.difference.mean, cell.change.mean)
    better = (cell.difference.mean < 0) == (metric in LOWER_IS_BETTER)
    return Entry(f"{cell.value.mean:.{digits}f}", interval, change, best, better=better)


def _change_text(metric: str, difference: float, percent: float) -> str:
    return f"{difference:+.2f} dB" if metric == "psnr" else f"{percent:+.1f} %"

"""Rows of benchmark results, timing functions and the Markdown output."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One row of the table: what was measured, the value, and a note on the method or a reference value."""

    what: str
    value: float
    unit: str
    note: str = ""


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of `repeats` runs after a warm-up. The minimum is used because other processes can only slow a run down."""
    return seconds_in_turns([run], repeats)[0]


def seconds_in_turns(runs: Sequence[Callable[[], object]], repeats: int = 3) -> list[float]:
    """`seconds` of each run, interleaved over `repeats` rounds, so that other load on the machine affects all of them alike."""
    for run in runs:
        run()
    best = [float("inf")] * len(runs)
    for _ in range(repeats):
        for place, run in enumerate(runs):
            began = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best[place] = min(best[place], time.perf_counter() - began)
    return best


def peak_gib(run: Callable[[], object]) -> float:
    """Peak GPU memory in GiB during `run`, including what was in use before."""
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() / 2**30


def markdown(title: str, rows: Sequence[Row]) -> str:
    """The rows as a Markdown table with three significant digits (large counts in full)."""
    lines = [f"### {title}", "", "| what | value | unit | note |", "|---|---:|---|---|"]
    lines += [f"| {r.what} | {_number(r.value)} | {r.unit} | {r.note} |" for r in rows]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

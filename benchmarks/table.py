"""What a benchmark returns, how it is timed, and how it is printed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, how much it is, and what to hold it against or how it was done."""

    what: str
    value: float
    unit: str
    note: str = ""


def seconds(run: Callable[[], object], repeats: int = 3) -> float:
    """The shortest of `repeats` runs after one that warms up: other processes can only make a run longer."""
    return seconds_in_turns([run], repeats)[0]


def seconds_in_turns(runs: Sequence[Callable[[], object]], repeats: int = 3) -> list[float]:
    """`seconds` of each, one after the other `repeats` times: what else the machine does concerns all that are compared."""
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
    """The most GPU memory in use during `run`, what was in use before it included."""
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() / 2**30


def markdown(title: str, rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, three significant digits (large counts whole)."""
    lines = [f"### {title}", "", "| what | value | unit | note |", "|---|---:|---|---|"]
    lines += [f"| {r.what} | {_number(r.value)} | {r.unit} | {r.note} |" for r in rows]
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

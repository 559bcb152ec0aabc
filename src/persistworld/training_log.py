"""A training run's log: one CSV row a step, cut back to the resumed step after a kill."""

import csv
from pathlib import Path


def append_row(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)


def keep_rows(path: Path, steps: int) -> None:
    """Drop rows of step `steps` and later: they will be written again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: steps + 1]))

"""A training run's log: one CSV row a step, cut back to the resumed step after a kill."""

import csv
from pathlib import Path

from persistworld.files import atomic_path


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add one row; the first one writes its keys as the header."""
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, row, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def keep_rows(path: Path, steps: int) -> None:
    """Drop rows of step `steps` and later: they will be written again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        lines = path.read_text().splitlines(keepends=True)
        with atomic_path(path) as part:
            part.write_text("".join(lines[: steps + 1]))

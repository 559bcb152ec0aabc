"""A training run's log: one row per step in log.csv, and the same numbers as TensorBoard events (`tensorboard --logdir runs`)."""

import csv
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from persistworld.runtime.files import atomic_path

CSV = "log.csv"


class TrainingLog:
    """Writes to `folder`, beginning with step `start`.

    Rows and events of a killed run for that step and later are dropped, because those steps run again.
    If `writes` is false (all processes but the first), nothing is written.
    """

    def __init__(self, folder: Path, start: int, writes: bool) -> None:
        self.path, self.writes = folder / CSV, writes
        if writes:
            _keep_rows(self.path, start)
            self.events = SummaryWriter(folder, purge_step=start, flush_secs=10)

    def append(self, row: dict[str, float]) -> None:
        """Add one row. Its "step" counts from 0. The keys of the first row become the header."""
        if not self.writes:
            return
        new = not self.path.exists() or self.path.stat().st_size == 0  # a power failure can leave it empty
        with open(self.path, "a", newline="") as file:
            writer = csv.DictWriter(file, row, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        for name, value in row.items():
            if name != "step":
                self.events.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush the buffered events and close the file."""
        if self.writes:
            self.events.close()


def _keep_rows(path: Path, steps: int) -> None:
    """Drop the rows of step `steps` and later."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if steps == 0:  # drop the header too: columns may have changed
        path.unlink(missing_ok=True)
    elif path.exists():
        lines = path.read_text().splitlines(keepends=True)
        with atomic_path(path) as part:
            part.write_text("".join(lines[: steps + 1]))

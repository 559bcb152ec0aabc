"""The end of `make run`: in how many cells of Tables 1 and 2 the post-trained model is better than the base and than the control."""

from collections.abc import Iterator
from pathlib import Path

from persistworld.evaluation.statistics import LOWER_IS_BETTER
from persistworld.runtime.files import read_json

METRICS = Path("results/metrics")
OURS, RIVALS = "post_trained", {"base": "the base", "teacher_forced": "the teacher-forced control"}


def cells(values: dict, metric: str = "") -> Iterator[tuple[str, float]]:
    """(metric, mean) of each cell of one model, whatever the depth of view and region."""
    for name, value in values.items():
        yield from cells(value, name) if isinstance(value, dict) else [(name, value)]


def lines() -> list[str]:
    """One line per table and rival; none for models that were not evaluated."""
    found = []
    for number in (1, 2):
        views = read_json(METRICS / f"table_{number}.json").values()
        for rival, name in RIVALS.items():
            compared = [view for view in views if OURS in view and rival in view]
            pairs = [pair for view in compared for pair in zip(cells(view[OURS]), cells(view[rival]), strict=True)]
            better = sum((mine < other) if metric in LOWER_IS_BETTER else (mine > other) for (metric, mine), (_, other) in pairs)
            if pairs:
                found.append(f"Table {number}: post-trained better than {name} in {better} of {len(pairs)} cells")
    return found


if __name__ == "__main__":
    print(*lines(), sep="\n")

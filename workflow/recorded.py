"""Prints the tables of the ablations that DVC has recorded, for `make sync` and `make record`; with --stages, as DVC's stages.

Tables that were never made concern neither. Nor do those that params.yaml no longer has: DVC keeps their entries.
"""

import sys
from pathlib import Path

import yaml

PIPELINE = Path("workflow/ablations/dvc.yaml")


def tables() -> list[str]:
    """In the order of the pipeline."""
    lock = PIPELINE.with_suffix(".lock")
    known = yaml.safe_load(lock.read_text())["stages"] if lock.is_file() else {}
    return [name for name in yaml.safe_load(PIPELINE.read_text())["stages"] if name in known and name != "parameters"]


if __name__ == "__main__":
    print(*(f"{PIPELINE}:{name}" if "--stages" in sys.argv else name for name in tables()))

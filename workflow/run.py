"""`make run`: runs Snakemake on all cores. It resumes a killed run, shows its progress, and prints the errors of a failed run last."""

import os
import subprocess
import sys
import time
from pathlib import Path

from persistworld.runtime.errors import UserError
from persistworld.runtime.holding import hold, is_free
from persistworld.runtime.lifeline import RUN, end_with

PLUGINS = Path(__file__).resolve().parent / "progress"  # Snakemake finds its plugins on Python's path
STATE, LOCKS, LOGS = Path(".snakemake"), Path(".snakemake/locks"), Path("logs")


def main(targets: list[str]) -> int:
    if "MAKELEVEL" in os.environ:
        end_with(os.getppid())
    try:
        with hold(STATE / "run", "the workflow"):
            # Snakemake's own lock survives a kill. A live Snakemake shares the lock `alive`, so if `alive` is free, its own lock is stale.
            if LOCKS.exists() and any(LOCKS.iterdir()) and is_free(STATE / "alive"):
                snakemake("--unlock", "--quiet", "all")
            began = time.time()
            status = snakemake("--cores", "all", "--logger", "progress", "--quiet", "host", "rules", "--", *targets)
    except UserError as error:
        print(f"make run: {error}", file=sys.stderr)
        return 2
    if status:
        print(*errors_since(began), sep="\n", file=sys.stderr)
    return status


def snakemake(*options: str) -> int:
    path = os.pathsep.join(filter(None, (str(PLUGINS), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen([sys.executable, "-m", "snakemake", *options], env=os.environ | {RUN: str(os.getpid()), "PYTHONPATH": path})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # Snakemake received the interrupt too: it stops its jobs and releases its lock


def errors_since(began: float) -> list[str]:
    """The stages' error lines in the logs that were written since `began`."""
    logs = sorted(path for path in LOGS.rglob("*.log") if path.stat().st_mtime >= began)
    return [line for path in logs for line in path.read_text().splitlines() if line.startswith("persistworld: error")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

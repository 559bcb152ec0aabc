"""`make run`: Snakemake on all cores. A killed run is taken up without a word, and why a run failed is the last thing that it says."""

import fcntl
import subprocess
import sys
import time
from pathlib import Path

STATE, LOCKS, LOGS = Path(".snakemake/run"), Path(".snakemake/locks"), Path("logs")
UNDER_WAY = "under way"  # in STATE from a run's beginning to its end, so also after a kill


def main() -> int:
    STATE.parent.mkdir(exist_ok=True)
    with open(STATE, "a+") as state:
        try:
            fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print("make run: another one is at work in this folder; wait for it, or stop it", file=sys.stderr)
            return 2
        state.seek(0)
        # Snakemake's own lock outlives a kill. It is taken away only after a `make run` of which nothing lives: Snakemake inherits `state`.
        if state.read() == UNDER_WAY and LOCKS.exists() and any(LOCKS.iterdir()):
            snakemake("--unlock", "--quiet", "all")
        note(state, UNDER_WAY)
        began = time.time()
        status = snakemake("--cores", "all", "--quiet", "host", "rules", inherit=(state.fileno(),))
        note(state, "")
    if status:
        print(*errors_since(began), sep="\n", file=sys.stderr)
    return status


def snakemake(*options: str, inherit: tuple[int, ...] = ()) -> int:
    process = subprocess.Popen([sys.executable, "-m", "snakemake", *options], pass_fds=inherit)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # it reached Snakemake, too, which stops its jobs and gives its lock back


def note(state, text: str) -> None:
    state.seek(0)
    state.truncate()
    state.write(text)
    state.flush()


def errors_since(began: float) -> list[str]:
    """The stages' own lines on what went wrong, from the logs that were written since."""
    logs = sorted(path for path in LOGS.rglob("*.log") if path.stat().st_mtime >= began)
    return [line for path in logs for line in path.read_text().splitlines() if line.startswith("persistworld: error")]


if __name__ == "__main__":
    sys.exit(main())

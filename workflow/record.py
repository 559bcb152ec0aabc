"""`make record`: DVC takes what Snakemake made into dvc.lock and its cache, stage by stage where all of it is there.

A shorter `evaluation.models` leaves rollouts and scores of the other models unmade. `dvc commit` refuses a stage that lacks an output, or
an input that dvc.yaml names, as the tables then do.
"""

import subprocess
import sys

from dvc.repo import Repo


def main() -> int:
    with Repo() as repo:
        stages = {stage.addressing: all(each.exists for each in (*stage.outs, *stage.deps)) for stage in repo.index.stages}
    made = [name for name, whole in stages.items() if whole]
    if left := [name for name in stages if name not in made]:
        print(f"make record: not whole, and so not recorded: {', '.join(left)}", file=sys.stderr)
    return subprocess.call([sys.executable, "-m", "dvc", "commit", "--force", "--quiet", *made]) if made else 0


if __name__ == "__main__":
    sys.exit(main())

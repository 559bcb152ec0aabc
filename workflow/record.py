"""`make record`: DVC takes what Snakemake made into dvc.lock and its cache, for every stage whose files are all there.

dvc.yaml is generated first, for the same targets as before, so that it has the models that params.yaml now names. A stage that lacks an
output, or an input that dvc.yaml names, would make `dvc commit` fail; it is left out and named.
"""

import logging
import sys

import dvc_yaml
from dvc.repo import Repo


def main() -> int:
    dvc_yaml.write(dvc_yaml.written_targets())
    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns about every empty __init__.py
    with Repo() as repo, repo.lock:
        whole, lacking = [], []
        for stage in repo.index.stages:
            (whole if all(each.exists for each in (*stage.outs, *stage.deps)) else lacking).append(stage)
        # What `dvc commit --force` does for a stage. Called once for each, it would write dvc.lock as often: half a minute.
        for stage in whole:
            stage.save()
            stage.commit()
        if whole:
            whole[0].dvcfile.dump_stages(whole, update_pipeline=False)
    if lacking:
        print(f"make record: not recorded, because files are missing: {', '.join(stage.name for stage in lacking)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

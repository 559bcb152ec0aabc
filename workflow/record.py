"""`make record`: DVC takes what Snakemake made into dvc.lock and its cache, for every stage whose files are all there.

dvc.yaml is generated first, for the same targets as before, so that it has the models that params.yaml now names. A stage that lacks an
output, or an input that dvc.yaml names, would make `dvc commit` fail; it is left out and named. The ablations have a lock file of their
own once one of their tables was recorded. A table counts if its runs are there: git holds tables, also in a clone that trained none.
"""

import logging
import sys
from pathlib import Path

import dvc_yaml
from dvc.repo import Repo


def main() -> int:
    dvc_yaml.write(dvc_yaml.written_targets())
    made = dvc_yaml.write_ablations()
    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns about every empty __init__.py
    with Repo() as repo, repo.lock:
        lacking = _record(repo, dvc_yaml.MAIN)
        if made:
            _record(repo, dvc_yaml.ABLATIONS, made | {"parameters"})
    if lacking:
        print(f"make record: not recorded, because files are missing: {', '.join(lacking)}", file=sys.stderr)
    return 0


def _record(repo: Repo, pipeline: dvc_yaml.Pipeline, names: set[str] | None = None) -> list[str]:
    """Record a file's stages, or those in `names`. Returns those that lack files. Does nothing if only `parameters` is whole."""
    stages = [stage for stage in repo.index.stages if Path(stage.path) == pipeline.file.resolve() and (not names or stage.name in names)]
    whole = [stage for stage in stages if all(each.exists for each in (*stage.outs, *stage.deps))]
    if not {stage.name for stage in whole} - {"parameters"}:
        return [stage.name for stage in stages]
    # What `dvc commit --force` does for a stage. Called once for each, it would write the lock as often: half a minute.
    for stage in whole:
        stage.save()
        stage.commit()
    whole[0].dvcfile.dump_stages(whole, update_pipeline=False)
    return [stage.name for stage in stages if stage not in whole]


if __name__ == "__main__":
    sys.exit(main())

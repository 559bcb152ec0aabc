"""`make record`: DVC takes what Snakemake made into dvc.lock and its cache, for every stage whose files are all there.

dvc.yaml is generated first, for the same targets as before, so that it has the models that params.yaml now names. A stage that lacks an
output, or an input that dvc.yaml names, would make `dvc commit` fail; it is left out and named. The ablations have a lock file of their
own once one of their stages was recorded; tables that were never made are not named.
"""

import logging
import sys
from pathlib import Path

import dvc_yaml
from dvc.repo import Repo


def main() -> int:
    dvc_yaml.write(dvc_yaml.written_targets())
    dvc_yaml.write_ablations()
    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns about every empty __init__.py
    with Repo() as repo, repo.lock:
        lacking = [name for pipeline in (dvc_yaml.MAIN, dvc_yaml.ABLATIONS) for name in _record(repo, pipeline)]
    if lacking:
        print(f"make record: not recorded, because files are missing: {', '.join(lacking)}", file=sys.stderr)
    return 0


def _record(repo: Repo, pipeline: dvc_yaml.Pipeline) -> list[str]:
    """Record a file's stages; returns the names of those that lack files. Does nothing if none but `parameters` has made its outputs."""
    optional = pipeline is dvc_yaml.ABLATIONS
    stages = [stage for stage in repo.index.stages if Path(stage.path) == pipeline.file.resolve()]
    whole = [stage for stage in stages if all(each.exists for each in (*stage.outs, *stage.deps))]
    if not {stage.name for stage in whole} - {"parameters"}:
        return [] if optional else [stage.name for stage in stages]
    # What `dvc commit --force` does for a stage. Called once for each, it would write the lock as often: half a minute.
    for stage in whole:
        stage.save()
        stage.commit()
    whole[0].dvcfile.dump_stages(whole, update_pipeline=False)
    return [stage.name for stage in stages if stage not in whole and (not optional or any(out.exists for out in stage.outs))]


if __name__ == "__main__":
    sys.exit(main())

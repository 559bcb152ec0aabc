"""`make dvc`: writes dvc.yaml, DVC's stages, from the rules, and results/parameters.json, the values that its stages compare.

One stage per rule and value of its wildcards, such as a model; the shards of one rule are one stage. A stage's command has Snakemake run
that rule of the main Snakefile and nothing upstream. `TARGETS` are Snakemake's (default: all); what they need becomes a stage.
The ablations have a file of their own, so that `dvc repro` alone, which takes the dvc.yaml of the working directory, does not train them.

    python workflow/dvc_yaml.py [TARGETS]            write both pipelines, dvc.yaml for TARGETS
    python workflow/dvc_yaml.py --check [TARGETS]    its stage `parameters`: refuse if dvc.yaml is out of date, else write only the values
    python workflow/dvc_yaml.py --check --ablations  the same for workflow/ablations/dvc.yaml
"""

import argparse
import contextlib
import hashlib
import io
import json
import shutil
import sys
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.exceptions import RuleException, WorkflowError
from snakemake.jobs import Job
from snakemake.settings.types import DAGSettings, OutputSettings, Quietness, ResourceSettings

HEADER = "# DVC's stages. Generated from the rules in workflow/ by `make dvc`: do not edit.\n"
CHECK = "python workflow/dvc_yaml.py --check "
# What decides which stages there are and what they compare.
RULES = ["workflow/Snakefile", "workflow/common.smk", "workflow/rules", "workflow/dvc_yaml.py"]
DEFINITION = ["params.yaml", "src/persistworld/config", *RULES]
PARTS = {"shard", "seed"}  # wildcards that number the parts of one result: their jobs are one stage, their files one folder
IN_GIT = ("results/metrics", "results/tables", "results/figures")  # so DVC keeps no second copy
PLOTS = {
    "results/training/post_trained.csv": {
        "reward": {
            "title": "Reward of the candidates over the steps of the post-training",
            "x": "step",
            "y": {"results/training/post_trained.csv": "reward_mean"},
        }
    }
}


@dataclass(frozen=True)
class Pipeline:
    """One file with stages. values: what its stages compare, as the rules' `params:` have it. option: of this script, for `--check`."""

    file: Path
    values: Path
    option: str = ""

    @property
    def check(self) -> str:
        return CHECK + self.option


MAIN = Pipeline(Path("dvc.yaml"), Path("results/parameters.json"))
# A file of values per table. They are dependencies, not DVC's parameters: git and the cache lack them, so `dvc exp show` and
# `dvc params diff` would list each of them as changed.
ABLATIONS = Pipeline(Path("workflow/ablations/dvc.yaml"), Path("results/ablation_parameters"), "--ablations")
ABLATION_TARGETS = ["ablations", "speed"]
TABLE_RULES = ("ablation_table", "speed_table")


@dataclass
class Stage:
    """Jobs of one rule that differ only in `PARTS`."""

    rule: str
    name: str  # the rule, and the values of its other wildcards
    jobs: list[Job] = field(default_factory=list)

    @property
    def outputs(self) -> list[str]:
        """Files and folders as DVC keeps them: for parts, the folder that holds all of them."""
        parts = PARTS & self.jobs[0].wildcards_dict.keys()
        return sorted({str(Path(path).parent if parts else path) for job in self.jobs for path in job.output})

    @property
    def inputs(self) -> list[str]:
        return sorted({str(path) for job in self.jobs for path in job.input})

    @property
    def metrics(self) -> list[str]:
        """What the rule names `metrics`: `dvc metrics diff` compares it."""
        named = dict(self.jobs[0].output.items()).get("metrics", [])
        return sorted(map(str, [named] if isinstance(named, str) else named))

    @property
    def parameters(self) -> dict[str, Any]:
        """Section or "section.key" -> value; the jobs of a stage share it."""
        return dict(self.jobs[0].params.items())


def find_stages(targets: list[str]) -> list[Stage]:
    """The stages that make `targets`, each after those that it needs."""
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(ResourceSettings(cores=1), snakefile=Path("workflow/Snakefile"))
        dag = workflow.dag(DAGSettings(targets=set(targets)))
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                dag.printrulegraph()  # builds the DAG; the API has no other way to look at its jobs
        except (WorkflowError, RuleException) as error:
            sys.exit(f"persistworld: error: {' '.join(str(error).split())}")
        jobs = [job for job in workflow._workflow.dag.jobs if job.output]
        stages: dict[str, Stage] = {}
        for job in sorted(jobs, key=lambda job: (job.rule.name, sorted(job.output))):
            name = "-".join([job.rule.name, *(value for wildcard, value in job.wildcards_dict.items() if wildcard not in PARTS)])
            stages.setdefault(name, Stage(job.rule.name, name)).jobs.append(job)
    maker = {output: name for name, stage in stages.items() for job in stage.jobs for output in job.output}
    needs = {name: sorted({maker[path] for path in stage.inputs if path in maker}) for name, stage in stages.items()}
    return [stages[name] for name in TopologicalSorter(needs).static_order()]


def dvc_yaml(stages: list[Stage], targets: list[str]) -> str:
    """The text of dvc.yaml."""
    outputs = {output for stage in stages for output in stage.outputs}
    content = {"params": ["params.yaml"], "stages": _entries(MAIN, stages, outputs, targets)}
    if plots := [plot for path, plot in PLOTS.items() if path in outputs]:
        content["plots"] = plots
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=120)


def ablation_tables(stages: list[Stage]) -> dict[str, list[Stage]]:
    """The ablations' tables by name, each with the stages that dvc.yaml lacks and that the table needs, itself last."""
    known = yaml.safe_load(MAIN.file.read_text())["stages"]
    own = {path: stage for stage in stages if stage.name not in known for job in stage.jobs for path in job.output}
    found = {}
    for stage in sorted(stages, key=lambda stage: stage.name):  # not by need: that order follows the runs' names, so a row's values
        if stage.rule in TABLE_RULES and stage.name not in known:
            needed, waiting = [], [stage]
            while waiting:
                each = waiting.pop()
                if each not in needed:
                    needed.append(each)
                    waiting += [own[path] for path in each.inputs if path in own]
            name = dict(stage.jobs[0].wildcards_dict).get("axis", stage.rule.removesuffix("_table"))
            found[name] = needed[::-1]
    return found


def ablations_yaml(stages: list[Stage]) -> str:
    """The text of the ablations' file: a stage per table. Commands and paths begin at the repository's root.

    Snakemake decides which of the table's runs are out of date. Runs are not DVC's outputs: tables share them, and the folders are named
    by what determines them, so that a parameter that is changed back finds its run again. All outputs here are in git or made anew, so
    that push, pull and checkout work whether or not a table was made.
    """
    entries = {"parameters": _check_entry(ABLATIONS, [])}
    entries["parameters"] |= {"deps": [*DEFINITION, "src/persistworld"], "outs": [{str(ABLATIONS.values): {"cache": False}}]}
    outputs = {output for stage in stages for output in stage.outputs}
    for name, needed in ablation_tables(stages).items():
        entry, made = _entry(needed[-1], outputs, ABLATIONS.values), {path for stage in needed for job in stage.jobs for path in job.output}
        rules = " ".join(sorted({stage.rule for stage in needed}))
        target = needed[-1].metrics[0]
        data = {path for stage in needed for path in stage.inputs if path not in made and not path.startswith("src/")}
        folders = {str(folder) if str(folder := Path(path).parent) in outputs else path for path in data}
        entry["cmd"] = f"snakemake --quiet host progress --cores all --allowed-rules {rules} -- {target}"
        entry["deps"] = sorted({str(_values_of(name)), *folders})
        entry.pop("params")
        entry["outs"] = [out for out in entry["outs"] if isinstance(out, dict)]
        entries[name] = entry
    content = {"stages": {name: {"wdir": "../.."} | entry for name, entry in entries.items()}}
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=120)


def write_ablation_values(stages: list[Stage]) -> None:
    """Write what the ablations' stages compare: the table's own parameters, and digests of those of its runs and of the code."""
    shutil.rmtree(ABLATIONS.values, ignore_errors=True)  # of tables that there are no more
    ABLATIONS.values.mkdir(parents=True)
    for name, needed in ablation_tables(stages).items():
        jobs = sorted(json.dumps([stage.name, stage.parameters], sort_keys=True) for stage in needed)
        files = sorted({path for stage in needed for path in stage.inputs if path.startswith("src/")})
        code = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files]
        values = needed[-1].parameters | {"runs_digest": _digest(jobs), "code_digest": _digest(code)}
        _values_of(name).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")


def _values_of(table: str) -> Path:
    return ABLATIONS.values / f"{table}.json"


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _entries(pipeline: Pipeline, stages: list[Stage], outputs: set[str], targets: list[str]) -> dict[str, Any]:
    return {"parameters": _check_entry(pipeline, targets)} | {stage.name: _entry(stage, outputs, pipeline.values) for stage in stages}


def _check_entry(pipeline: Pipeline, targets: list[str]) -> dict[str, Any]:
    return {"cmd": pipeline.check + " ".join(targets), "deps": DEFINITION, "outs": [str(pipeline.values)]}


def _entry(stage: Stage, outputs: set[str], values: Path) -> dict[str, Any]:
    deps = {str(folder) if str(folder := Path(path).parent) in outputs else path for path in stage.inputs}
    wanted = " ".join(str(job.output[0]) for job in stage.jobs)
    entry = {
        "cmd": f"snakemake --quiet host progress --cores all --allowed-rules {stage.rule} -- {wanted}",
        "deps": sorted(deps),
        "params": [{str(values): sorted(f"{stage.name}.{name}" for name in stage.parameters)}],
        "outs": [_out(path) for path in stage.outputs if path not in stage.metrics],
        "metrics": [_out(path) for path in stage.metrics],
    }
    return {key: value for key, value in entry.items() if value}


def _out(path: str) -> str | dict[str, Any]:
    return {path: {"cache": False}} if path.startswith(IN_GIT) else path


def parameter_values(stages: list[Stage]) -> str:
    """The text of results/parameters.json. A key such as "rollout.history_index" is a level deeper, as DVC reads it."""
    values: dict[str, Any] = {}
    for stage in stages:
        for name, value in stage.parameters.items():
            place = values.setdefault(stage.name, {})
            *above, last = name.split(".")
            for level in above:
                place = place.setdefault(level, {})
            place[last] = value
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def written_targets() -> list[str]:
    """The targets that the present dvc.yaml was written for."""
    stages = yaml.safe_load(MAIN.file.read_text())["stages"]
    return stages["parameters"]["cmd"].removeprefix(CHECK).split()


def write(targets: list[str]) -> None:
    """Write dvc.yaml and the values that it compares."""
    stages = find_stages(targets)
    MAIN.file.write_text(dvc_yaml(stages, targets))
    write_values(stages)


def write_ablations() -> set[str]:
    """Write the ablations' pipeline and the values that it compares. It leaves out what dvc.yaml has, so that comes first.

    Returns the tables that were made here with these parameters: all their runs are there. The tables themselves are in git.
    """
    stages = find_stages(ABLATION_TARGETS)
    ABLATIONS.file.parent.mkdir(exist_ok=True)
    ABLATIONS.file.write_text(ablations_yaml(stages))
    write_ablation_values(stages)
    tables = ablation_tables(stages).items()
    return {name for name, needed in tables if all(Path(path).exists() for stage in needed for path in stage.outputs)}


def check(targets: list[str]) -> None:
    """Write only the values of dvc.yaml, or stop if it is out of date."""
    stages = find_stages(targets)
    _refuse_outdated(MAIN, dvc_yaml(stages, targets))
    write_values(stages)


def check_ablations() -> None:
    """Write only the values of the ablations, or stop if their file is out of date."""
    stages = find_stages(ABLATION_TARGETS)
    _refuse_outdated(ABLATIONS, ablations_yaml(stages))
    write_ablation_values(stages)


def _refuse_outdated(pipeline: Pipeline, text: str) -> None:
    if not pipeline.file.is_file() or pipeline.file.read_text() != text:
        sys.exit(f"persistworld: error: {pipeline.file}: the rules now give other stages; run `make dvc`, then the same again")


def write_values(stages: list[Stage]) -> None:
    MAIN.values.parent.mkdir(exist_ok=True)
    MAIN.values.write_text(parameter_values(stages))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="refuse if dvc.yaml is out of date, else write only the values")
    parser.add_argument("--ablations", action="store_true", help="check the ablations' pipeline")
    parser.add_argument("targets", nargs="*", default=["all"], help="of Snakemake (default: all)")
    args = parser.parse_args()
    if args.check:
        check_ablations() if args.ablations else check(args.targets)
    else:
        write(args.targets)
        write_ablations()


if __name__ == "__main__":
    main()

"""`make dvc`: writes dvc.yaml, DVC's stages, from the rules, and results/parameters.json, the values that its stages compare.

One stage per rule and value of its wildcards, such as a model; the shards of one rule are one stage. A stage's command has Snakemake run
that rule of the main Snakefile and nothing upstream. `TARGETS` are Snakemake's (default: all); what they need becomes a stage.

    python workflow/dvc_yaml.py [TARGETS]           write both files
    python workflow/dvc_yaml.py --check [TARGETS]   the stage `parameters`: refuse if dvc.yaml is out of date, write the values alone
"""

import argparse
import contextlib
import io
import json
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

DVC_YAML = Path("dvc.yaml")
VALUES = Path("results/parameters.json")  # stage -> section -> value, as the rules' `params:` have them
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


@dataclass
class Stage:
    """Jobs of one rule that differ in `PARTS` alone."""

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
    check = {"cmd": CHECK + " ".join(targets), "deps": DEFINITION, "outs": [str(VALUES)]}
    content = {"params": ["params.yaml"], "stages": {"parameters": check} | {stage.name: _entry(stage, outputs) for stage in stages}}
    if plots := [plot for path, plot in PLOTS.items() if path in outputs]:
        content["plots"] = plots
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=120)


def _entry(stage: Stage, outputs: set[str]) -> dict[str, Any]:
    deps = {str(folder) if str(folder := Path(path).parent) in outputs else path for path in stage.inputs}
    wanted = " ".join(str(job.output[0]) for job in stage.jobs)
    entry = {
        "cmd": f"snakemake --quiet host progress --cores all --allowed-rules {stage.rule} -- {wanted}",
        "deps": sorted(deps),
        "params": [{str(VALUES): sorted(f"{stage.name}.{name}" for name in stage.parameters)}],
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
    stages = yaml.safe_load(DVC_YAML.read_text())["stages"]
    return stages["parameters"]["cmd"].removeprefix(CHECK).split()


def write(targets: list[str]) -> None:
    """Write dvc.yaml and the values that it compares."""
    stages = find_stages(targets)
    DVC_YAML.write_text(dvc_yaml(stages, targets))
    write_values(stages)


def check(targets: list[str]) -> None:
    """Write the values alone, or stop if dvc.yaml is out of date."""
    stages = find_stages(targets)
    if DVC_YAML.read_text() != dvc_yaml(stages, targets):
        sys.exit("persistworld: error: dvc.yaml: the rules now give other stages; run `make dvc`, then the same again")
    write_values(stages)


def write_values(stages: list[Stage]) -> None:
    VALUES.parent.mkdir(exist_ok=True)
    VALUES.write_text(parameter_values(stages))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="refuse if dvc.yaml is out of date; write the values alone")
    parser.add_argument("targets", nargs="*", default=["all"], help="of Snakemake (default: all)")
    args = parser.parse_args()
    (check if args.check else write)(args.targets)


if __name__ == "__main__":
    main()

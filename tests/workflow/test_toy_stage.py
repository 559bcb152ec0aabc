"""A new stage is its module, its rule and its parameters, and nothing else: both engines run it, see its changes and restore it."""

import json

from engines import change, copy_of_repository, dvc, dvc_status, run

MODULE = '''"""Count the base checkpoint's weights, times a factor."""

import argparse

from safetensors import safe_open

from persistworld.config.params import Params
from persistworld.runtime.files import write_json
from persistworld.runtime.workspace import BASE, DATA

OPTIONS = {"--unit": {"default": "weights", "help": "(default: %(default)s)"}}


def main(params: Params, args: argparse.Namespace) -> None:
    with safe_open(BASE / "world_model.safetensors", "pt") as file:
        count = len(list(file.keys()))
    write_json(DATA / "toy.json", {args.unit: count * params.toy.factor})
'''
RULE = """rule toy:
    input:
        base="checkpoints/base",
        code=code("toy"),
    output:
        "data/toy.json",
    log:
        "logs/toy.log",
    params:
        **sections("toy"),
    shell:
        "persistworld toy --unit tensors 2>&1 | tee {log}"


WANTED.append(rules.toy.output)
"""
SECTION = """@dataclass(frozen=True)
class ToyConfig:
    factor: int = 2


@dataclass(frozen=True)
class RunParams:
"""


def test_a_stage_with_parameters(tmp_path):
    folder = copy_of_repository(tmp_path)
    (folder / "src/persistworld/stages/toy.py").write_text(MODULE)
    (folder / "workflow/rules/toy.smk").write_text(RULE)
    parameters = folder / "src/persistworld/config/run.py"
    change(parameters, "@dataclass(frozen=True)\nclass RunParams:\n", SECTION)
    change(parameters, "    paper: PaperConfig", "    toy: ToyConfig = field(default_factory=ToyConfig)\n    paper: PaperConfig")
    result, log, log_of_base = folder / "data/toy.json", folder / "logs/toy.log", folder / "logs/base_checkpoint.log"

    # Snakemake runs it, and what it needs. `make record` writes DVC's stages again and records what is there.
    run(folder, "-m", "snakemake", "--cores", "1", "data/toy.json")
    count = json.loads(result.read_text())["tensors"]
    assert count > 0 and log_of_base.exists()
    run(folder, "workflow/record.py")
    before = log_of_base.stat().st_mtime_ns

    # A parameter: DVC runs it alone.
    usual = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(f"{usual}\ntoy:\n  factor: 6\n")
    dvc(folder, "repro", "--quiet", "toy")
    assert json.loads(result.read_text()) == {"tensors": 3 * count}

    # Back again: DVC restores the first result without running anything.
    ran = log.stat().st_mtime_ns
    (folder / "params.yaml").write_text(usual)
    dvc(folder, "repro", "--quiet", "toy")
    assert json.loads(result.read_text()) == {"tensors": count} and log.stat().st_mtime_ns == ran

    # Its code: both engines want it, and it alone.
    change(folder / "src/persistworld/stages/toy.py", "count *", "1 + count *")
    assert list(dvc_status(folder, "toy", "base_checkpoint")) == ["toy"]
    plan = run(folder, "-m", "snakemake", "--dry-run", "--rerun-triggers", "mtime", "--", "data/toy.json")
    assert "rule toy:" in plan and "rule base_checkpoint:" not in plan
    assert log_of_base.stat().st_mtime_ns == before

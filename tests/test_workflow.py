"""Snakemake and DVC see one and the same workflow, and see every change.

The engines run on a copy of the repository whose outputs are placeholders: which jobs they want is what is tested here.
tests/test_workflow_run.py runs the stages themselves.
"""

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import pytest
import yaml

from persistworld.config.params import Params, load_params

ROOT = Path(__file__).parents[1]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CHECK = DVC.pop("parameters")  # reads params.yaml and makes nothing, so Snakemake has no rule for it
# DVC's stages that share a rule, and the rule that cannot bear its stage's name, which is a function in Snakefiles.
RULES = {"baseline_scores": "scores", "report": "report_page"}
# Of the presets, tabletop_base.yaml, tabletop_base_on.yaml and tabletop_base_gpu.yaml are for `persistworld base-training` alone.
PRESETS = sorted({ROOT / "params.yaml", *ROOT.glob("presets/*.yaml")} - set(ROOT.glob("presets/tabletop_base*.yaml")))
EVALUATION = {"masks", "rollouts", "scores", "tables", "figures", "report_page"}


def snakemake(*args: str, cwd: Path, snakefile: str = "workflow/Snakefile") -> str:
    profile = ["--workflow-profile", "workflow/profiles/default", "--cores", "1"]
    return _run(cwd, "snakemake", "-s", snakefile, *profile, *args)


def dvc(*args: str, cwd: Path) -> str:
    return _run(cwd, "dvc", *args)


def _run(cwd: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def planned(output: str) -> set[str]:
    """The rules of the jobs that a dry run lists, targets left out."""
    return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all", "stage", "rollouts_base"}


def stages() -> dict[str, dict]:
    """DVC's stages by name, those of a `foreach` one by one."""
    found = {}
    for name, stage in DVC.items():
        for item in stage.get("foreach", [None]):
            body = json.loads(json.dumps(stage.get("do", stage)).replace("${item}", str(item)))
            found[f"{name}@{item}" if item else name] = body
    return found


def rule_of(name: str) -> str:
    """The Snakemake rule of one of DVC's stages."""
    stage = name.split("@")[0]
    return RULES.get(stage, stage)


def outs(stage: dict) -> list[str]:
    made = [*stage["outs"], *stage.get("metrics", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in made]


def sections(stage: dict) -> set[str]:
    return {param for param in stage["params"] if isinstance(param, str)}


def covering(path: str, entries: list[str]) -> list[str]:
    return [entry for entry in entries if path == entry or path.startswith(entry + "/")]


def copy_of_repository(folder: Path) -> Path:
    """The files that git has or would take, without results; a repository of its own, for DVC."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and not name.startswith("results/") and name != "dvc.lock" and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copy2(ROOT / "presets/tabletop.yaml", folder / "params.yaml")  # params.yaml is the user's
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return copy_of_repository(tmp_path_factory.mktemp("repository"))


def outputs(repository: Path) -> list[dict[str, str]]:
    """Snakemake's list of outputs, for the whole workflow: [{output_file, rule, input-file(s), ...}]."""
    return list(csv.DictReader(snakemake("--detailed-summary", cwd=repository).splitlines(), delimiter="\t"))


@pytest.fixture(scope="module")
def finished(repository):
    """The repository with a placeholder for each output, recorded by both engines."""
    for row in outputs(repository):
        path = repository / row["output_file"]
        if not path.suffix:
            path = path / "placeholder"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}" if path.suffix == ".json" else row["output_file"])
    snakemake("--touch", "--forceall", cwd=repository)
    record(repository)
    return repository


def record(repository: Path) -> str:
    """What `make record` has DVC do; returns what it says."""
    done = subprocess.run([sys.executable, "workflow/record.py"], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_what_was_not_made_is_not_recorded_and_said(finished):
    """As a shorter evaluation.models leaves it."""
    scores, away = finished / "results/scores/teacher_forced.parquet", finished / "away"
    scores.rename(away)
    assert {*record(finished).rpartition(": ")[2].strip().split(", ")} == {"scores@teacher_forced", "tables", "figures", "report"}
    away.rename(scores)
    assert record(finished) == "" and "up to date" in dvc("status", cwd=finished)


@pytest.fixture
def changeable(finished):
    """The finished repository, whose params.yaml and code are put back after the test."""
    before = {path: path.read_bytes() for path in [finished / "params.yaml", *finished.glob("src/**/*.py")]}
    yield finished
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def test_lint_is_clean():
    snakemake("--lint", cwd=ROOT)


def test_both_engines_have_the_same_outputs_and_inputs(finished):
    seen, summary = set(), outputs(finished)
    for name, stage in stages().items():
        rule = rule_of(name)
        rows = [row for row in summary if covering(row["output_file"], outs(stage))]
        assert {row["rule"] for row in rows} == {rule}, name
        made = [row["output_file"] for row in rows]
        assert {out for path in made for out in covering(path, outs(stage))} == set(outs(stage)), name
        used = {path for row in rows for path in row["input-file(s)"].split(",")}
        assert not [path for path in used if not covering(path, stage["deps"])], f"{name}: inputs that DVC lacks"
        unused = set(stage["deps"]) - {dep for path in used for dep in covering(path, stage["deps"])}
        assert not unused, f"{name}: deps that Snakemake lacks"
        seen.update(made)
    assert seen == {row["output_file"] for row in summary}


def test_both_engines_have_the_same_parameters(repository):
    listing = repository / "parameters.smk"
    listing.write_text(
        'include: "workflow/Snakefile"\n'
        'import json; print(json.dumps({rule.name: list(rule.params.keys()) for rule in workflow.rules}))'
    )
    rules = json.loads(snakemake("--list", cwd=repository, snakefile="parameters.smk").splitlines()[0])
    listing.unlink()
    for name, stage in stages().items():
        rule = rule_of(name)
        assert sections(stage) == set(rules[rule]), name
        [defaults] = [param["workflow/defaults.yaml"] for param in stage["params"] if isinstance(param, dict)]
        assert set(defaults) == sections(stage), name


def test_defaults_are_current():
    written = yaml.safe_load((ROOT / "workflow/defaults.yaml").read_text())
    current = json.loads(json.dumps(asdict(Params())))
    assert written == current, "persistworld defaults > workflow/defaults.yaml"


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.name)
def test_presets_have_every_section_that_dvc_compares(path):
    params = yaml.safe_load(path.read_text())
    for name in set().union(*map(sections, stages().values())):
        assert has(params, name.split(".")), f"{path.name}: DVC compares {name}: write it down, if only as {{}}"


def has(params: dict, keys: list[str]) -> bool:
    return keys[0] in params and (len(keys) == 1 or has(params[keys[0]], keys[1:]))


def test_the_schema_asks_for_what_dvc_compares():
    schema = yaml.safe_load((ROOT / "workflow/schemas/params.schema.yaml").read_text())
    for name in set().union(*map(sections, stages().values())):
        section, _, key = name.partition(".")
        assert section in schema["required"] and (not key or key in schema["properties"][section]["required"]), name


def test_the_models_of_dvc_are_those_of_the_parameters():
    models = yaml.safe_load((ROOT / "presets/tabletop.yaml").read_text())["evaluation"].get("models", Params().evaluation.models)
    assert set(models) == {*DVC["scores"]["foreach"], *DVC["baseline_scores"]["foreach"]}


@pytest.mark.parametrize("name", [name for name in DVC if name not in ("baseline_scores", "report")])
def test_a_stage_declares_the_parameters_that_it_reads(name):
    module = ast.parse((ROOT / f"src/persistworld/stages/{name}.py").read_text())
    read = {
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
    }
    declared = {section.split(".")[0] for section in sections(DVC[name].get("do", DVC[name]))}
    assert read & {field.name for field in fields(Params)} <= declared


@pytest.mark.parametrize("name", [name for name in stages() if "@" not in name or name.endswith("@base")])
def test_a_stage_file_builds_its_stage_and_nothing_upstream(finished, name):
    command = stages()[name]["cmd"].split()
    snakefile, target = command[command.index("-s") + 1], command[-1]
    rule = rule_of(name)
    # `stage` is the target that is built when none is named, so that none is not "nothing to be done".
    wanted = [] if target == "stage" else [target]
    assert planned(snakemake("--dry-run", "--forceall", *wanted, cwd=finished, snakefile=snakefile)) == {rule}


def changed_stages(repository: Path) -> set[str]:
    return {rule_of(name) for name in json.loads(dvc("status", "--json", cwd=repository)) if DVC.get(name.split("@")[0])}


def test_nothing_to_do_when_finished(finished):
    assert "Nothing to be done" in snakemake("--dry-run", cwd=finished)
    assert changed_stages(finished) == set()


def test_dvc_refuses_a_section_that_does_not_exist(changeable):
    """No stage compares it, but the one that reads the whole file does; it makes nothing, and once it ran there is nothing to do."""
    assert "outs" not in CHECK
    reproduce = [sys.executable, "-m", "dvc", "repro", "--single-item", "parameters"]
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    change(changeable / "params.yaml", "evaluation:\n", "# a remark\nevaluation:\n")
    subprocess.run(reproduce, cwd=changeable, env=os.environ | path, capture_output=True, check=True)
    assert json.loads(dvc("status", "--json", cwd=changeable)) == {}
    with (changeable / "params.yaml").open("a") as file:
        file.write("evalution:\n  protocol: raw\n")
    done = subprocess.run(reproduce, cwd=changeable, env=os.environ | path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "evalution: no such key; did you mean 'evaluation'?" in done.stdout + done.stderr


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    os.utime(path)


def test_an_evaluation_parameter_concerns_evaluation_and_paper_alone(changeable):
    change(changeable / "params.yaml", "evaluation:\n", "evaluation:\n  protocol: raw\n")
    assert planned(snakemake("--dry-run", cwd=changeable)) == EVALUATION
    assert changed_stages(changeable) == EVALUATION


def test_a_post_training_parameter_concerns_it_and_what_follows(changeable):
    change(changeable / "params.yaml", "post_training:\n", "post_training:\n  beta: 0.5\n")
    dry = snakemake("--dry-run", cwd=changeable)
    assert planned(dry) == {"post_training", "teacher_forcing", *EVALUATION} - {"masks"}
    assert not [made for made in re.findall(r"output: (.*)", dry) if made.startswith("data/rollouts/base")]
    # What DVC compares directly: the stages that read the section. The rest follows from their outputs.
    assert changed_stages(changeable) == {"post_training", "teacher_forcing", "report_page"}


def test_an_edited_module_concerns_the_stages_that_import_it(changeable):
    change(changeable / "src/persistworld/paper/strips.py", '"""', '"""\n')
    assert planned(snakemake("--dry-run", cwd=changeable)) == {"tables", "figures", "report_page"}
    assert changed_stages(changeable) == {"tables", "figures", "report_page"}


def test_parameters_come_from_one_file(repository):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--config", "seed=3"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode != 0
    assert "persistworld: error: --config and --configfile" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  history_index: [0, 0, -8, -6, -4, -2]", "", "rollout.history_index is missing"),
        ("preset: tabletop", "", "preset is missing"),
        ("  path: data/episodes", "  path: elsewhere", "episodes.path = elsewhere: the workflow simulates into data/episodes"),
    ],
)
def test_what_the_engines_need_of_the_parameters_is_one_line(changeable, old, new, said):
    change(changeable / "params.yaml", old, new)
    done = subprocess.run([sys.executable, "-m", "snakemake", "-n"], cwd=changeable, capture_output=True, text=True)
    assert done.returncode != 0 and f"persistworld: error: {said}" in done.stderr.replace("params.yaml: ", "").splitlines()[-1]


def test_the_sample_of_droid_is_one_command_from_an_empty_clone(tmp_path):
    clone = copy_of_repository(tmp_path)
    shutil.copy(ROOT / "presets/droid_sample.yaml", clone / "params.yaml")
    rules = {rule_of(name) for name in stages()}
    assert planned(snakemake("--dry-run", cwd=clone)) == rules | {"base_training"}


def commands(dry_run: str) -> set[str]:
    """The commands of a dry run, without where their output goes."""
    return set(re.findall(r"^Shell command: (.*) 2>&1", dry_run, re.MULTILINE))


def test_on_the_tabletop_a_job_is_one_process(repository):
    found = commands(snakemake("--dry-run", "--printshellcmds", "--forceall", cwd=repository))
    assert "persistworld post_training --run post_trained --threads 1" in found
    assert all(command.startswith("persistworld ") for command in found)


def test_post_training_and_its_control_have_half_of_the_cores_each(repository):
    found = commands(snakemake("--dry-run", "--printshellcmds", "--forceall", "--cores", "8", cwd=repository))
    assert {"persistworld post_training --run post_trained --threads 4", "persistworld teacher_forcing --threads 4"} <= found
    assert "persistworld episodes --threads 8" in found


@pytest.fixture(scope="module")
def droid(tmp_path_factory):
    """An empty clone with the preset droid, its 512 shards as one."""
    clone = copy_of_repository(tmp_path_factory.mktemp("droid"))
    preset = (clone / "presets/droid.yaml").read_text()
    (clone / "params.yaml").write_text(preset.replace("shards: 512", "shards: 1"))
    return clone


def profile(name: str) -> dict:
    return yaml.safe_load((ROOT / f"workflow/profiles/{name}/config.yaml").read_text())


def test_at_the_papers_scale_a_job_is_a_process_for_each_of_its_gpus(droid):
    dry = _run(droid, "snakemake", "--dry-run", "--printshellcmds", "--profile", "workflow/profiles/slurm")
    # (A dry run thinks that it has one core: threads are 1.)
    found, launch = commands(dry), "torchrun --standalone --nproc-per-node {} -m -- persistworld.cli {}"
    assert planned(dry) == {rule_of(name) for name in stages()}
    assert launch.format(8, "post_training --run post_trained --threads 1") in found
    assert launch.format(8, "teacher_forcing --threads 1") in found
    assert launch.format(8, "rollouts --model base --seed 0 --threads 1") in found
    assert launch.format(8, "masks --threads 1") in found
    assert launch.format(1, "scores --model base --threads 1") in found
    assert "persistworld tables --threads 1" in found
    # Eight processes share the preset's groups and its control's batch evenly; torchrun leaves the stage its options.
    params = load_params(droid / "params.yaml")
    assert params.post_training.groups % 8 == params.control.batch % 8 == 0
    _, *options = launch.format(2, "post_training --run post_trained --threads 1").split()
    assert _run(droid, "torch.distributed.run", *options, "--help").count("usage: persistworld post_training") == 2


def test_a_cluster_gives_every_rule_the_memory_of_the_papers_scale():
    """A rule's own numbers are the tabletop's, and win over default-resources: the profiles name every rule that runs a command."""
    texts = [path.read_text() for path in ROOT.glob("workflow/rules/*.smk")]
    rules = {name for text in texts for name in re.findall(r"^rule (\w+):", text, re.MULTILINE)}
    slurm, kubernetes = profile("slurm"), profile("kubernetes")
    assert {rule for rule, asked in slurm["set-resources"].items() if asked["mem_mb"] >= 8000} == rules
    assert slurm["set-threads"] == kubernetes["set-threads"] and set(slurm["set-threads"]) <= rules
    on_disk = [asked.pop("disk_mb", None) for asked in kubernetes["set-resources"].values()]
    assert slurm["set-resources"] == kubernetes["set-resources"] and any(on_disk)


def bucket_profile(folder: Path) -> list[str]:
    """The options for the profile for Kubernetes without Kubernetes: another executor, and a folder as the bucket."""
    settings = profile("kubernetes") | {"executor": "slurm", "default-storage-provider": "fs"}
    del settings["envvars"]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return ["--profile", str(folder), "--default-storage-prefix", "bucket"]


def test_without_a_shared_disk_every_rule_is_a_job_elsewhere_and_its_files_are_in_the_bucket(droid, tmp_path):
    dry = _run(droid, "snakemake", "--dry-run", *bucket_profile(tmp_path))
    assert planned(dry) == {rule_of(name) for name in stages()}
    # One input that is not in the bucket, and Snakemake would run the job on the machine that started the workflow.
    files = [path for found in re.findall(r"^    (?:input|output): (.*)", dry, re.MULTILINE) for path in found.split(", ")]
    assert not [path for path in files if not path.startswith("bucket/")]


@pytest.mark.skipif(shutil.which("rsync") is None, reason="Snakemake's storage in a folder needs rsync")
def test_a_stage_finds_and_leaves_its_files_in_the_bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    clone = copy_of_repository(tmp_path / "clone")
    (tmp_path / "profile").mkdir()
    command = ["snakemake", *bucket_profile(tmp_path / "profile"), "--executor", "local", "--cores", "1", "--until", "base_checkpoint"]
    settings = tmp_path / "profile/config.yaml"
    settings.write_text(settings.read_text().replace("shared-fs-usage: none\n", ""))  # here all is on one disk
    _run(clone, *command)
    assert (clone / "bucket/checkpoints/base/world_model.safetensors").is_file()
    assert not (clone / "checkpoints").exists()

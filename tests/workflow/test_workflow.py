"""Snakemake and DVC see the same workflow, and see every change.

The engines run on a copy of the repository whose outputs are placeholders: what is tested is which jobs they want.
tests/test_workflow_run.py runs the stages themselves.
"""

import ast
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import dvc_yaml
import pytest
import record
import yaml
from engines import ROOT, all_rules, change, copy_of_repository, dvc_status, jobs, planned, run, snakemake, stages
from refusals import assert_names

from persistworld.config.data import MasksConfig
from persistworld.config.params import Params, load_params
from persistworld.runtime.provenance import code_files

PAPER = {"tables", "figures", "preference", "report_page"}
EVALUATION = {"rollouts", "scores", *PAPER}
LAUNCH = "torchrun --standalone --nproc-per-node {} -m -- persistworld.cli {}"


@pytest.fixture
def changeable(finished: Path) -> Iterator[Path]:
    """The finished repository, whose parameters and code are put back after the test."""
    before = {path: path.read_bytes() for path in [finished / "params.yaml", finished / "dvc.yaml", *finished.glob("src/**/*.py")]}
    yield finished
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
    with contextlib.chdir(finished):
        dvc_yaml.write(["all"])


def changed_stages(folder: Path) -> set[str]:
    """The rules of the stages that DVC wants, once its stage `parameters` has run."""
    with contextlib.chdir(folder):
        dvc_yaml.write_values(dvc_yaml.find_stages(["all"]))
    return {name.split("-")[0] for name in dvc_status(folder)} - {"parameters"}


def test_dvc_yaml_is_current():
    with contextlib.chdir(ROOT):
        targets = dvc_yaml.written_targets()
        assert Path("dvc.yaml").read_text() == dvc_yaml.dvc_yaml(dvc_yaml.find_stages(targets), targets), "run: make dvc"
        ablations = dvc_yaml.find_stages(dvc_yaml.ABLATION_TARGETS)
        assert dvc_yaml.ABLATIONS.file.read_text() == dvc_yaml.ablations_yaml(ablations), "run: make dvc"


def test_the_formatter_and_the_linter_are_content():
    subprocess.run([Path(sys.executable).parent / "snakefmt", "--check", "workflow"], cwd=ROOT, check=True, capture_output=True)
    snakemake(ROOT, "--lint")


def test_nothing_to_do_when_finished(finished):
    assert planned(finished) == set()
    assert changed_stages(finished) == set()


@pytest.mark.parametrize("name", ["base_checkpoint", "latents", "rollouts-base", "baseline_scores", "report_page"])
def test_dvcs_command_runs_its_rule_and_nothing_upstream(finished, name):
    """`--allowed-rules` is not in Snakemake's documentation: this is what DVC's stages need of it."""
    options, _, targets = stages(finished)[name]["cmd"].partition(" -- ")
    rule = options.split()[-1]
    wanted = jobs(finished, *targets.split(), allowed_rules={rule}, forceall=True, needed=True)
    assert {job.rule.name for job in wanted} == {rule} == {name.split("-")[0]}
    made = {output for job in wanted for output in job.output}
    assert all(any(path == out or path.startswith(f"{out}/") for path in made) for out in stages(finished)[name]["outs"])


def test_an_evaluation_parameter_concerns_evaluation_and_paper_alone(changeable):
    change(changeable / "params.yaml", "evaluation:\n", "evaluation:\n  protocol: raw\n")
    assert planned(changeable) == changed_stages(changeable) == PAPER
    change(changeable / "params.yaml", "  protocol: raw\n", "  episodes: 3\n")
    assert planned(changeable) == changed_stages(changeable) == {"truth", "masks", "baseline_scores", *EVALUATION}


def test_a_post_training_parameter_concerns_it_and_what_follows(changeable):
    change(changeable / "params.yaml", "post_training:\n", "post_training:\n  beta: 0.5\n")
    wanted = jobs(changeable, needed=True)
    assert {job.rule.name for job in wanted} == {"post_training", "teacher_forcing", *EVALUATION}
    assert not [path for job in wanted for path in job.output if path.startswith("data/rollouts/base")]
    # What DVC compares directly: the stages that read the section. The rest follows from their outputs.
    assert changed_stages(changeable) == {"post_training", "teacher_forcing", "report_page"}


def test_compute_concerns_nothing(changeable):
    change(changeable / "params.yaml", "  gpus: 0", "  threads: 3\n  gpus: 0")
    assert planned(changeable) == set()
    assert changed_stages(changeable) == set()


def test_a_default_counts_as_if_it_were_written(changeable, monkeypatch):
    """Both engines compare values with defaults filled in: a missing section is no change, another default is one."""
    text = (changeable / "params.yaml").read_text()
    (changeable / "params.yaml").write_text(text.replace("masks:\n  source: simulator\n", ""))
    for source, stale in (("simulator", set()), ("none", {"masks", "scores", "baseline_scores", "figures", "report_page"})):
        monkeypatch.setattr(MasksConfig.__init__, "__defaults__", (source, *MasksConfig.__init__.__defaults__[1:]))
        assert planned(changeable) == stale | ({"tables", "preference"} if stale else set())
        assert changed_stages(changeable) == stale


def test_an_edited_module_concerns_the_stages_that_import_it(changeable):
    change(changeable / "src/persistworld/paper/strips.py", '"""', '"""\n')
    assert planned(changeable) == {"figures", "report_page"}  # the page shows the figures
    assert changed_stages(changeable) == {"figures"}


def test_what_was_not_made_is_not_recorded_and_said(finished, capsys):
    """As a shorter evaluation.models leaves it."""
    scores, away = finished / "results/scores/teacher_forced.parquet", finished / "away"
    scores.rename(away)
    with contextlib.chdir(finished):
        record.main()
    away.rename(scores)
    left_out = {*capsys.readouterr().err.rpartition(": ")[2].strip().split(", ")}
    ablations = stages(finished / "workflow/ablations").keys()  # other tests of this copy may have made some of their files
    assert left_out - ablations == {"scores-teacher_forced", "tables", "figures", "report_page"}
    assert changed_stages(finished) == set()


def test_a_table_from_git_is_not_recorded_without_its_runs(finished):
    """Otherwise a fresh clone's `make run` would call tables current that it never computed."""
    table = stages(finished / "workflow/ablations")["beta"]
    files = [finished / next(iter(out)) for out in (*table["outs"], *table["metrics"])]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("as in git")
    with contextlib.chdir(finished):
        record.main()
    assert not (finished / "workflow/ablations/dvc.lock").exists()
    for file in files:
        file.unlink()
    assert changed_stages(finished) == set()


def test_other_models_and_variants_reach_dvc(changeable):
    default = "[copy_frame, base, teacher_forced, post_trained, autoencoder]"
    change(changeable / "params.yaml", default, "[base, post_trained, latent_credit]")
    with contextlib.chdir(changeable):
        found = {stage.name: stage for stage in dvc_yaml.find_stages(["results/scores/latent_credit.parquet", "tables"])}
        # The stage `parameters` refuses stages that are out of date.
        with pytest.raises(SystemExit):
            dvc_yaml.check(["all"])
    assert {"post_training-latent_credit", "rollouts-latent_credit", "scores-latent_credit", "tables"} <= found.keys()
    assert not {"teacher_forcing", "scores-copy_frame"} & found.keys()
    assert found["post_training-latent_credit"].parameters["post_training"]["reward"]["credit"] == "latent"
    assert found["tables"].inputs[:3] == [f"results/scores/{model}.parquet" for model in ("base", "latent_credit", "post_trained")]


def test_a_control_that_the_default_run_leaves_out_is_compared_on_request(finished):
    assert "own_history" not in {job.rule.name for job in jobs(finished, forceall=True)}
    with contextlib.chdir(finished):
        found = {stage.name: stage for stage in dvc_yaml.find_stages(["results/metrics/own_history.json"])}
    assert {"own_history", "rollouts-own_history", "scores-own_history"} <= found.keys()
    compared = ("base", "own_history", "post_trained", "teacher_forced")
    assert found["comparison-own_history"].inputs[:4] == [f"results/scores/{model}.parquet" for model in compared]


def test_policies_are_made_on_request_and_reach_dvc(finished):
    assert not {job.rule.name for job in jobs(finished, forceall=True)} & {"policies_real", "policies_rollouts", "policies_results"}
    with contextlib.chdir(finished):
        found = {stage.name: stage for stage in dvc_yaml.find_stages(["policies"])}
    assert {"policies_real", "policies_rollouts-base", "policies_rollouts-post_trained", "policies_results"} <= found.keys()
    assert found["policies_results"].metrics == ["results/metrics/policies.json"]
    assert {"checkpoints/post_trained", "data/policies/simulator"} <= {*found["policies_rollouts-post_trained"].inputs}
    assert not {"scores-base", "report_page"} & found.keys()


def test_what_stands_beside_table_1_is_made_on_request_and_reaches_dvc(finished):
    assert not {job.rule.name for job in jobs(finished, forceall=True)} & {"pose_reader", "fidelity"}
    with contextlib.chdir(finished):
        found = {stage.name: stage for stage in dvc_yaml.find_stages(["fidelity"])}
    assert found["fidelity"].metrics == ["results/metrics/fidelity.json"]
    assert {"checkpoints/pose_reader", "data/rollouts/post_trained/seed-3.safetensors"} <= {*found["fidelity"].inputs}
    assert not {"scores-base", "report_page"} & found.keys()


def test_peoples_labels_take_the_place_of_rollouts(changeable):
    (changeable / "labels.csv").write_text("")
    change(changeable / "params.yaml", "  labels: null", "  labels: labels.csv")
    assert {job.rule.name for job in jobs(changeable, "policies")} <= {"policies", "policies_results"}


def test_a_rule_names_the_parameters_that_its_stage_reads(finished):
    """`params.SECTION` anywhere in the modules that the stage imports."""
    sections = {field.name for field in fields(Params)} - {"compute"}
    for rule in all_rules(finished):
        if stage := re.search(r"(?<=persistworld )\w+", rule.shellcmd or ""):
            sources = [file.read_text() for file in code_files(f"stages.{stage[0]}") if file.suffix == ".py"]
            read = {
                node.attr
                for source in sources
                for node in ast.walk(ast.parse(source))
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "params"
            }
            named = {name.split(".")[0] for name in rule.params.keys()}  # noqa: SIM118 (Snakemake's list with names)
            # A variant's label is all that a page of its own prints of it.
            assert read & sections <= named | ({"variants"} if "labels" in named else set()), rule.name


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  path: data/episodes", "  path: elsewhere", ("episodes.path = elsewhere", "data/episodes")),
        ("evaluation:\n", "evalution: {}\nevaluation:\n", ("evalution", "'evaluation'")),
    ],
)
def test_what_the_workflow_refuses_is_one_line(changeable, old, new, named):
    change(changeable / "params.yaml", old, new)
    with pytest.raises(SystemExit) as stop:
        planned(changeable)
    assert_names(stop.value.code, *named)


def test_parameters_come_from_one_file(finished):
    with pytest.raises(SystemExit, match="--config and --configfile"):
        jobs(finished, config={"seed": 3})


def shell_commands(found) -> set[str]:
    """The commands of jobs, without where their output goes."""
    return {job.shellcmd.partition(" 2>&1")[0] for job in found}


def test_on_the_tabletop_a_job_is_one_process(finished):
    found = shell_commands(jobs(finished))
    assert "persistworld post_training --run post_trained --threads 1" in found
    assert all(command.startswith("persistworld ") for command in found)


def test_post_training_and_its_control_have_half_of_the_cores_each(finished):
    found = shell_commands(jobs(finished, cores=8))
    assert {"persistworld post_training --run post_trained --threads 4", "persistworld teacher_forcing --threads 4"} <= found
    assert "persistworld episodes --threads 8" in found


def test_the_sample_of_droid_is_one_command_from_an_empty_clone(changeable):
    shutil.copy(ROOT / "presets/droid_sample.yaml", changeable / "params.yaml")
    rules = {job.rule.name for job in jobs(changeable)}
    on_request = {"comparison", "report", "ablations", "policies", "speed", "fidelity"}
    assert rules == {path.stem for path in ROOT.glob("workflow/rules/*.smk")} - on_request | {"report_page", "baseline_scores"}


@pytest.fixture(scope="module")
def droid(tmp_path_factory):
    """An empty clone with the preset droid, its 512 shards as one."""
    clone = copy_of_repository(tmp_path_factory.mktemp("droid"))
    preset = (clone / "presets/droid.yaml").read_text()
    (clone / "params.yaml").write_text(preset.replace("shards: 512", "shards: 1"))
    return clone


def profile(name: str) -> dict:
    return yaml.safe_load((ROOT / f"workflow/profiles/{name}/config.yaml").read_text())


def planned_rules(dry_run: str) -> set[str]:
    return set(re.findall(r"^(?:local)?rule (\w+):", dry_run, re.MULTILINE)) - {"all"}


def test_at_the_papers_scale_a_job_is_a_process_for_each_of_its_gpus(droid):
    dry = snakemake(droid, "--dry-run", "--printshellcmds", "--profile", "workflow/profiles/slurm")
    # (A dry run assumes one core: threads are 1.)
    found = set(re.findall(r"^Shell command: (.*) 2>&1", dry, re.MULTILINE))
    assert planned_rules(dry) == {job.rule.name for job in jobs(droid)}
    assert LAUNCH.format(8, "post_training --run post_trained --threads 1") in found
    assert LAUNCH.format(8, "teacher_forcing --threads 1") in found
    assert LAUNCH.format(8, "rollouts --model base --threads 1") in found
    assert LAUNCH.format(8, "masks --threads 1") in found
    assert LAUNCH.format(1, "scores --model base --threads 1") in found
    assert "persistworld tables --threads 1" in found
    # Eight processes share the preset's groups and its control's batch evenly.
    params = load_params(droid / "params.yaml")
    assert params.post_training.groups % 8 == params.control.batch % 8 == 0


@pytest.mark.slow
def test_torchrun_leaves_a_stage_its_options():
    _, *options = LAUNCH.format(2, "post_training --run post_trained --threads 1").split()
    assert run(ROOT, "-m", "torch.distributed.run", *options, "--help").count("usage: persistworld post_training") == 2


def test_the_profiles_of_both_clusters_ask_for_the_same():
    slurm, kubernetes = profile("slurm"), profile("kubernetes")
    rules = {name for path in ROOT.glob("workflow/rules/*.smk") for name in re.findall(r"^ *rule (\w+):", path.read_text(), re.MULTILINE)}
    assert slurm["set-threads"].keys() | slurm["set-resources"].keys() <= rules
    on_disk = [asked.pop("disk_mb", None) for asked in kubernetes["set-resources"].values()]
    assert slurm["set-resources"] == kubernetes["set-resources"] and any(on_disk)
    assert slurm["set-threads"] == kubernetes["set-threads"]


def bucket_profile(folder: Path) -> list[str]:
    """The options for the profile for Kubernetes without Kubernetes: another executor, and a folder as the bucket."""
    settings = profile("kubernetes") | {"executor": "slurm", "default-storage-provider": "fs"}
    del settings["envvars"]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return ["--profile", str(folder), "--default-storage-prefix", "bucket"]


def test_without_a_shared_disk_every_rule_is_a_job_elsewhere_and_its_files_are_in_the_bucket(droid, tmp_path):
    dry = snakemake(droid, "--dry-run", *bucket_profile(tmp_path))
    assert planned_rules(dry) == {job.rule.name for job in jobs(droid)}
    # One input that is not in the bucket, and Snakemake would run the job on the machine that started the workflow.
    files = [path for found in re.findall(r"^    (?:input|output): (.*)", dry, re.MULTILINE) for path in found.split(", ")]
    assert not [path for path in files if not path.startswith("bucket/")]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("rsync") is None, reason="Snakemake's storage in a folder needs rsync")
def test_a_stage_finds_and_leaves_its_files_in_the_bucket(tmp_path):
    clone = copy_of_repository(tmp_path / "clone")
    (tmp_path / "profile").mkdir()
    options = bucket_profile(tmp_path / "profile")
    settings = tmp_path / "profile/config.yaml"
    settings.write_text(settings.read_text().replace("shared-fs-usage: none\n", ""))  # here all is on one disk
    snakemake(clone, *options, "--executor", "local", "--until", "base_checkpoint")
    assert (clone / "bucket/checkpoints/base/world_model.safetensors").is_file()
    assert not (clone / "checkpoints").exists()

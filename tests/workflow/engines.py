"""Copies of the repository in which both engines run. Starting an engine costs seconds, so they run in this process where they can."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import yaml
from dvc.cli import main as dvc_main
from dvc.repo import Repo
from snakemake.api import SnakemakeApi
from snakemake.cli import main as snakemake_main
from snakemake.jobs import Job
from snakemake.rules import Rule
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

ROOT = Path(__file__).parents[2]


def copy_of_repository(folder: Path) -> Path:
    """The files that git has or would take, without results; a git repository of its own, with the tabletop's parameters."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and not name.startswith("results/") and name != "dvc.lock" and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    shutil.copy2(ROOT / "presets/tabletop.yaml", folder / "params.yaml")  # params.yaml is the user's
    git(folder, "init", "--quiet")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Variables with which commands find this Python's scripts and the folder's own package."""
    return {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(folder / "src")}


def run(folder: Path, *command: str) -> str:
    """A script or module of this Python, in a process of its own; returns what it prints."""
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, env=os.environ | environment(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def snakemake(folder: Path, *args: str) -> str:
    """Snakemake's command line, in this process (so with this process's package); returns what it prints."""
    printed = io.StringIO()
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, environment(folder)),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        pytest.raises(SystemExit) as stop,
    ):
        snakemake_main(["--cores", "1", *args])
    assert not stop.value.code, printed.getvalue()
    return printed.getvalue()


def dvc(folder: Path, *args: str) -> None:
    """A command of DVC, in this process."""
    with contextlib.chdir(folder), mock.patch.dict(os.environ, environment(folder)):
        assert dvc_main(list(args)) == 0, args


def dvc_status(folder: Path, *stages: str) -> dict:
    """What DVC finds changed, of all stages in dvc.yaml or of some: stage -> why."""
    with contextlib.chdir(folder), Repo() as repo:
        return repo.status(targets=list(stages) or ["dvc.yaml"])


def jobs(folder: Path, *targets: str, cores: int = 1, config: dict | None = None, needed: bool = False, **settings) -> list[Job]:
    """The jobs that make `targets` (default: all); with `needed`, only those that Snakemake would run. `settings` are DAGSettings."""
    with contextlib.chdir(folder), SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(ResourceSettings(cores=cores), ConfigSettings(config=config or {}), snakefile=Path("workflow/Snakefile"))
        dag = workflow.dag(DAGSettings(targets=set(targets or ["all"]), **settings))
        with contextlib.redirect_stdout(io.StringIO()):
            dag.printrulegraph()  # builds the DAG
        graph = workflow._workflow.dag
        found = list(graph.needrun_jobs() if needed else graph.jobs)
    return [job for job in found if job.output]


def all_rules(folder: Path) -> list[Rule]:
    """Every rule of the workflow."""
    with contextlib.chdir(folder), SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(ResourceSettings(cores=1), snakefile=Path("workflow/Snakefile"))
        workflow.list_rules()  # reads them
        return list(workflow._workflow.rules)


def planned(folder: Path, *targets: str, **settings) -> set[str]:
    """The rules of the jobs that Snakemake would run."""
    return {job.rule.name for job in jobs(folder, *targets, needed=True, **settings)}


def make_placeholders(folder: Path) -> None:
    """A small file for each output of the default run."""
    for job in jobs(folder):
        for output in job.output:
            path = folder / output if Path(output).suffix else folder / output / "placeholder"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}" if path.suffix == ".json" else output)


def stages(folder: Path) -> dict[str, dict]:
    """The stages in dvc.yaml."""
    return yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def git(folder: Path, *args: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *args], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)

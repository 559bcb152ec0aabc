"""The real workflow, tiny, killed with SIGKILL at random moments: no process of it lives on, the same command resumes it, and its outputs
have the bytes of an undisturbed run's. And its parts: a process ends with its launcher, a stage holds a lock on what it writes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from engines import ROOT, copy_of_repository
from made_up import make_clone
from refusals import assert_names

PATIENCE = 900  # seconds: all is slow on busy cores
KINDS = ("snakemake", "group", "job", "torchrun", "all")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PATH": PATH, "PYTHONPATH": f"{ROOT}/src"}
# All stages from the episodes to the tables; figures and the report, which write whole files at the end, take as long again.
TABLES = ["results/metrics/table_1.json"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A clone in which each stage runs in seconds, those of the paper's scale under torchrun."""
    changes = {"paper": {"scale": "tiny"}, "evaluation": {"models": ["base", "post_trained"], "seeds": [0]}, "latents": {"shards": 1}}
    changes["compute"] = {"gpus": 1}
    clone = make_clone(tmp_path_factory.mktemp("killed"), views=1, changes=changes)
    params = yaml.safe_load((clone / "params.yaml").read_text())
    copy_of_repository(clone)
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    with (clone / "workflow/profiles/default/config.yaml").open("a") as file:
        file.write("set-resources:\n  post_training:\n    gpu: 2\n")  # processes
    return clone


def start(clone: Path, targets: list[str]) -> subprocess.Popen:
    command = [sys.executable, "workflow/run.py", *targets]
    with (clone / "run.log").open("ab") as log:
        return subprocess.Popen(command, cwd=clone, env=ENVIRONMENT, start_new_session=True, stdout=log, stderr=log)


def finish(clone: Path, targets: list[str]) -> float:
    began = time.monotonic()
    assert start(clone, targets).wait(PATIENCE) == 0, (clone / "run.log").read_text()[-5000:]
    return time.monotonic() - began


def contents(clone: Path) -> dict[str, bytes]:
    """All that a run leaves, but how long it took."""
    files = [file for name in ("data", "checkpoints", "results") for file in (clone / name).rglob("*") if file.is_file()]
    found = {str(file.relative_to(clone)): file.read_bytes() for file in files if file.parent.name != "benchmarks"}
    found = {name: content for name, content in found.items() if not name.endswith(".snakemake_timestamp")}
    for name in found:
        if name.startswith("results/training/"):
            table = pd.read_csv(clone / name, dtype=str)
            found[name] = table[[c for c in table if not c.startswith("seconds_")]].to_csv().encode()
    return found


def chosen(run: subprocess.Popen, kind: str) -> list[psutil.Process]:
    """The processes of a run that a kill of this kind hits; none when it has none now."""
    below = psutil.Process(run.pid).children(recursive=True)
    lines = {}
    for process in below:
        try:
            lines[process] = process.cmdline()
        except psutil.NoSuchProcess:
            continue
    if kind == "snakemake":
        return [process for process, line in lines.items() if "snakemake" in line][:1]
    if kind == "group":
        return [each for each in (psutil.Process(run.pid), *below) if os.getpgid(each.pid) == run.pid]
    if kind == "all":
        return [psutil.Process(run.pid), *below]
    launchers = [process for process, line in lines.items() if any(word.endswith("/torchrun") for word in line)]
    if kind == "torchrun":
        return launchers[:1]
    workers = [process for process in lines if process.ppid() in {each.pid for each in launchers}]
    alone = [process for process, line in lines.items() if any(word.endswith("/persistworld") for word in line)]
    return [*workers, *alone][:1]


def finished_jobs(clone: Path) -> int:
    return (clone / "run.log").read_text().count("Finished jobid")


def kill(clone: Path, targets: list[str], kind: str, jobs: int, delay: float) -> bool:
    """Start a run and kill it `delay` seconds after its first `jobs` jobs, or once there is what to kill; False when it ended before."""
    before, run = finished_jobs(clone) if (clone / "run.log").exists() else 0, start(clone, targets)
    wait_for(lambda: run.poll() is not None or finished_jobs(clone) - before >= jobs)
    time.sleep(delay)
    while run.poll() is None:
        try:
            hit = chosen(run, kind)
            below = psutil.Process(run.pid).children(recursive=True)
            for process in hit:
                process.kill()
        except psutil.NoSuchProcess:
            continue
        if hit:
            run.wait(PATIENCE)
            living = psutil.wait_procs(below, timeout=60)[1]
            assert not living, f"outlived a kill of {kind}: {living}"
            return True
        time.sleep(0.05)
    return False


def killed_and_taken_up(clone: Path, kinds: list[str], longest: float, targets: list[str]) -> None:
    """A kill of each kind, up to `longest` seconds after a run's first job or after its start, then a run to the end."""
    rng = random.Random(0)
    for number, kind in enumerate(kinds):
        while True:
            # A moment is chosen by jobs first: on a slow machine seconds alone would hit the same stage each time.
            jobs, delay = min(number, rng.choice((0, 1, 1))), rng.uniform(0, longest)
            if kill(clone, targets, kind, jobs, delay):
                break
            for name in ("data", "checkpoints", "results", "runs"):  # it came to its end: once more from the beginning
                shutil.rmtree(clone / name, ignore_errors=True)
        print(f"kill {number}: {kind}, {delay:.1f} s after {finished_jobs(clone)} jobs")
    finish(clone, targets)


def test_a_killed_workflow_is_taken_up(fresh):
    """The first two stages; all of them: below."""
    undisturbed, killed = fresh.with_name("short"), fresh.with_name("short_killed")
    targets = ["data/episodes", "checkpoints/base"]
    for folder in (undisturbed, killed):
        shutil.copytree(fresh, folder)
    finish(undisturbed, targets)
    killed_and_taken_up(killed, ["job", "snakemake"], 0.0, targets)  # the first job, then Snakemake after it
    assert contents(killed) == contents(undisturbed)


@pytest.mark.slow
def test_a_workflow_killed_at_ten_random_moments_leaves_the_bytes_of_an_undisturbed_one(fresh):
    undisturbed, killed = fresh.with_name("undisturbed"), fresh.with_name("disturbed")
    for folder in (undisturbed, killed):
        shutil.copytree(fresh, folder)
    seconds = finish(undisturbed, TABLES)
    killed_and_taken_up(killed, [*KINDS, *KINDS], seconds / 10, TABLES)  # of ten jobs or so
    expected, found = contents(undisturbed), contents(killed)
    assert expected.keys() == found.keys() and len(expected) > 10
    assert [name for name in expected if expected[name] != found[name]] == []


def test_unlocking_needs_no_number_of_cores(fresh):
    (fresh / ".snakemake/locks").mkdir(parents=True, exist_ok=True)
    (fresh / ".snakemake/locks/0.input.lock").write_text("data/manifest.json\n")
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], cwd=fresh, env=ENVIRONMENT, check=True, capture_output=True)
    assert not list((fresh / ".snakemake/locks").glob("*.lock"))


# A worker, watched as the command line watches it, that waits: for a process that never comes, or for one that never answers.
WAITING = {
    "at the rendezvous": """
os.environ["WORLD_SIZE"] = "3"
ready()
processes()""",
    "in a collective": """
rank = processes().process_index
ready()
if rank: time.sleep(600)
dist.all_reduce(torch.ones(1))""",
}
WORKER = """
import os, time
from pathlib import Path
from persistworld.runtime.lifeline import end_with_launcher
end_with_launcher()
import torch, torch.distributed as dist
from persistworld.runtime.distributed import processes
def ready(): Path(FOLDER, os.environ["RANK"]).touch()
"""


@pytest.mark.parametrize("where", WAITING)
def test_a_worker_ends_when_torchrun_dies(tmp_path, where):
    script = tmp_path / "worker.py"
    script.write_text(WORKER.replace("FOLDER", repr(str(tmp_path))) + WAITING[where])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    launcher = subprocess.Popen(command, env=ENVIRONMENT | {"CUDA_VISIBLE_DEVICES": ""}, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: all((tmp_path / rank).exists() for rank in "01"))
        workers = psutil.Process(launcher.pid).children(recursive=True)
        time.sleep(1)  # into the wait
        os.kill(launcher.pid, signal.SIGKILL)
        assert len(workers) == 2 and not psutil.wait_procs(workers, timeout=60)[1]
    finally:
        launcher.kill()
        launcher.wait()


def wait_for(condition) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + PATIENCE
        time.sleep(0.05)


def test_simulating_processes_end_with_their_stage(tmp_path):
    shutil.copy(ROOT / "presets/tabletop.yaml", tmp_path / "params.yaml")
    command = [sys.executable, "-m", "persistworld.cli", "episodes", "--threads", "2"]
    stage = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: list((tmp_path / "runs/episodes").rglob("*.mp4")))
        workers = psutil.Process(stage.pid).children(recursive=True)
        # While it lives, nobody else writes its files, and who does is said.
        other = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
        assert other.returncode == 2
        assert_names(other.stderr, f"process {stage.pid}", os.uname().nodename)
        stage.kill()
        stage.wait()
        assert len(workers) >= 2 and not psutil.wait_procs(workers, timeout=60)[1]
    finally:
        stage.kill()

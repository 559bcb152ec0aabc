"""`make run`'s program on a workflow of one rule: a kill is survived, two do not run at once, and a failure's reason comes last."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "workflow/run.py"
PATIENCE = 600  # seconds: Snakemake starts slowly on busy cores
SNAKEFILE = """
rule all:
    output: "done"
    log: "logs/all.log"
    shell:
        "if [ -e wait ]; then touch started; sleep 60; fi; "
        "if [ -e bad ]; then echo 'persistworld: error: key = 3: choose another' | tee {log}; exit 2; fi; touch {output}"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/Snakefile").write_text(SNAKEFILE)
    return tmp_path


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, RUN], cwd=folder, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # As from a terminal: tests that a shell runs in the background have it ignored, and would hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def waiting(folder: Path) -> subprocess.Popen:
    """A run whose job has begun, and waits."""
    (folder / "wait").touch()
    run, began = start(folder), time.monotonic()
    while not (folder / "started").exists():
        assert run.poll() is None and time.monotonic() < began + PATIENCE
        time.sleep(0.1)
    return run


def test_a_killed_run_is_taken_up_and_two_do_not_run_at_once(folder):
    first = waiting(folder)
    second = start(folder)
    assert second.wait(PATIENCE) == 2 and f"process {first.pid} on " in second.stderr.read()
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(PATIENCE)
    assert any((folder / ".snakemake/locks").iterdir())  # what would stop plain snakemake
    (folder / "wait").unlink()
    third = start(folder)
    assert third.wait(PATIENCE) == 0 and (folder / "done").exists(), third.stderr.read()


def test_ctrl_c_stops_snakemake_and_leaves_no_lock(folder):
    run = waiting(folder)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode not in (0, -signal.SIGINT) and "Traceback" not in errors
    locks = folder / ".snakemake/locks"
    assert not locks.exists() or not any(locks.iterdir())


def test_the_reason_of_a_failure_comes_last(folder):
    (folder / "bad").touch()
    run = start(folder)
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode != 0 and errors.splitlines()[-1] == "persistworld: error: key = 3: choose another"

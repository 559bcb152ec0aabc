"""The line of `make run` that says what share is done: the arithmetic on jobs that are told, and the plugin in a real Snakemake."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "workflow/progress"))
from snakemake_logger_plugin_progress import NEARLY, SECONDS, Work, job_seconds, logged  # noqa: E402


def test_share_and_rest():
    """Two jobs of 100 s and one of 200 s on two cores: half is done when the large one ends. At the rate so far, the rest takes as long."""
    work = Work({"small": 2, "large": 1}, {"small": 100.0, "large": 200.0}, 2, now=0.0)
    assert work.share(0.0) == 0 and work.left(0.0) == pytest.approx(400 / 1.6)
    work.begin(1, "large", [], 0.0)
    assert work.share(50.0) == pytest.approx(50 / 400)
    assert work.share(1000.0) == pytest.approx(NEARLY * 200 / 400)  # it takes longer than the last time
    work.end(1)
    assert work.share(6000.0) == 0.5 and work.finished == 1
    assert work.left(6000.0) == pytest.approx(6000, rel=0.35)
    work.begin(2, "small", [], 6000.0)
    work.end(2, failed=True)
    assert work.share(6000.0) == 0.5 and work.finished == 1


def test_a_resumed_job_counts_as_far_as_its_log_says(tmp_path):
    log, now = tmp_path / "a.log", time.time()
    work = Work({"long": 1}, {"long": 1000.0}, 2, now=0.0)
    work.begin(1, "long", [str(log)], 0.0)
    assert work.share(10.0) == pytest.approx(0.01)
    log.write_text("goes on\npost-training: 14/28, 12 s\n")
    assert work.share(10.0) == pytest.approx(0.5)
    log.write_text("latents: 2/4, 12 s\nlatents: 3/4, 15 s\n")
    assert logged([str(log)], now - 10) == 0.75
    log.write_text("seed 0: 4/4, 12 s\nseed 1: 1/4, 15 s\n")
    assert logged([str(log)], now - 10) is None  # several loops, of unknown number
    assert logged([str(log)], now + 1000) is None  # an earlier run's log


def test_the_last_runs_times_are_taken(tmp_path):
    def write(name: str, cpu: str) -> None:
        (tmp_path / f"{name}.tsv").write_text(f"s\tmax_rss\tcpu_time\n9.9\t1.0\t{cpu}\n")

    assert job_seconds(tmp_path) == SECONDS
    write("latents-0", "40"), write("latents-1", "60"), write("masks", "NA"), write("post_training-mine", str(2 * SECONDS["post_training"]))
    found = job_seconds(tmp_path)
    assert found["latents"] == 50 and found["post_training"] == 2 * SECONDS["post_training"]
    assert found["masks"] == pytest.approx(SECONDS["masks"] * (50 + 872) / (25 + 436))  # this machine is slower


SNAKEFILE = """
rule all:
    input: "a1", "a3"

rule first:
    output: "a1"
    shell: "touch {output}"

rule second:
    output: "a2"
    shell: "sleep 2; touch {output}"

rule third:
    input: "a2"
    output: "a3"
    shell: "sleep 4; touch {output}"
"""


@pytest.fixture
def chain(tmp_path) -> Path:
    """A workflow of three jobs. The first has nothing to do; the third waits for the second."""
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/Snakefile").write_text(SNAKEFILE)
    (tmp_path / "a1").touch()
    return tmp_path


def on_a_terminal(folder: Path) -> str:
    """What `make run` writes on a terminal, where it says every second how far it is."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    written: list[bytes] = []

    def read() -> None:
        try:
            while text := os.read(ours, 4096):
                written.append(text)
        except OSError:  # the other end is closed
            return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    found = subprocess.run([sys.executable, ROOT / "workflow/run.py"], cwd=folder, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    reader.join()
    os.close(ours)
    text = b"".join(written).decode()
    assert found.returncode == 0, text
    return text


def counted(text: str) -> list[tuple[str, str]]:
    """(finished jobs, all jobs) of each line, in order and each once."""
    return list(dict.fromkeys(re.findall(r"make run: .*?\((\d) of (\d) jobs\)", text)))


def test_the_plugin_counts_the_jobs_that_have_to_run_and_those_that_end(chain):
    assert counted(on_a_terminal(chain))[:2] == [("0", "2"), ("1", "2")]  # the third job runs long enough to be seen


def test_in_a_log_the_first_line_is_written_at_once(chain):
    found = subprocess.run([sys.executable, ROOT / "workflow/run.py"], cwd=chain, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert counted(found.stderr) == [("0", "2")]

"""During `make run`: the share of the work that is done, and how long the rest will take. A logger plugin of Snakemake.

Snakemake finds packages of such a name on the path (`workflow/run.py`). Work is counted in seconds of CPU, from the benchmark files of the
last run if there are any, otherwise from SECONDS. Only jobs that this run has to do count, so that the share is also right after a kill; a
job that resumes counts as far as its log says.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from logging import LogRecord
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# Seconds of CPU that a job of a rule takes (default preset, two cores with AVX-512). Only their ratios matter after the first minutes.
SECONDS = {
    "base_checkpoint": 8, "baseline_scores": 74, "episodes": 92, "figures": 15, "latents": 25, "manifest": 8, "masks": 10,
    "own_history": 403, "post_training": 436, "preference": 10, "report_page": 20, "rollouts": 101, "scores": 74, "tables": 8,
    "teacher_forcing": 403, "truth": 15,
}  # fmt: skip
NO_WORK = ("total", "ablations", "all", "policies", "study")  # Snakemake's sum, and rules that only name targets
UNKNOWN = 30  # of rules that are not in the table
BENCHMARKS = Path("results/benchmarks")
BUSY = 0.8  # share of the cores that jobs use
SOON = 60.0  # seconds of this run that count as much as the expectation before it
NEARLY = 0.95  # the most that counts as done of a running job
STEP = re.compile(r"^(.+): (\d+)/(\d+), \d+ s$", re.MULTILINE)  # a line of runtime/progress.py
EVERY = 60.0  # seconds between lines in a log


@dataclass
class Job:
    """A running job: its rule, its log files and when it began (s, monotonic and since the epoch)."""

    rule: str
    logs: list[str]
    began: float
    since: float


class Work:
    """The jobs of a run: how much is done, and how long the rest will take. Times are seconds of a monotonic clock."""

    def __init__(self, counts: Mapping[str, int], seconds: Mapping[str, float], cores: int, now: float) -> None:
        """counts: rule -> number of its jobs that have to run; seconds: rule -> CPU seconds of a job."""
        self.seconds, self.began, self.rate = seconds, now, max(1.0, BUSY * cores)
        self.jobs, self.finished, self.done = sum(counts.values()), 0, 0.0
        self.total = sum(count * self._of(rule) for rule, count in counts.items())
        self.running: dict[int, Job] = {}

    def begin(self, number: int, rule: str, logs: list[str], now: float) -> None:
        self.running[number] = Job(rule, logs, now, time.time())

    def end(self, number: int, failed: bool = False) -> None:
        job = self.running.pop(number, None)
        if job is not None and not failed:
            self.finished += 1
            self.done += self._of(job.rule)

    def share(self, now: float) -> float:
        """The share of the work that is done, 0..1."""
        running = sum(self._part(job, now) * self._of(job.rule) for job in self.running.values())
        return 1.0 if self.total == 0 else min(1.0, (self.done + running) / self.total)

    def left(self, now: float) -> float:
        """Seconds that the rest takes, at the rate so far. In the first minute, mostly at the expected rate."""
        elapsed, share = now - self.began, self.share(now)
        rate = (SOON * self.rate + share * self.total) / (SOON + elapsed)
        return (1 - share) * self.total / rate

    def line(self, now: float) -> str:
        minutes = self.left(now) / 60
        left = "less than a minute" if minutes < 1 else f"about {minutes:.0f} min"
        return f"make run: {self.share(now):.0%} done, {left} left ({self.finished} of {self.jobs} jobs)"

    def _of(self, rule: str) -> float:
        return self.seconds.get(rule, UNKNOWN)

    def _part(self, job: Job, now: float) -> float:
        """The part of a running job that is done: as its log says, if it counts one thing only; otherwise by its time."""
        counted = logged(job.logs, job.since)
        return min(NEARLY, (now - job.began) / self._of(job.rule) if counted is None else counted)


def logged(logs: list[str], since: float) -> float | None:
    """The part of a job's steps that its logs, written after `since`, say is done. None if they count nothing or several things."""
    found = {}
    for path in map(Path, logs):
        if path.is_file() and path.stat().st_mtime >= since - 1:  # clocks of files are coarser
            found |= {label: int(done) / int(total) for label, done, total in STEP.findall(path.read_text(errors="replace"))}
    return next(iter(found.values())) if len(found) == 1 else None


def job_seconds(folder: Path = BENCHMARKS) -> dict[str, float]:
    """rule -> CPU seconds of a job: the mean of the last run's benchmark files; rules without one from SECONDS, scaled like the others."""
    measured: dict[str, list[float]] = {}
    for path in folder.glob("*.tsv"):
        rule = next((name for name in sorted(SECONDS, key=len, reverse=True) if re.fullmatch(rf"{name}(-.*)?", path.stem)), None)
        names, *rows = (line.split("\t") for line in path.read_text().splitlines()) if path.stat().st_size else ([],)
        for row in rows:
            value = dict(zip(names, row, strict=False)).get("cpu_time", "")
            if rule is not None and re.fullmatch(r"\d+(\.\d+)?", value) and float(value) > 0:
                measured.setdefault(rule, []).append(float(value))
    means = {rule: sum(values) / len(values) for rule, values in measured.items()}
    scale = sum(means.values()) / sum(SECONDS[rule] for rule in means) if means else 1.0
    return {rule: scale * seconds for rule, seconds in SECONDS.items()} | means


class LogHandler(LogHandlerBase):
    """Prints the line: at most once a minute in a log, every second on a terminal, where the cursor stays before it, so that others
    write over it."""

    writes_to_stream = writes_to_file = needs_rulegraph = has_formatter = False
    has_filter = True  # none: it prints no record

    def __post_init__(self) -> None:
        self.work: Work | None = None
        self.live, self.printed = sys.stderr.isatty(), -EVERY

    def emit(self, record: LogRecord) -> None:
        """Note what has begun and ended. `logging` holds the handler's lock meanwhile."""
        event, now = getattr(record, "event", None), time.monotonic()
        if event == LogEvent.RUN_INFO and self.work is None:
            counts = {rule: count for rule, count in record.stats.items() if rule not in NO_WORK}
            self.work = Work(counts, job_seconds(), os.cpu_count() or 1, now)
            threading.Thread(target=self._watch, name="progress", daemon=True).start()
        elif self.work is None:
            return
        elif event == LogEvent.JOB_INFO and record.rule_name not in NO_WORK:
            self.work.begin(record.jobid, record.rule_name, [str(path) for path in record.log], now)
        elif event == LogEvent.JOB_FINISHED:
            self.work.end(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            self.work.end(record.jobid, failed=True)

    def _watch(self) -> None:
        while True:
            now = time.monotonic()
            with self.lock:
                line = self.work.line(now)
            if self.live:
                width = os.get_terminal_size(sys.stderr.fileno()).columns
                print(f"\r{line[: width - 1]}\x1b[K\r", end="", file=sys.stderr, flush=True)
            elif now - self.printed >= EVERY:
                self.printed = now
                print(line, file=sys.stderr, flush=True)
            time.sleep(1.0)

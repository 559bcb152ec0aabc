"""A process ends when what launched it dies, so that nothing of a killed run goes on beside its successor.

Each process looks once a second whether its launcher is still among its ancestors. When a process dies, its children get another parent,
so the answer is also right when something in between died (the shell of a job, torchrun), when the launcher was gone before the first
look, and when its number has been given to another process. The kernel's own signal (Linux, PR_SET_PDEATHSIG) is not used: it tells of
the parent alone, and is sent too early where the thread ends that started the process, as Snakemake's do. A thread looks, so that a
process also ends that waits for others (at the rendezvous, in a collective); it ends without unwinding, which could wait as well.
"""

import contextlib
import os
import select
import threading
import time
from pathlib import Path

import psutil

LAUNCHER = "PERSISTWORLD_LAUNCHER"  # the process that a stage must not outlive: Snakemake sets its own number
RUN = "PERSISTWORLD_RUN"  # the process that Snakemake must not outlive: `make run`
INTERVAL = 1.0  # seconds between looks
ENDED = 143  # as after a SIGTERM


def end_with_launcher() -> None:
    """For a stage: end with the Snakemake that called it, or, where it was called by hand, with torchrun."""
    if launcher := os.environ.get(LAUNCHER):
        end_with(int(launcher))
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        # Where torchrun died in the meantime, the parent is init or a shell.
        end_with(parent if _is_python(parent := os.getppid()) else -1)


def begin_workflow() -> None:
    """For Snakemake itself, on reading the Snakefile: end with `make run`; the stages end with this process."""
    if run := os.environ.pop(RUN, None):  # not for jobs, which may run on another machine
        end_with(int(run))
    os.environ[LAUNCHER] = str(os.getpid())


def end_with(launcher: int) -> None:
    """End this process when `launcher`, the number of an ancestor, dies, or any process between the two; at once if it has."""
    _end_unless_below(launcher)
    threading.Thread(target=_watch, args=(launcher,), name="lifeline", daemon=True).start()


def _watch(launcher: int) -> None:
    while True:
        time.sleep(INTERVAL)
        _end_unless_below(launcher)


def _end_unless_below(launcher: int) -> None:
    if launcher in _ancestors():
        return
    with contextlib.suppress(OSError):
        if select.select([], [2], [], 0)[1]:  # only where it cannot block
            os.write(2, f"persistworld: the process that launched this one ({launcher}) has died; ended\n".encode())
    os._exit(ENDED)


def _ancestors() -> list[int]:
    found, process = [], os.getppid()
    with contextlib.suppress(psutil.Error):
        while process:
            found.append(process)
            process = psutil.Process(process).ppid()
    return found


def _is_python(process: int) -> bool:
    try:
        return Path(psutil.Process(process).exe()).name.lower().startswith("python")
    except psutil.Error:
        return False

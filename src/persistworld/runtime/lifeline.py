"""Ends a process when its launcher dies, so that a killed run leaves no process running beside the next run.

Each process checks once a second whether its launcher is still among its ancestors. When a process dies, its children get another parent.
The check therefore also works if a process in between died (a job's shell, torchrun), if the launcher died before the first check, and if
the launcher's process id was reused. The kernel's signal for this (Linux, PR_SET_PDEATHSIG) is not used. It covers only the parent, and it
is sent too early if the thread that started the process ends, as Snakemake's threads do. The check runs in a thread, so that it also ends
a process that waits for others (at the rendezvous, in a collective). The process exits without unwinding, which could block as well.
"""

import contextlib
import os
import select
import threading
import time
from pathlib import Path

import psutil

LAUNCHER = "PERSISTWORLD_LAUNCHER"  # id of the process that a stage must not outlive; set by Snakemake to its own id
RUN = "PERSISTWORLD_RUN"  # id of the process that Snakemake must not outlive: `make run`
INTERVAL = 1.0  # seconds between checks
ENDED = 143  # exit status, as after a SIGTERM


def end_with_launcher() -> None:
    """For a stage: end when the Snakemake that called it ends. If it was called by hand under torchrun, end with torchrun."""
    if launcher := os.environ.get(LAUNCHER):
        if int(launcher) != os.getpid():  # a stage may run in the process that read the Snakefile
            end_with(int(launcher))
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        # If torchrun has died already, the parent is init or a shell.
        end_with(parent if _is_python(parent := os.getppid()) else -1)


def begin_workflow() -> None:
    """For Snakemake, when it reads the Snakefile: end with `make run`, and make the stages end with this process."""
    if run := os.environ.pop(RUN, None):  # removed so that jobs do not inherit it: they may run on another machine
        end_with(int(run))
    os.environ[LAUNCHER] = str(os.getpid())


def end_with(launcher: int) -> None:
    """End this process when the ancestor with process id `launcher`, or any process in between, dies. At once if it is already dead."""
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
        if select.select([], [2], [], 0)[1]:  # write only if that cannot block
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

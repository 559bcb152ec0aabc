"""File locks that allow one writer at a time. The operating system releases a lock when its holder dies, however it dies."""

import contextlib
import errno
import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

from persistworld.runtime.errors import UserError

PATIENCE = 10  # seconds to wait for a holder whose launcher has died: it ends soon after
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # some network file systems


@contextlib.contextmanager
def hold(path: str | Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` during the block. The file is not removed.

    Raises UserError, which names `what` and the holder, if another process holds the lock. The processes of a torchrun launch on one node
    hold it together: the first takes it and the others join. Processes on other nodes, which may have their own disks, take no lock.
    """
    first = os.environ.get("RANK", "0") == "0"
    if not first and os.environ.get("GROUP_RANK") != "0":
        yield
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        give_up = time.monotonic() + PATIENCE
        try:
            while not (_take(file) if first else _join(file)):
                if first and time.monotonic() > give_up:
                    raise UserError(f"{path}: {_holder(file)} is at work on {what}; wait for it, or stop it")
                time.sleep(0.1)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            print(f"persistworld: {path}: this disk has no locks; do not run {what} twice at once", file=sys.stderr)
        yield


def is_free(path: str | Path) -> bool:
    """Whether no process holds or shares the lock file `path`. Waits up to PATIENCE seconds. False if locks are unsupported."""
    with open(path, "a+") as file:
        give_up = time.monotonic() + PATIENCE
        try:
            while not _lock(file, fcntl.LOCK_EX):
                if time.monotonic() > give_up:
                    return False
                time.sleep(0.1)
        except OSError:
            return False
    return True


def share(path: str | Path) -> IO[str] | None:
    """Share the lock file `path` with others until the returned file is closed. None if that is not possible."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return None
    return file


def _take(file: IO[str]) -> bool:
    """Take the lock if it is free, record the holder in the file, and turn the lock into a shared one that this launch can join."""
    if not _lock(file, fcntl.LOCK_EX):
        return False
    file.seek(0)
    file.truncate()
    json.dump({"process": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, file)
    file.flush()
    return _lock(file, fcntl.LOCK_SH)  # False if another process took it in between


def _join(file: IO[str]) -> bool:
    """Share the lock if the first process of this launch holds it."""
    if not _lock(file, fcntl.LOCK_SH):
        return False
    with contextlib.suppress(psutil.Error, KeyError):
        record = _record(file)
        if record["host"] == platform.node() and psutil.Process(record["process"]).ppid() == os.getppid():
            return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str]) -> str:
    record = _record(file)
    return "process {process} on {host} since {since}".format_map(record) if record else "another process"


def _record(file: IO[str]) -> dict:
    file.seek(0)
    try:
        return json.load(file)
    except ValueError:  # the holder is writing it right now
        return {}

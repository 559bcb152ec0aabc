"""Atomic writes: beside, fsync, rename. Whatever dies half-way leaves nothing that looks finished.

What a kill -9 or a power cut leaves is removed when another process first writes into the same folder. A part bears its
host and process, so that on a shared disk no part of a writer that is alive is taken: one of this host whose process is
gone goes at once; of another host's nothing is known, so it goes when it has not changed for a day.
"""

import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persistworld.runtime.errors import UserError

PART = re.compile(r"\..+\.part-(?P<host>.+)-(?P<process>\d+)(\.[^.]+)?")
ABANDONED = 24 * 3600  # seconds without a change after which another host's part counts as left behind


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over `path`, on any error removed.

    The caller may create a file or a directory at the yielded path. Raises UserError when the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent.resolve())
    # The suffix stays last, so that writers that choose a format by it (PyArrow, Matplotlib, PyAV) keep doing so.
    part = path.with_name(f".{path.stem}.part-{platform.node()}-{os.getpid()}{path.suffix}")
    _remove(part)
    try:
        yield part
        _sync(part)
        if path.is_dir() and part.is_dir():
            shutil.rmtree(path)
        os.replace(part, path)
        _sync_folder(path.parent)
    except Exception as error:
        if (found := system_error(error)) and found.errno == errno.ENOSPC:
            raise UserError(f"{path}: no space left on the disk; free some and run the same command again") from None
        raise
    finally:
        _remove(part)


def system_error(error: BaseException | None) -> OSError | None:
    """The system's own error: `error`, or the one in whose handling it arose. (torch fails again when it closes a file that it could not
    write.)"""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as sorted, indented JSON, atomically."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises UserError when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it first") from None
    except ValueError as error:  # not JSON, or not even text
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run the stage that writes it again") from None


def user_path(text: str | Path) -> Path:
    """A path that a user wrote, with ~ for the home. Raises UserError when there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no such home as ~ stands for; write the whole path") from None


def disguise(path: Path) -> str | None:
    """What a file really is where it stands in for another: empty, git-lfs's pointer, a web page. None when it looks like itself."""
    try:
        with open(path, "rb") as file:
            head = file.read(200)
    except OSError:
        return None
    if not head:
        return "it is empty: download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file: fetch it with `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not the file: download it again"
    return None


def sha256(path: str | Path) -> str:
    """The hex digest of a file's bytes. Raises UserError when it is missing."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it first") from None


@functools.cache  # once a process and folder: there may be many thousand files in it
def _sweep(folder: Path) -> None:
    """Remove the parts in `folder` that no process will finish."""
    with os.scandir(folder) as entries:
        found = [(Path(entry.path), match) for entry in entries if (match := PART.fullmatch(entry.name))]
    for path, match in found:
        if _is_running(int(match["process"])) if match["host"] == platform.node() else time.time() - _changed(path) < ABANDONED:
            continue
        with contextlib.suppress(OSError):  # another process may sweep, too
            _remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _changed(path: Path) -> float:
    """When a file, or anything in a folder, last changed; now when it is going away meanwhile."""
    try:
        return max(p.lstat().st_mtime for p in (path, *path.rglob("*")))
    except OSError:
        return time.time()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

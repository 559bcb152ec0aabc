"""Atomic writes: write a temporary file (a "part") beside the target, fsync, rename.

An interrupted write therefore leaves no file that looks finished.
Parts left by a kill -9 or a power cut are removed when another process first writes into the same folder. A part's name contains its
host and process, so that a live writer's part on a shared disk is kept. A part of this host is removed if its process is gone. A part of
another host is removed if it has not changed for a day, since its process cannot be checked.
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
ABANDONED = 24 * 3600  # seconds without a change after which another host's part counts as abandoned


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it is synced and renamed to `path`, on any error it is removed.

    The caller may create a file or a directory at the yielded path. Raises UserError if the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent.resolve())
    # The suffix stays last because some writers choose the format by it (PyArrow, Matplotlib, PyAV).
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
    """The OSError behind `error`: `error` itself or one in its chain of contexts. None if there is none.

    The chain matters because torch raises a second error when it closes a file that it could not write.
    """
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as sorted, indented JSON, atomically."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raises UserError if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it first") from None
    except ValueError as error:  # not JSON, or not text
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run the stage that writes it again") from None


def user_path(text: str | Path) -> Path:
    """A path from user input, with ~ expanded. Raises UserError if that home folder does not exist."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: the home folder that ~ stands for is unknown; write the whole path") from None


def disguise(path: Path) -> str | None:
    """Describe a file that is not the expected content: empty, a git-lfs pointer or a web page. None if it is none of these."""
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
    """The hex SHA-256 digest of a file's bytes. Raises UserError if the file is missing."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it first") from None


@functools.cache  # once per process and folder, since a folder may hold thousands of files
def _sweep(folder: Path) -> None:
    """Remove abandoned parts in `folder`."""
    with os.scandir(folder) as entries:
        found = [(Path(entry.path), match) for entry in entries if (match := PART.fullmatch(entry.name))]
    for path, match in found:
        if _is_running(int(match["process"])) if match["host"] == platform.node() else time.time() - _changed(path) < ABANDONED:
            continue
        with contextlib.suppress(OSError):  # another process may sweep at the same time
            _remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # the process belongs to another user
        return True
    return True


def _changed(path: Path) -> float:
    """The time of the last change of a file, or of anything in a folder. The current time if it is being removed."""
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

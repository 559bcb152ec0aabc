"""Checks disk space and whether folders are writable."""

import os
import shutil
from pathlib import Path


def existing(path: Path) -> Path:
    """`path`, or its nearest ancestor that exists."""
    path = path.expanduser().absolute()
    while not path.exists():
        path = path.parent
    return path


def writable(path: Path) -> bool:
    """Whether files can be created in the folder `path`, which need not exist yet."""
    found = existing(path)
    return found.is_dir() and os.access(found, os.W_OK | os.X_OK)


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of `path`, which need not exist yet."""
    return shutil.disk_usage(existing(path)).free


def used_bytes(folder: Path) -> int:
    """Bytes used by the files in a folder. 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cache(variable: str, name: str) -> Path:
    """A library's download folder: the value of the environment variable `variable`, or `name` in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / name
    return Path(os.environ.get(variable) or default).expanduser()

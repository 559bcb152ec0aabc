"""Whether there is room: space on the disk, and folders that can be written."""

import os
import shutil
from pathlib import Path


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    path = path.expanduser().absolute()
    while not path.exists():
        path = path.parent
    return path


def writable(path: Path) -> bool:
    """Whether files can be made in the folder `path`, which need not be there yet."""
    found = existing(path)
    return found.is_dir() and os.access(found, os.W_OK | os.X_OK)


def free_bytes(path: Path) -> int:
    """Free space on the disk of `path`, which need not be there yet."""
    return shutil.disk_usage(existing(path)).free


def used_bytes(folder: Path) -> int:
    """What the files in a folder take; 0 when it is not there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cache(variable: str, name: str) -> Path:
    """A library's folder for downloads: the environment's `variable`, or `name` in the user's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / name
    return Path(os.environ.get(variable) or default).expanduser()

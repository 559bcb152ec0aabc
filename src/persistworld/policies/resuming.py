"""Keeps the finished policies of a stage in runs/ until all are done, so that a stopped stage continues with the first unfinished one."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from persistworld.runtime.files import atomic_path, sha256
from persistworld.runtime.workspace import POLICIES, RUNS


@contextlib.contextmanager
def world_folder(world: str, made_from: Sequence[str], folders: Sequence[Path]) -> Iterator[Path]:
    """Yield a folder for the files of one world, including those that a stopped run has written. At the end it becomes data/policies/WORLD.

    made_from and the safetensors files in `folders` determine the files, so files of another run are never used.
    """
    networks = sorted(file for folder in folders for file in folder.glob("*.safetensors"))
    name = hashlib.sha256("\n".join([*made_from, *map(sha256, networks)]).encode()).hexdigest()[:16]
    unfinished = RUNS / "policies" / world / name
    unfinished.mkdir(parents=True, exist_ok=True)
    yield unfinished
    with atomic_path(POLICIES / world) as part:
        shutil.copytree(unfinished, part)
    shutil.rmtree(unfinished)
    with contextlib.suppress(OSError):  # not empty after a stopped run with other parameters
        unfinished.parent.rmdir()

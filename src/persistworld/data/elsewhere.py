"""Episodes that lie outside of the repository: `data/episodes` then holds one small file that names and fingerprints them.

So both workflow engines have an output to track, and neither copies or hashes hundreds of gigabytes of video. The
fingerprint is of the data set's index: LeRobot's `meta/` byte by byte, or the names and sizes of the annotations of
Ctrl-World's processed layout. Videos are not read for it: one that is replaced under its old name goes unnoticed.
"""

import hashlib
from pathlib import Path

from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, read_json, sha256, write_json

RECORD = "source.json"


def write_record(source: str | Path, episodes: int, folder: Path) -> None:
    """Make `folder` the record of the data set at `source`, which lists `episodes` episodes; replaces what is there."""
    with atomic_path(folder) as part:
        write_json(part / RECORD, {"path": str(source), "episodes": episodes, "index_sha256": fingerprint(Path(source))})


def follow(folder: Path) -> Path:
    """Where the data set lies that `folder` records. Raises UserError when it is gone or its index has changed."""
    record = read_json(folder / RECORD)
    source = Path(record["path"])
    if not source.is_dir():
        raise UserError(f"episodes.path = {source}: no such folder, though {folder / RECORD} names it; put the data set back there")
    if fingerprint(source) != record["index_sha256"]:
        mend = "make everything from it anew with snakemake --forcerun episodes, or put the old data set back"
        raise UserError(f"episodes.path = {source}: the data set's index is not the one that {folder / RECORD} recorded; {mend}")
    return source


def fingerprint(source: Path) -> str:
    """Hex SHA-256 of the data set's index."""
    digest = hashlib.sha256()
    for path in sorted(path for path in (source / "meta").rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(source)} {sha256(path)}\n".encode())
    for path in sorted((source / "annotation").rglob("*.json")):
        digest.update(f"{path.relative_to(source)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()

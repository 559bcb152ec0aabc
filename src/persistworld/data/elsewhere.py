"""Records a data set that lies outside the repository: `data/episodes` holds one small file with its path and fingerprint.

Both workflow engines track this file as an output, and neither copies or hashes hundreds of gigabytes of video. The
fingerprint covers the data set's index: for LeRobot the bytes of `meta/`, for Ctrl-World's processed layout the names
and sizes of the annotations. It does not cover the videos: a video that is replaced under the same name goes unnoticed.
"""

import hashlib
from pathlib import Path

from persistworld.data.episodes import EpisodeSource
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, read_json, sha256, write_json

RECORD = "source.json"
AGAIN = "make everything from it again with snakemake --forcerun episodes"


def write_record(source: str | Path, episodes: int, folder: Path, keep_ranges: Path | None = None) -> None:
    """Write the record of the data set at `source`, which lists `episodes` episodes, to `folder`. Replaces the content of `folder`.

    keep_ranges: the file that selects parts of the episodes; the record holds its path and SHA-256.
    """
    kept = {} if keep_ranges is None else {"keep_ranges": str(keep_ranges), "keep_ranges_sha256": sha256(keep_ranges)}
    with atomic_path(folder) as part:
        write_json(part / RECORD, {"path": str(source), "episodes": episodes, "index_sha256": fingerprint(Path(source))} | kept)


def follow(folder: Path) -> tuple[Path, Path | None]:
    """The path of the data set that `folder` records, and of its keep_ranges file if there is one. Raises UserError when either is
    missing or has changed."""
    record = read_json(folder / RECORD)
    try:
        source, index = Path(record["path"]), record["index_sha256"]
        keep_ranges = Path(record["keep_ranges"]) if "keep_ranges" in record else None
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / RECORD}: not a record of a data set ({error!r}); {AGAIN}") from None
    if not source.is_dir():
        raise UserError(f"episodes.path = {source}: no such folder, though {folder / RECORD} names it; put the data set back there")
    if fingerprint(source) != index:
        raise UserError(
            f"episodes.path = {source}: the data set's index is not the one that {folder / RECORD} recorded; {AGAIN}, or put the old data "
            "set back"
        )
    if keep_ranges is not None and (not keep_ranges.is_file() or sha256(keep_ranges) != record.get("keep_ranges_sha256")):
        raise UserError(f"episodes.keep_ranges = {keep_ranges}: is missing, or not the file that {folder / RECORD} recorded; {AGAIN}")
    return source, keep_ranges


def identity(source: EpisodeSource) -> str:
    """A string that identifies a data set: the fingerprint of its index, then the SHA-256 of its keep_ranges file if there is one."""
    keep_ranges = getattr(source, "keep_ranges", None)
    return fingerprint(source.root) + ("" if keep_ranges is None else sha256(keep_ranges))


def fingerprint(source: Path) -> str:
    """Hex SHA-256 of the data set's index."""
    digest = hashlib.sha256()
    for path in sorted(path for path in (source / "meta").rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(source)} {sha256(path)}\n".encode())
    for path in sorted((source / "annotation").rglob("*.json")):
        digest.update(f"{path.relative_to(source)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()

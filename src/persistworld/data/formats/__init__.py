"""Readers for the supported episode layouts, and the function that selects the reader for a folder."""

from pathlib import Path

from persistworld.data.elsewhere import RECORD, follow
from persistworld.data.episodes import EpisodeSource
from persistworld.data.formats.ctrl_world import ProcessedEpisodes
from persistworld.data.formats.keep_ranges import KeptRanges
from persistworld.data.formats.lerobot_v2 import LeRobotEpisodes
from persistworld.data.formats.lerobot_v3 import LeRobotV3Episodes
from persistworld.data.formats.reading import read_mapping
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import user_path


def open_episodes(path: str | Path, keep_ranges: str | Path | None = None) -> EpisodeSource:
    """The reader for the folder `path`, or for the data set that a record in that folder names. The folder's files select the reader.

    keep_ranges: DROID's list of ranges to keep; with it, idle time is left out. Raises UserError when no reader knows the layout, or
    when the recorded data set is missing or has changed.
    """
    given, path = path, user_path(path)
    if (path / RECORD).is_file():
        path, keep_ranges = follow(path)
    source = _reader(path, given)
    return source if keep_ranges is None else KeptRanges(source, user_path(keep_ranges))


def _reader(path: Path, given: str | Path) -> EpisodeSource:
    if (path / "meta" / "info.json").is_file():
        version = str(read_mapping(path / "meta" / "info.json").get("codebase_version"))
        if version.startswith("v2"):
            return LeRobotEpisodes(path)
        if version.startswith("v3"):
            return LeRobotV3Episodes(path)
        raise UserError(f"{path}/meta/info.json: codebase_version is {version}; convert the data to v2.1 or v3.0")
    if (path / "annotation").is_dir():
        return ProcessedEpisodes(path)
    home = f" (~ is your home, {Path.home()})" if str(given).startswith("~") else ""
    raise UserError(
        f"{path}: no episodes here{home} (a LeRobot folder holds meta/info.json, Ctrl-World's processed layout annotation/); "
        "generate or download them"
    )

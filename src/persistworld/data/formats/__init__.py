"""The layouts that episodes are read from, and the function that chooses the reader by looking at a folder."""

from pathlib import Path

from persistworld.data.elsewhere import RECORD, follow
from persistworld.data.episodes import EpisodeSource
from persistworld.data.formats.ctrl_world import ProcessedEpisodes
from persistworld.data.formats.lerobot_v2 import LeRobotEpisodes
from persistworld.data.formats.lerobot_v3 import LeRobotV3Episodes
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json


def open_episodes(path: str | Path) -> EpisodeSource:
    """The reader for the folder `path`, or for the data set that is recorded there, chosen by looking at it.

    Raises UserError when no reader knows the layout, or a recorded data set is not where or what it was.
    """
    path = Path(path)
    if (path / RECORD).is_file():
        path = follow(path)
    if (path / "meta" / "info.json").is_file():
        raw = read_json(path / "meta" / "info.json")
        if not isinstance(raw, dict):
            raise UserError(f"{path}/meta/info.json: not LeRobot's, expected keys with values; is this the data set's own file?")
        version = str(raw.get("codebase_version"))
        if version.startswith("v2"):
            return LeRobotEpisodes(path)
        if version.startswith("v3"):
            return LeRobotV3Episodes(path)
        raise UserError(f"{path}/meta/info.json: codebase_version is {version}; convert the data to v2.1 or v3.0")
    if (path / "annotation").is_dir():
        return ProcessedEpisodes(path)
    raise UserError(
        f"{path}: no episodes here (a LeRobot folder holds meta/info.json, Ctrl-World's processed layout annotation/); "
        "generate or download them"
    )

"""File names of a checkpoint folder, and the pose statistics in its config.json. `folders.py` reads the whole folder."""

from pathlib import Path

from persistworld.config.reading import build_section
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json
from persistworld.world_model.poses import PoseStatistics

WEIGHTS, CONFIG, MANIFEST = "world_model.safetensors", "config.json", "manifest.json"


def checkpoint_statistics(folder: Path) -> PoseStatistics:
    """Read the pose statistics of a checkpoint folder. Raises UserError if its config.json is missing or has none."""
    raw = read_json(folder / CONFIG)
    if not isinstance(raw, dict) or not isinstance(raw.get("pose_statistics"), dict):
        raise UserError(f"{folder / CONFIG}: no pose_statistics; fetch or make the checkpoint again")
    return build_section(PoseStatistics, raw["pose_statistics"], "pose_statistics")

"""Paths of an episode's files in LeRobot v2.1."""

from pathlib import Path

from persistworld.data.formats.lerobot_columns import CHUNK, VIDEO_KEYS

DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
MASK_PATH = "masks/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.npz"


def file_path(root: Path, template: str, index: int, view: str | None = None) -> Path:
    """The path under `root` to which this project writes an episode's file, from one of the path templates above."""
    return place(root, template, index, CHUNK, VIDEO_KEYS[view] if view else None)


def place(root: Path, template: str, index: int, chunk: int, key: str | None = None) -> Path:
    """The path of an episode's file in any data set, with `chunk` episodes per folder and the video key `key`."""
    return root / template.format(episode_chunk=index // chunk, episode_index=index, video_key=key)

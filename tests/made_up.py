"""A made-up data set of any number of views and pose numbers, and a folder beside it in which every stage runs on a tiny random base."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import yaml
from tiny import HISTORY_INDEX, INSTRUCTIONS, SAMPLER, SIZES

from persistworld.checkpoints.folders import save_world_model
from persistworld.cli import main
from persistworld.data.encoding import encode_episodes, join_shard
from persistworld.data.video import write_video
from persistworld.evaluation.perceptual import TABLETOP_FILE
from persistworld.evaluation.segmentation_backbone import SegmentationBackbone
from persistworld.runtime.tensor_files import write_tensors
from persistworld.world_model.autoencoder import Autoencoder, save_autoencoder
from persistworld.world_model.model import WorldModel
from persistworld.world_model.poses import PoseStatistics
from persistworld.world_model.text import InstructionEncoder, train_tokenizer

FRAMES, HEIGHT, WIDTH = 11, 16, 16
ALL_VIEWS = ("exterior_1", "exterior_2", "wrist", "exterior_3")
SPLITS = {"train": (0, 1, 2), "val": (99, 199)}
# section -> keys of params.yaml; the defaults are the paper's
SMALL = {
    "episodes": {"path": "../made_up", "height": HEIGHT, "width": WIDTH},
    "base_checkpoint": {"source": "file", "location": "../base"},
    "latents": {"shards": 2, "posterior": "mean"},
    "compute": {"gpus": 0, "encode_batch": 4, "rollout": {"batch": 2}},
    "rollout": {"chunks": 2, "history_index": list(HISTORY_INDEX), "precision": "float32"},
    "post_training": {
        "steps": 1, "groups": 2, "candidates": 2, "keep": 1, "prefix": [0, 1], "lora": {"rank": 2, "alpha": 2.0}, "precision": "float32",
    },
    "masks": {"source": "none"},
    "metrics": {"lpips": "tabletop"},
    "evaluation": {"models": ["copy_frame", "base", "autoencoder"]},
    "paper": {"bootstrap": 20},
}  # fmt: skip


def write_episodes(folder: Path, views: int, numbers: int) -> None:
    """Ctrl-World's processed layout: five episodes of FRAMES frames; every pose number rises at a rate of its own."""
    rng = np.random.default_rng(views)
    for split, names in SPLITS.items():
        for name in names:
            videos = [{"video_path": f"videos/{split}/{name}/{view}.mp4"} for view in range(views)]
            poses = np.linspace(0, 1, FRAMES)[:, None] * (1 + np.arange(numbers)) + name
            raw = {"texts": [INSTRUCTIONS[name % 2]], "episode_id": name, "video_length": FRAMES, "videos": videos}
            raw["states"] = poses.tolist()
            path = folder / f"annotation/{split}/{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(raw))
            for video in videos:
                (folder / video["video_path"]).parent.mkdir(parents=True, exist_ok=True)
                coarse = rng.integers(0, 255, (FRAMES, HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
                write_video(folder / video["video_path"], coarse.repeat(4, 1).repeat(4, 2), 5.0)


def write_base(folder: Path, views: tuple[str, ...], numbers: int) -> None:
    """A base checkpoint of `conftest`'s sizes with random weights, for poses of `numbers` numbers as they are."""
    torch.manual_seed(0)
    config = dataclasses.replace(SIZES, rotation="euler")
    text = InstructionEncoder(config.text_encoder, train_tokenizer(INSTRUCTIONS, config.text_encoder))
    statistics = PoseStatistics("euler", (0.0,) * numbers, (220.0,) * numbers)
    save_world_model(WorldModel(config, views, statistics, text), folder)
    save_autoencoder(Autoencoder(SIZES.autoencoder), folder)
    write_tensors(SegmentationBackbone().state_dict(), folder / TABLETOP_FILE)


def make_clone(folder: Path, views: int = 3, numbers: int = 7, changes: Mapping[str, dict] | None = None) -> Path:
    """`folder`/clone with a params.yaml, and beside it the data set and the base that this names. `changes`: section -> keys."""
    names, raw = ALL_VIEWS[:views], {"preset": "made_up", "seed": 0}
    write_episodes(folder / "made_up", views, numbers)
    write_base(folder / "base", names, numbers)
    for section in SMALL | (changes or {}):
        raw[section] = SMALL.get(section, {}) | (changes or {}).get(section, {})
    raw["episodes"]["views"] = list(names)
    raw["rollout"]["sampler"] = raw["post_training"]["sampler"] = dataclasses.asdict(SAMPLER)
    clone = folder / "clone"
    clone.mkdir()
    (clone / "params.yaml").write_text(yaml.safe_dump(raw))
    return clone


def stages(*commands: str) -> None:
    """Run stages in the working directory, in this process."""
    for command in commands:
        assert main([*command.split(), "--threads", "1"]) == 0, command


def encode_shard(source, indices, settings, latents, batch, autoencoder, seed: int, path: Path) -> None:
    """A whole shard in one go, as the stages make it of its episodes."""
    parts = path.parent / f"{path.stem}.parts"
    bad = encode_episodes(source, indices, settings, latents, batch, autoencoder, seed, parts, path.stem)
    join_shard(indices, bad, parts, path)
    shutil.rmtree(parts, ignore_errors=True)

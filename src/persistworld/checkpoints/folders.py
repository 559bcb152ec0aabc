"""Checkpoint folders: weights as safetensors, with architecture and provenance as JSON.

A world model's folder holds config.json (architecture, views, pose statistics), world_model.safetensors, tokenizer.json,
autoencoder.{safetensors,json}, and manifest.json. A post-trained folder holds adapter files for its base instead (`adapters.py`).
"""

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights

from persistworld.checkpoints.layout import CONFIG, MANIFEST, WEIGHTS
from persistworld.config.reading import build_section, digest
from persistworld.config.world_model import WorldModelConfig
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, sha256, write_json
from persistworld.runtime.provenance import git_commit
from persistworld.runtime.tensor_files import load_weights, write_tensors
from persistworld.world_model.model import WorldModel
from persistworld.world_model.poses import PoseStatistics
from persistworld.world_model.text import InstructionEncoder, load_tokenizer, save_tokenizer


def save_world_model(model: WorldModel, folder: Path, half: bool = False) -> None:
    """Write config, tokenizer and weights (float16 when `half`) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if model.text_encoder is not None:
        save_tokenizer(model.text_encoder.tokenizer, folder)
    write_tensors(model.state_dict(), folder / WEIGHTS, half)
    write_json(
        folder / CONFIG,
        {
            "world_model": dataclasses.asdict(model.config),
            "views": model.views,
            "pose_statistics": dataclasses.asdict(model.statistics),
        },
    )


def build_world_model(folder: str | Path) -> WorldModel:
    """Build the model that `folder`'s config.json describes, with parameters on the meta device and real buffers.

    Raises UserError if config.json or tokenizer.json is missing or damaged.
    """
    folder = Path(folder)
    raw = read_json(folder / CONFIG)
    try:
        lacking = [key for key in ("world_model", "views", "pose_statistics") if not isinstance(raw, dict) or not raw.get(key)]
        if lacking:
            raise UserError(f"no key {lacking[0]}")
        config = build_section(WorldModelConfig, raw["world_model"], "world_model")
        statistics = build_section(PoseStatistics, raw["pose_statistics"], "pose_statistics")
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: not a world model's ({error}); fetch or make the checkpoint again") from None
    tokenizer = load_tokenizer(folder) if config.use_text else None
    with init_empty_weights(include_buffers=False):
        text_encoder = None if tokenizer is None else InstructionEncoder(config.text_encoder, tokenizer)
        return WorldModel(config, raw["views"], statistics, text_encoder)


def load_base_model(folder: str | Path) -> WorldModel:
    """Load the world model of a base checkpoint in float32 and evaluation mode. Raises UserError for missing files or wrong keys.

    Needs memory for one float32 model plus its largest tensor.
    """
    folder = Path(folder)
    model = build_world_model(folder)
    load_weights(model, folder / WEIGHTS)
    return model.eval().requires_grad_(False)


def write_manifest(folder: Path, sections: Sequence[Any], seed: int, parents: dict[str, Path]) -> None:
    """Write the provenance of a checkpoint: hashes of parameters, parents and files, seed, git commit, and versions of libraries."""
    write_json(
        folder / MANIFEST,
        {
            "params": digest(*sections),
            "seed": seed,
            "parents": {name: sha256(path) for name, path in parents.items()},
            "files": {p.name: sha256(p) for p in sorted(folder.iterdir()) if p.name != MANIFEST and p.is_file()},
            "versions": {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "transformers", "peft")},
            "git_commit": git_commit(),
        },
    )

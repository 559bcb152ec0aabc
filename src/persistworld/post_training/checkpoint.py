"""Post-trained checkpoints: a peft adapter and an action encoder over a named base.

A folder holds adapter_model.safetensors and adapter_config.json (peft's own format, for the U-Net), action_encoder.safetensors, and
manifest.json, whose parents pin the base's bytes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from persistworld.errors import UserError
from persistworld.files import read_json, sha256, write_json
from persistworld.post_training.policy import ADAPTER, lora_config, merge_into
from persistworld.world_model.checkpoint import load_base_model, write_manifest
from persistworld.world_model.layout import MANIFEST, WEIGHTS
from persistworld.world_model.model import WorldModel
from persistworld.world_model.tensor_files import read_tensors, write_tensors

ADAPTER_WEIGHTS, ADAPTER_CONFIG, ACTION_ENCODER = "adapter_model.safetensors", "adapter_config.json", "action_encoder.safetensors"
PEFT_PREFIX = "base_model.model."


def save_adapter(
    weights: dict[str, Tensor],
    base: WorldModel,
    base_folder: Path,
    folder: Path,
    sections: Sequence[Any],
    seed: int,
) -> None:
    """Write trained `weights` (names as in `Policy.theta`) into `folder`. sections: the parameters that made them, post_training first."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter = {
        PEFT_PREFIX + name.removeprefix("unet.").replace(f".{ADAPTER}.weight", ".weight"): tensor
        for name, tensor in weights.items()
        if ".lora_" in name
    }
    write_tensors(adapter, folder / ADAPTER_WEIGHTS)
    config = lora_config(base.unet, sections[0].lora).to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    write_json(folder / ADAPTER_CONFIG, json.loads(json.dumps(config, default=lambda v: getattr(v, "value", str(v)))))
    encoder = {n: t for n, t in weights.items() if n.startswith("action_encoder.")}
    write_tensors(encoder, folder / ACTION_ENCODER)
    write_manifest(folder, sections, seed, {"base": base_folder / WEIGHTS})


def load_world_model(folder: str | Path, base_folder: str | Path | None = None) -> WorldModel:
    """A world model from a base checkpoint's folder, or a post-trained one's with its adapter merged in.

    `base_folder` is where a post-trained model's base lies: `base` beside its own folder by default. Float32,
    evaluation mode. Raises UserError on missing files, wrong keys, or a base other than the one it was trained from.
    """
    folder = Path(folder)
    if not (folder / ADAPTER_WEIGHTS).exists():
        return load_base_model(folder)
    base_folder = Path(base_folder) if base_folder else folder.parent / "base"
    check_base(folder, base_folder)
    model = load_base_model(base_folder)
    merge_into(model, model, *read_adapter(folder))
    return model


def check_base(folder: Path, base_folder: Path) -> None:
    """Raise UserError unless `base_folder` holds the very base that `folder`'s adapter was trained from."""
    if sha256(base_folder / WEIGHTS) != read_json(folder / MANIFEST)["parents"]["base"]:
        weights = base_folder / WEIGHTS
        raise UserError(f"{folder}: was trained from another base than {weights} (sha256 differs); name its own, or train it again")


def read_adapter(folder: Path) -> tuple[dict[str, Tensor], float]:
    """A post-trained checkpoint's weights under a world model's names (LoRA matrices as `<module>.lora_A.weight`), and alpha / rank."""
    config = read_json(folder / ADAPTER_CONFIG)
    adapter = {"unet." + name.removeprefix(PEFT_PREFIX): tensor for name, tensor in read_tensors(folder / ADAPTER_WEIGHTS).items()}
    return adapter | read_tensors(folder / ACTION_ENCODER), config["lora_alpha"] / config["r"]

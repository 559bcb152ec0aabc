"""Post-trained checkpoints: a peft adapter and an action encoder for a specific base.

A folder holds adapter_model.safetensors and adapter_config.json (peft's format, for the U-Net), action_encoder.safetensors, and
manifest.json, which records the sha256 of the base under `parents`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Size, Tensor

from persistworld.checkpoints.folders import load_base_model, write_manifest
from persistworld.checkpoints.layout import MANIFEST, WEIGHTS
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json, sha256, write_json
from persistworld.runtime.tensor_files import read_tensors, require_shapes, write_tensors
from persistworld.world_model.lora import ADAPTER, lora_config, merge_into
from persistworld.world_model.model import WorldModel

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
    """Write trained `weights` (names as in `Policy.theta`) into `folder`. sections: the parameters of the run, post_training first."""
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
    """Load a world model from a base checkpoint, or from a post-trained checkpoint with its adapter merged in.

    base_folder: the folder of a post-trained model's base (default: `base` beside its folder). The model is in float32 and
    evaluation mode. Raises UserError for missing files, wrong keys, or a base that the adapter was not trained from.
    """
    folder = Path(folder)
    if not (folder / ADAPTER_WEIGHTS).exists():
        return load_base_model(folder)
    base_folder = Path(base_folder) if base_folder else folder.parent / "base"
    check_base(folder, base_folder)
    model = load_base_model(base_folder)
    merge_into(model, model, *read_adapter(folder, dict(model.named_parameters())))
    return model


def check_base(folder: Path, base_folder: Path) -> None:
    """Raise UserError unless `base_folder` holds the base that `folder`'s adapter was trained from."""
    if sha256(base_folder / WEIGHTS) != _entries(folder / MANIFEST, "parents")["parents"].get("base"):
        weights = base_folder / WEIGHTS
        raise UserError(f"{folder}: was not trained from {weights} (sha256 differs); name its own base, or train it again")


def read_adapter(folder: Path, origin: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """Read a post-trained checkpoint's weights, with a world model's names (LoRA matrices: `<module>.lora_A.weight`), and alpha / rank.

    Raises UserError unless they are complete and fit `origin`, the base's weights by name: one matrix pair for each module in
    adapter_config.json, and either the whole action encoder or none of it.
    """
    config = _entries(folder / ADAPTER_CONFIG, "r", "lora_alpha", "target_modules")
    adapter = {"unet." + name.removeprefix(PEFT_PREFIX): tensor for name, tensor in read_tensors(folder / ADAPTER_WEIGHTS).items()}
    pairs = {}
    for module in config["target_modules"]:
        if (weight := origin.get(f"unet.{module}.weight")) is None:
            raise UserError(f"{folder / ADAPTER_CONFIG}: adapts {module}, which the base does not have; is this another model's adapter?")
        pairs[f"unet.{module}.lora_A.weight"] = Size((config["r"], *weight.shape[1:]))
        pairs[f"unet.{module}.lora_B.weight"] = Size((weight.shape[0], config["r"], *(1 for _ in weight.shape[2:])))
    require_shapes(folder / ADAPTER_WEIGHTS, _shapes(adapter), pairs)
    encoder = read_tensors(folder / ACTION_ENCODER)
    if encoder:
        own = {name: tensor for name, tensor in origin.items() if name.startswith("action_encoder.")}
        require_shapes(folder / ACTION_ENCODER, _shapes(encoder), _shapes(own))
    return adapter | encoder, config["lora_alpha"] / config["r"]


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _entries(path: Path, *keys: str) -> dict[str, Any]:
    """Read a checkpoint's JSON file. Raises UserError if it is missing, damaged or lacks one of `keys`."""
    found = read_json(path)
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise UserError(f"{path}: no key {key}; make or fetch the checkpoint again")
    return found

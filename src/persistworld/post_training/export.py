"""What leaves the project after post-training: a plain model with the adapter merged in, or the adapter alone with a
model card.
"""

import shutil
from pathlib import Path

from persistworld.errors import UserError
from persistworld.files import atomic_path, read_json
from persistworld.post_training.checkpoint import ACTION_ENCODER, ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_base, read_adapter
from persistworld.post_training.policy import merged_weights
from persistworld.world_model.interchange import flat_tensors
from persistworld.world_model.layout import MANIFEST
from persistworld.world_model.tensor_files import Tensors

CARD = """---
base_model: {base}
library_name: peft
pipeline_tag: image-to-video
tags: [robotics, world-model, lora, persistworld]
---
# {name}

A LoRA adapter for the U-Net of an action-conditioned, multi-view robot world model, with the action encoder that was
trained beside it. It was post-trained on the model's own rollouts (PersistWorld, arXiv 2603.25685, Algorithm 1).

| | |
|---|---|
| Base | `{base}`; sha256 of its world_model.safetensors: `{base_sha256}` |
| Adapter | LoRA, rank {rank}, alpha {alpha}, {modules} modules of the U-Net |
| Seed | {seed} |
| Parameters' hash | `{params}` |
| Code | commit `{commit}`; {versions} |

## Files
{files}

## Use
```python
from persistworld.post_training.checkpoint import load_world_model
model = load_world_model("this folder", base_folder="the base checkpoint's folder")
```
The adapter alone is in peft's format: `PeftModel.from_pretrained(unet, "this folder")` on the base's U-Net. The action
encoder's weights (`{action_encoder}`) replace the base's; one without the other is not the trained model.

## Limits
The adapter fits its base alone: the loader refuses any other by its sha256. What it generates is a prediction, not a
recording of a robot.
"""


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint folder is an adapter over a base rather than a whole model."""
    return (folder / ADAPTER_WEIGHTS).exists()


def merged_tensors(folder: Path, base_folder: Path, image_encoder: bool = True) -> Tensors:
    """Flat tensors of the base with `folder`'s adapter merged in; only the weights that an adapter touches are held
    in memory.

    Raises UserError when the adapter belongs to another base.
    """
    check_base(folder, base_folder)
    return apply_adapter(flat_tensors(base_folder, image_encoder), *read_adapter(folder))


def apply_adapter(tensors: Tensors, adapter: Tensors, scale: float) -> Tensors:
    """`tensors` with `adapter` merged in by `scale`; a negative one takes a merged adapter out again."""
    return dict(tensors) | dict(merged_weights(tensors, adapter, scale))


def export_adapter(folder: Path, output: Path, base_name: str) -> None:
    """Copy the adapter of a post-trained checkpoint into `output`, with a model card (README.md). `base_name`: the
    base, for readers.
    """
    if not is_adapter(folder):
        raise UserError(f"{folder}: has no {ADAPTER_WEIGHTS}; only a post-trained checkpoint has an adapter to export")
    with atomic_path(output) as part:
        part.mkdir()
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, ACTION_ENCODER, MANIFEST):
            shutil.copyfile(folder / name, part / name)
        (part / "README.md").write_text(_card(folder, output.name, base_name))


def _card(folder: Path, name: str, base_name: str) -> str:
    manifest, config = read_json(folder / MANIFEST), read_json(folder / ADAPTER_CONFIG)
    return CARD.format(
        name=name,
        base=base_name,
        base_sha256=manifest["parents"]["base"],
        rank=config["r"],
        alpha=config["lora_alpha"],
        modules=len(config["target_modules"]),
        seed=manifest["seed"],
        params=manifest["params"],
        commit=manifest["git_commit"] or "unknown",
        versions=", ".join(f"{library} {version}" for library, version in manifest["versions"].items()),
        files="\n".join(f"- `{file}`: sha256 `{digest}`" for file, digest in manifest["files"].items()),
        action_encoder=ACTION_ENCODER,
    )

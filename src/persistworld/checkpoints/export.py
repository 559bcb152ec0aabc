"""Exports a post-trained model: as a plain model with the adapter merged in, or as an adapter with a model card."""

import shutil
from pathlib import Path

from persistworld.checkpoints.adapters import ACTION_ENCODER, ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_base, read_adapter
from persistworld.checkpoints.ctrl_world import flat_tensors
from persistworld.checkpoints.hub import known_model
from persistworld.checkpoints.layout import MANIFEST
from persistworld.config.params import Params, control_sections, own_history_sections
from persistworld.config.reading import digest
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, read_json
from persistworld.runtime.tensor_files import Tensors
from persistworld.runtime.workspace import METRICS
from persistworld.world_model.lora import merged_weights

CARD = """---
{base_model}library_name: peft
pipeline_tag: image-to-video
license: other
license_name: that-of-the-base-model
tags: [robotics, world-model, lora, persistworld]
---
# {name}

A LoRA adapter for the U-Net of an action-conditioned, multi-view robot world model, with the action encoder that was
trained with it. {method}

| | |
|---|---|
| Base | {base}; sha256 of its world_model.safetensors: `{base_sha256}` |
| Data | {data} |
| Results | {results} |
| Adapter | LoRA, rank {rank}, alpha {alpha}, {modules} modules of the U-Net |
| Seed | {seed} |
| Parameters' hash | `{params}` |
| Code | commit `{commit}`; {versions} |

Base, data and results are those of the `params.yaml` at the time of export.

## Files
{files}

## Use
```python
from persistworld.checkpoints.adapters import load_world_model
model = load_world_model("this folder", base_folder="the base checkpoint's folder")
```
peft can load the adapter: `PeftModel.from_pretrained(unet, "this folder")` on the base's U-Net. The action encoder's
weights (`{action_encoder}`) replace the base's. The trained model needs both.

## Licence
The adapter was made from the base's weights, so the base's licence applies to it, too. The training episodes have the
terms of their data set. Both are named above, as far as they are known.

## Limits
The adapter fits only its base; the loader checks the base's sha256. The model's frames are predictions, not recordings
of a robot.
"""


TEACHER_FORCED = "It was trained by teacher forcing on recorded windows. It is a control for post-training."
OWN_HISTORY = "It was trained on the model's own rollouts with the recorded frames as target and without a reward. It is a control."
CONTROLS = {"teacher_forced": (TEACHER_FORCED, control_sections), "own_history": (OWN_HISTORY, own_history_sections)}
POST_TRAINED = "It was post-trained on the model's own rollouts (PersistWorld, arXiv 2603.25685, Algorithm 1)."
OTHER_PARAMETERS = "not stated: it was exported with other parameters than it was trained with"


def is_adapter(folder: Path) -> bool:
    """Whether a checkpoint folder holds an adapter instead of a whole model."""
    return (folder / ADAPTER_WEIGHTS).exists()


def merged_tensors(folder: Path, base_folder: Path, image_encoder: bool = True) -> Tensors:
    """Flat tensors of the base with `folder`'s adapter merged in. Only the weights that the adapter changes are held in memory.

    Raises UserError if the adapter belongs to another base.
    """
    check_base(folder, base_folder)
    tensors = flat_tensors(base_folder, image_encoder)
    return apply_adapter(tensors, *read_adapter(folder, tensors))


def apply_adapter(tensors: Tensors, adapter: Tensors, scale: float) -> Tensors:
    """`tensors` with `adapter` merged in with factor `scale`. A negative scale removes a merged adapter."""
    return dict(tensors) | dict(merged_weights(tensors, adapter, scale))


def export_adapter(folder: Path, output: Path, params: Params) -> None:
    """Copy the adapter of a post-trained checkpoint into `output`, with a model card (README.md).

    The card takes base, data set and results from `params` only if the checkpoint was trained with these parameters.
    """
    if not is_adapter(folder):
        raise UserError(f"{folder}: has no {ADAPTER_WEIGHTS}; only a post-trained checkpoint has an adapter to export")
    with atomic_path(output) as part:
        part.mkdir()
        for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, ACTION_ENCODER, MANIFEST):
            shutil.copyfile(folder / name, part / name)
        (part / "README.md").write_text(_card(folder, output.name, params))


def _card(folder: Path, name: str, params: Params) -> str:
    manifest, config = read_json(folder / MANIFEST), read_json(folder / ADAPTER_CONFIG)
    if folder.name in CONTROLS:
        method, sections = CONTROLS[folder.name]
        runs = {digest(*sections(params))}
    else:
        method, runs = POST_TRAINED, {digest(params.for_run(run).post_training) for run in ("post_trained", *params.variants)}
    current = manifest["params"] in runs
    repository = _base_repository(params) if current else None
    return CARD.format(
        name=name,
        method=method,
        base_model=f"base_model: {repository}\nbase_model_relation: adapter\n" if repository else "",
        base=f"`{repository}` at `{params.base_checkpoint.revision}`" if repository else "a checkpoint that is not on the hub",
        data=_data(params) if current else OTHER_PARAMETERS,
        results=_results(folder.name, params) if current else OTHER_PARAMETERS,
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


def _base_repository(params: Params) -> str | None:
    """The hub repository of the base. None for a folder or an archive, whose address may be valid on one machine only."""
    source = params.base_checkpoint
    if source.source != "hf":
        return None
    model = known_model(source.location)
    return model.repository if model else source.location


def _data(params: Params) -> str:
    settings = params.episodes
    if settings.source == "simulate":
        made = f"{settings.count} episodes of a simulated tabletop (PyBullet), made by this code with seed {params.seed}"
    else:
        made = f"the data set in a folder named `{Path(settings.path).name}`"
    views = ", ".join(settings.views)
    return f"the training split of {made}; {settings.height} x {settings.width} pixels a view ({views}), {settings.fps:g} Hz"


def _results(model: str, params: Params) -> str:
    """Where the scores of this checkpoint are. They are not repeated here: a score is meaningless without its protocol."""
    files = [METRICS / f"{model}.json"] if model in params.variants else [METRICS / "table_1.json", METRICS / "table_2.json"]
    found = [file for file in files if file.is_file() and f'"{model}"' in file.read_text()]
    if not found:
        return "there were none at the time of export"
    names = ", ".join(f"`{file}`" for file in found)
    return f"{names} of the run, under `{model}`; scale: {params.paper.scale}, ground truth: {params.evaluation.protocol}"

"""Imports and exports checkpoints through Ctrl-World's flat state dict.

The intermediate form is one flat dictionary of tensors with Ctrl-World's prefixes: `unet. vae. text_encoder.
action_encoder.` and `image_encoder.`. Inference does not use the image encoder: it is checked, kept in a separate file,
and written again on export. Tensors are memory-mapped and written one by one, so that no function needs a whole checkpoint
in memory.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, PreTrainedTokenizerFast

from persistworld.checkpoints.folders import write_manifest
from persistworld.checkpoints.layout import CONFIG, WEIGHTS
from persistworld.config.world_model import WorldModelConfig
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, read_json, write_json
from persistworld.runtime.tensor_files import Tensors, map_tensors, write_safetensors
from persistworld.world_model import autoencoder as ae
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.model import WorldModel
from persistworld.world_model.poses import CTRL_WORLD_STATISTICS as CTRL_WORLD_STATISTICS
from persistworld.world_model.poses import PoseStatistics
from persistworld.world_model.text import InstructionEncoder, load_tokenizer, save_tokenizer

Shapes = dict[str, torch.Size]

IMAGE_ENCODER = "image_encoder.safetensors"
FLAT_TEXT, OUR_TEXT = "text_encoder.", "text_encoder.clip."
IN_AUTOENCODER, IN_IMAGE_ENCODER = "vae.", "image_encoder."
WRAPPERS = ("module.", "_orig_mod.")  # prefixes that DDP and torch.compile add to parameter names
# Names that differ between transformers releases; both directions occur.
DRIFT = (
    ("text_encoder.text_model.", "text_encoder."),
    ("image_encoder.vision_model.", "image_encoder."),
    ("pre_layrnorm", "pre_layernorm"),
)
DROPPED = ("position_ids", "logit_scale")  # a buffer that newer releases do not save; CLIP's training temperature


def flat_shapes(
    config: WorldModelConfig, statistics: PoseStatistics, tokenizer: PreTrainedTokenizerFast | None
) -> Shapes:
    """Flat names and shapes of all inference weights of a model of `config`. Allocates no memory for weights."""
    with torch.device("meta"):
        text = InstructionEncoder(config.text_encoder, tokenizer) if config.use_text and tokenizer is not None else None
        model = WorldModel(config, (), statistics, text)
        autoencoder = Autoencoder(config.autoencoder)
    return {_flat_name(n): t.shape for m in (model, autoencoder) for n, t in m.state_dict().items()}


def image_encoder_shapes(tensors: Tensors) -> Shapes:
    """Flat names and shapes of a CLIP vision model, with sizes inferred from `tensors`. Empty if they hold no image encoder."""
    config = image_encoder_config(tensors)
    if config is None:
        return {}
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(config)
    return {IN_IMAGE_ENCODER + n: t.shape for n, t in model.state_dict().items()}


def reconcile(found: Tensors, wanted: Shapes, origin: str) -> Tensors:
    """Rename the tensors of `found` to the names of `wanted`, in the order of `wanted`.

    Removes prefixes of wrappers and maps names of other transformers releases. Raises one UserError that lists missing keys,
    unexpected keys and wrong shapes.
    """
    bare = {_unwrapped(name): tensor for name, tensor in found.items() if not name.endswith(DROPPED)}
    renamed = {name if name in wanted else _drifted(name, wanted, bare): tensor for name, tensor in bare.items()}
    problems = [
        f"{len(names)} keys {what} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", wanted.keys() - renamed.keys()),
            ("left over", renamed.keys() - wanted.keys()),
            ("of another shape", {n for n in wanted.keys() & renamed.keys() if wanted[n] != renamed[n].shape}),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{origin}: {'; '.join(problems)}; does world_model describe this checkpoint?"
        )
    return {name: renamed[name] for name in wanted}


def import_checkpoint(
    tensors: Tensors,
    config: WorldModelConfig,
    views: Sequence[str],
    statistics: PoseStatistics,
    tokenizer_folder: Path,
    origin: Path,
    output: Path,
) -> None:
    """Write flat `tensors` as a checkpoint folder, with unchanged dtypes. origin: the file or folder of the tensors.

    Raises UserError if they do not fit `config`, or if the tokenizer (`tokenizer.json` in `tokenizer_folder`) is missing.
    """
    if config.use_text and not (tokenizer_folder / "tokenizer.json").exists():
        raise UserError(
            f"{tokenizer_folder}/tokenizer.json: no such file; it comes with CLIP (openai/clip-vit-base-patch32)"
        )
    tokenizer = load_tokenizer(tokenizer_folder) if config.use_text else None
    if not config.use_text:
        tensors = {name: tensor for name, tensor in tensors.items() if not _unwrapped(name).startswith(FLAT_TEXT)}
    wanted = flat_shapes(config, statistics, tokenizer) | image_encoder_shapes(
        {_unwrapped(n): t for n, t in tensors.items()}
    )
    tensors = reconcile(tensors, wanted, str(origin))
    with atomic_path(output) as part:
        part.mkdir()
        groups: dict[str, dict[str, torch.Tensor]] = {WEIGHTS: {}, ae.WEIGHTS: {}, IMAGE_ENCODER: {}}
        for name, tensor in tensors.items():
            groups[_file_of(name)][_our_name(name)] = tensor
        for file, group in groups.items():
            if group:
                write_safetensors(group, part / file)
        write_json(part / ae.CONFIG, dataclasses.asdict(config.autoencoder))
        parts = {
            "world_model": dataclasses.asdict(config),
            "views": list(views),
            "pose_statistics": dataclasses.asdict(statistics),
        }
        write_json(part / CONFIG, parts)
        if tokenizer is not None:
            save_tokenizer(tokenizer, part)
        parents = {"imported": origin} if origin.is_file() else {}
        write_manifest(part, [config], 0, parents | ({} if tokenizer is None else {"tokenizer": tokenizer_folder / "tokenizer.json"}))


def flat_tensors(folder: Path, image_encoder: bool = True) -> Tensors:
    """The tensors of a checkpoint folder with flat names. With `image_encoder`, includes the image encoder if the folder has one."""
    files = [WEIGHTS, ae.WEIGHTS, *([IMAGE_ENCODER] if image_encoder and (folder / IMAGE_ENCODER).exists() else [])]
    return {_flat_name(name): tensor for file in files for name, tensor in map_tensors(folder / file).items()}


def read_statistics(path: Path) -> PoseStatistics:
    """Read Ctrl-World's stat.json: `state_01` and `state_99`, one number per pose dimension (DROID: x y z, Euler xyz, gripper)."""
    raw = read_json(path)
    try:
        low, high = (tuple(float(v) for v in raw[key]) for key in ("state_01", "state_99"))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: expected the lists state_01 and state_99, as in Ctrl-World's stat.json") from None
    if not len(low) == len(high) > 0:
        raise UserError(
            f"{path}: state_01 and state_99 have {len(low)} and {len(high)} numbers; as many are expected in both"
        )
    return PoseStatistics("euler", low, high)


def _flat_name(name: str) -> str:
    return FLAT_TEXT + name.removeprefix(OUR_TEXT) if name.startswith(OUR_TEXT) else name


def _our_name(name: str) -> str:
    return OUR_TEXT + name.removeprefix(FLAT_TEXT) if name.startswith(FLAT_TEXT) else name


def _file_of(name: str) -> str:
    return {IN_AUTOENCODER: ae.WEIGHTS, IN_IMAGE_ENCODER: IMAGE_ENCODER}.get(name.partition(".")[0] + ".", WEIGHTS)


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _drifted(name: str, wanted: Shapes, found: Tensors) -> str:
    """The name in `wanted` that corresponds to `name` in another transformers release, or `name` if there is none."""
    candidates = {name}
    for one, other in DRIFT:
        candidates |= {c.replace(one, other, 1) for c in candidates} | {c.replace(other, one, 1) for c in candidates}
    return next((c for c in sorted(candidates) if c in wanted and c not in found), name)


def image_encoder_config(tensors: Tensors) -> CLIPVisionConfig | None:
    """Configuration of the image encoder in flat `tensors`, inferred from their shapes. None if they hold no image encoder."""
    shapes = {
        n.removeprefix(IN_IMAGE_ENCODER).removeprefix("vision_model."): t.shape
        for n, t in tensors.items()
        if n.startswith(IN_IMAGE_ENCODER)
    }
    if not shapes:
        return None
    try:
        width, _, patch, _ = shapes["embeddings.patch_embedding.weight"]
        cells = shapes["embeddings.position_embedding.weight"][0] - 1
        inner = shapes["encoder.layers.0.mlp.fc1.weight"][0]
        projection = shapes["visual_projection.weight"][0]
    except KeyError as error:
        raise UserError(f"image_encoder: key {error} is missing; leave all of image_encoder. out, or none") from None
    layers = 1 + max(int(n.split(".")[2]) for n in shapes if n.startswith("encoder.layers."))
    head = 80 if width % 80 == 0 else width  # SVD's ViT-H has 80 channels per head; shapes do not show the number of heads
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=inner,
        projection_dim=projection,
        num_hidden_layers=layers,
        num_attention_heads=width // head,
        patch_size=patch,
        image_size=patch * round(cells**0.5),
        hidden_act="gelu",
    )

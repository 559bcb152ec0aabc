"""Fetch the base checkpoint, and convert a published flat .pt into a checkpoint folder."""

import argparse
import dataclasses
import shutil
from pathlib import Path

from persistworld.checkpoints.hub import KNOWN, PARTS, RECORDS, TOKENIZER, HubModel, fetch, fetch_model, fetched_model, known_model
from persistworld.checkpoints.layout import CONFIG, MANIFEST, WEIGHTS
from persistworld.config.checks import require
from persistworld.config.data import BaseCheckpointConfig
from persistworld.config.params import Params
from persistworld.config.reading import build_section, nearest
from persistworld.config.world_model import WorldModelConfig
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, read_json, sha256, user_path, write_json
from persistworld.runtime.workspace import BASE, CHECKPOINTS

OPTIONS = {"--name": {"default": "base", "help": "base, or VARIANT_base where a variant has its own (default: %(default)s)"}}

CTRL_WORLD_VIEWS = 3  # views that Ctrl-World and PersistWorld were trained on, stacked
TOKENIZER_FILE, TEXT = "tokenizer.json", "text_encoder."  # the file and the prefix of the weights that a checkpoint without text lacks
# Sizes that params.yaml can state, by section. The autoencoder's scaling factor is not among them: it is measured in training.
SIZES = {
    "unet": ("channels", "heads", "layers", "cross_attention_dim", "addition_time_embed_dim"),
    "autoencoder": ("patch", "latent_channels", "channels", "layers"),
    "text_encoder": ("hidden", "layers", "heads", "projection", "vocabulary", "length"),
}
IMPORT = (
    "fetch both (`persistworld fetch svd --output FOLDER`, `persistworld fetch clip --output FOLDER`), make a checkpoint folder of "
    "them with `persistworld import-checkpoint SVD --clip CLIP --output FOLDER`, and train it: base_training.start_from takes it"
)


def main(params: Params, args: argparse.Namespace) -> None:
    """Write checkpoints/base/, or with --name a variant's own base checkpoint.

    Digests of downloads are recorded in checkpoints/fetched/ and checked on every later download.
    """
    target, variants = CHECKPOINTS / args.name, params.all_models.bases
    if target != BASE:
        require(args.name in variants, "--name", args.name, f"no base checkpoint of a variant; {nearest(args.name, ['base', *variants])}")
        params = params.for_run(variants[args.name])
    source, fetched, tokenizer = params.base_checkpoint, RECORDS / target.name, RECORDS / f"{target.name}_tokenizer"
    model = _known(source)
    if model in [KNOWN[name] for name in PARTS]:
        raise UserError(f"base_checkpoint.location = {source.location}: is a part of a world model, not one; {IMPORT}")
    try:
        fetch(source, fetched)
        if list(fetched.glob("*.pt")) or not (fetched / CONFIG).exists():
            _import(params, model, fetched, tokenizer, target)
        else:
            given = _check_config(params, fetched)
            if given.use_text and not params.world_model.use_text:
                _leave_out_text(given, fetched, target)
            else:
                if target.exists():
                    shutil.rmtree(target)
                fetched.rename(target)
    finally:
        for folder in (fetched, tokenizer):
            shutil.rmtree(folder, ignore_errors=True)
    if target != BASE:
        _check_autoencoder(variants[args.name], target)
    print(f"base checkpoint: {source.location} -> {target}")


def _check_autoencoder(variant: str, target: Path) -> None:
    """Require that a variant's base has the same autoencoder as the base, since all models share the latents. Else `target` is removed."""
    # Imported here to keep the stage light, see _import.
    from persistworld.world_model import autoencoder

    for name in (autoencoder.WEIGHTS, autoencoder.CONFIG):
        if sha256(target / name) != sha256(BASE / name):
            shutil.rmtree(target)
            raise UserError(
                f"variants.{variant}.base_checkpoint: its {name} differs from that of {BASE}, whose latents all models share; "
                "name a base with the same autoencoder, or compare the two in parameter files of their own"
            )


def _known(source: BaseCheckpointConfig) -> HubModel | None:
    """The published model that `source` names, also as a folder made by `persistworld fetch`. None for any other."""
    return fetched_model(user_path(source.location)) if source.source == "file" else known_model(source.location)


def _check_config(params: Params, fetched: Path) -> WorldModelConfig:
    """The world model's configuration in the fetched config.json.

    Raises UserError if the file describes no world model (diffusers and transformers also write files of that name), or if it
    contradicts `world_model` or `episodes.views`. The number of views must match. Their names may differ, since each robot names its
    cameras; but the same names in another order are refused, because the network would see the views in the wrong places.
    """
    location, config = params.base_checkpoint.location, read_json(fetched / CONFIG)
    if not isinstance(config, dict) or "world_model" not in config:
        raise UserError(
            f"base_checkpoint.location = {location}: its {CONFIG} lacks the key world_model of a world model. If it is CLIP's, {IMPORT}"
        )
    views, trained = params.episodes.views, tuple(config.get("views") or params.episodes.views)
    _check_views(params, len(trained))
    reordered = set(views) == set(trained) and views != trained
    advice = f"the checkpoint {location} stacks them as {', '.join(trained)}: keep its order"
    require(not reordered, "episodes.views", ", ".join(views), advice)
    try:
        given = build_section(WorldModelConfig, config["world_model"], "world_model")
    except UserError as error:
        raise UserError(f"base_checkpoint.location = {location}: its {CONFIG} is damaged ({error}); fetch or make it again") from None
    _check_world_model(params.world_model, given, location)
    given.check_frames(params.episodes.height, params.episodes.width, len(views))
    return given


def _check_world_model(wanted: WorldModelConfig, given: WorldModelConfig, location: str) -> None:
    """Raise UserError if parameters contradict the checkpoint. Outside `base_training` only the checkpoint's values have an effect.

    Sizes are compared only if they differ from the defaults, since most parameter files leave them to the checkpoint.
    `use_text: false` is no contradiction: it drops the text encoder.
    """
    advice = f"that of the checkpoint {location} is {{}}: write that, or name another base_checkpoint"
    for key in ("history", "future", "rotation"):
        value, theirs = getattr(wanted, key), getattr(given, key)
        require(value == theirs, f"world_model.{key}", value, advice.format(theirs))
    no_text = wanted.use_text and not given.use_text
    require(not no_text, "world_model.use_text", wanted.use_text, f"the checkpoint {location} takes no text: write false")
    default = WorldModelConfig()
    for section, keys in SIZES.items():
        for key in keys if section != "text_encoder" or wanted.use_text else ():
            value, usual, theirs = (getattr(getattr(model, section), key) for model in (wanted, default, given))
            require(value in (usual, theirs), f"world_model.{section}.{key}", value, advice.format(theirs))


def _leave_out_text(given: WorldModelConfig, fetched: Path, target: Path) -> None:
    """Write the fetched checkpoint to `target` without its text encoder. Its action encoder then adds no text to the poses."""
    # Imported here to keep the stage light, see _import.
    from persistworld.checkpoints.folders import write_manifest
    from persistworld.runtime.tensor_files import map_tensors, write_safetensors

    with atomic_path(target) as part:
        shutil.copytree(fetched, part, ignore=shutil.ignore_patterns(WEIGHTS, TOKENIZER_FILE, MANIFEST))
        tensors = map_tensors(fetched / WEIGHTS)
        write_safetensors({name: tensor for name, tensor in tensors.items() if not name.startswith(TEXT)}, part / WEIGHTS)
        config = dataclasses.replace(given, use_text=False)
        write_json(part / CONFIG, read_json(fetched / CONFIG) | {"world_model": dataclasses.asdict(config)})
        write_manifest(part, [config], 0, {"with_text": fetched / WEIGHTS})


def _check_views(params: Params, trained: int) -> None:
    views = params.episodes.views
    if len(views) != trained:
        raise UserError(
            f"episodes.views = {', '.join(views)}: the checkpoint {params.base_checkpoint.location} was trained on {trained} views, "
            f"not {len(views)}; name as many, or train a base model on these (base_training)"
        )


def _import(params: Params, model: HubModel | None, fetched: Path, tokenizer_folder: Path, target: Path) -> None:
    # Imported here: a checkpoint folder that is only moved into place does not need torch and the model libraries.
    from persistworld.checkpoints.ctrl_world import CTRL_WORLD_STATISTICS, import_checkpoint, read_statistics
    from persistworld.runtime.tensor_files import map_tensors

    location, flat = params.base_checkpoint.location, sorted(fetched.glob("*.pt"))
    if (fetched / "unet" / CONFIG).exists():
        raise UserError(f"base_checkpoint.location = {location}: is SVD's folder, a part of a world model, not one; {IMPORT}")
    if len(flat) != 1:
        found = ", ".join(p.name for p in flat) or "none"
        raise UserError(
            f"base_checkpoint.location = {location}: expected {CONFIG}, or one .pt file; .pt files found: {found}"
        )
    if model is not None:
        _check_views(params, CTRL_WORLD_VIEWS)
    if (fetched / "stat.json").exists():
        statistics = read_statistics(fetched / "stat.json")
    elif model is not None:
        statistics = CTRL_WORLD_STATISTICS
    else:
        raise UserError(f"base_checkpoint.location = {location}: put the stat.json of its poses beside {flat[0].name}")
    tokenizer = fetched
    if params.world_model.use_text and not (fetched / TOKENIZER_FILE).exists():
        tokenizer = _tokenizer(flat[0].name, tokenizer_folder)
    import_checkpoint(
        map_tensors(flat[0]), params.world_model, params.episodes.views, statistics, tokenizer, flat[0], target
    )


def _tokenizer(flat: str, folder: Path) -> Path:
    """A folder with CLIP's tokenizer.json, which a flat checkpoint does not contain."""
    try:
        fetch_model(TOKENIZER, folder)
    except UserError as error:
        raise UserError(f"{error}; or put CLIP's tokenizer.json (`persistworld fetch clip`) beside {flat}") from None
    return folder

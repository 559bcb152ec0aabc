"""Stage base_checkpoint: fetch the base checkpoint; one that others publish (a flat .pt) is turned into a checkpoint
folder.
"""

import argparse
import shutil
from pathlib import Path

from persistworld.errors import UserError
from persistworld.files import read_json
from persistworld.params import BaseCheckpoint, Params
from persistworld.world_model.fetch import KNOWN, PARTS, RECORDS, TOKENIZER, HubModel, fetch, fetch_model, fetched_model, known_model
from persistworld.world_model.layout import CONFIG

OUTPUT, FETCHED, FETCHED_TOKENIZER = Path("checkpoints/base"), RECORDS / "base", RECORDS / "tokenizer"
CTRL_WORLD_VIEWS = 3  # what Ctrl-World and PersistWorld were trained on, stacked
IMPORT = (
    "fetch both (`persistworld fetch svd --output FOLDER`, `persistworld fetch clip --output FOLDER`), make a checkpoint folder of "
    "them with `persistworld import-checkpoint SVD --clip CLIP --output FOLDER`, and train it: base_training.start_from takes it"
)


def main(params: Params, args: argparse.Namespace) -> None:
    """Write checkpoints/base/. Digests of downloads are recorded in checkpoints/fetched/ and enforced from then on."""
    source = params.base_checkpoint
    model = _known(source)
    if model in [KNOWN[name] for name in PARTS]:
        raise UserError(f"base_checkpoint.location = {source.location}: is a part of a world model, not one; {IMPORT}")
    try:
        fetch(source, FETCHED)
        if list(FETCHED.glob("*.pt")) or not (FETCHED / CONFIG).exists():
            _import(params, model)
        else:
            _check_config(params)
            if OUTPUT.exists():
                shutil.rmtree(OUTPUT)
            FETCHED.rename(OUTPUT)
    finally:
        for folder in (FETCHED, FETCHED_TOKENIZER):
            shutil.rmtree(folder, ignore_errors=True)
    print(f"base checkpoint: {source.location} -> {OUTPUT}")


def _known(source: BaseCheckpoint) -> HubModel | None:
    """Which of the published models `source` is, also when `persistworld fetch` made the folder that it names."""
    return fetched_model(Path(source.location)) if source.source == "file" else known_model(source.location)


def _check_config(params: Params) -> None:
    """The config.json that was fetched is a world model's (diffusers and transformers write files of that name, too), and
    its views are as many as `episodes.views`. How these are called is not held against it: a robot's cameras have names of
    their own, while the number of rows that the network sees is what it was trained for.
    """
    location, config = params.base_checkpoint.location, read_json(FETCHED / CONFIG)
    if not isinstance(config, dict) or "world_model" not in config:
        raise UserError(
            f"base_checkpoint.location = {location}: its {CONFIG} is no world model's, it has no key world_model. If it is CLIP's, {IMPORT}"
        )
    _check_views(params, len(config.get("views") or params.episodes.views))


def _check_views(params: Params, trained: int) -> None:
    views = params.episodes.views
    if len(views) != trained:
        raise UserError(
            f"episodes.views = {', '.join(views)}: the checkpoint {params.base_checkpoint.location} was trained on {trained} views, "
            f"not {len(views)}; name as many, or train a base model on these (base_training)"
        )


def _import(params: Params, model: HubModel | None) -> None:
    # Imported here: a checkpoint folder is only put in place, without the libraries that models are made of.
    from persistworld.world_model.interchange import CTRL_WORLD_STATISTICS, import_checkpoint, read_statistics
    from persistworld.world_model.tensor_files import map_tensors

    location, flat = params.base_checkpoint.location, sorted(FETCHED.glob("*.pt"))
    if (FETCHED / "unet" / CONFIG).exists():
        raise UserError(f"base_checkpoint.location = {location}: is SVD's folder, a part of a world model, not one; {IMPORT}")
    if len(flat) != 1:
        found = ", ".join(p.name for p in flat) or "none"
        raise UserError(
            f"base_checkpoint.location = {location}: expected {CONFIG}, or one .pt file; .pt files found: {found}"
        )
    if model is not None:
        _check_views(params, CTRL_WORLD_VIEWS)
    if (FETCHED / "stat.json").exists():
        statistics = read_statistics(FETCHED / "stat.json")
    elif model is not None:
        statistics = CTRL_WORLD_STATISTICS
    else:
        raise UserError(f"base_checkpoint.location = {location}: put the stat.json of its poses beside {flat[0].name}")
    tokenizer = FETCHED
    if params.world_model.use_text and not (FETCHED / "tokenizer.json").exists():
        tokenizer = _tokenizer(flat[0].name)
    import_checkpoint(
        map_tensors(flat[0]), params.world_model, params.episodes.views, statistics, tokenizer, flat[0], OUTPUT
    )


def _tokenizer(flat: str) -> Path:
    """A folder with CLIP's tokenizer.json, which does not come with a flat checkpoint."""
    try:
        fetch_model(TOKENIZER, FETCHED_TOKENIZER)
    except UserError as error:
        raise UserError(f"{error}; or put CLIP's tokenizer.json (`persistworld fetch clip`) beside {flat}") from None
    return FETCHED_TOKENIZER

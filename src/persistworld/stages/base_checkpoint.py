"""Stage base_checkpoint: fetch the base checkpoint; one that others publish (a flat .pt) is turned into a checkpoint
folder.
"""

import argparse
import shutil
from pathlib import Path

from persistworld.errors import UserError
from persistworld.params import Params
from persistworld.world_model.fetch import TOKENIZER, fetch, hub_snapshot, known_model
from persistworld.world_model.layout import CONFIG

OUTPUT, FETCHED = Path("checkpoints/base"), Path("checkpoints/fetched/base")


def main(params: Params, args: argparse.Namespace) -> None:
    """Write checkpoints/base/. Digests of downloads are recorded in checkpoints/fetched/ and enforced from then on."""
    source = params.base_checkpoint
    fetch(source, FETCHED)
    if (FETCHED / CONFIG).exists() and not list(FETCHED.glob("*.pt")):
        if OUTPUT.exists():
            shutil.rmtree(OUTPUT)
        FETCHED.rename(OUTPUT)
    else:
        _import(params, source.location)
        shutil.rmtree(FETCHED)
    print(f"base checkpoint: {source.location} -> {OUTPUT}")


def _import(params: Params, location: str) -> None:
    # Imported here: a checkpoint folder is only put in place, without the libraries that models are made of.
    from persistworld.world_model.interchange import CTRL_WORLD_STATISTICS, import_checkpoint, read_statistics
    from persistworld.world_model.tensor_files import map_tensors

    flat = sorted(FETCHED.glob("*.pt"))
    if len(flat) != 1:
        found = ", ".join(p.name for p in flat) or "none"
        raise UserError(
            f"base_checkpoint.location = {location}: expected {CONFIG}, or one .pt file; .pt files found: {found}"
        )
    model = known_model(location)
    if (FETCHED / "stat.json").exists():
        statistics = read_statistics(FETCHED / "stat.json")
    elif model is not None:
        statistics = CTRL_WORLD_STATISTICS
    else:
        raise UserError(f"base_checkpoint.location = {location}: put the stat.json of its poses beside {flat[0].name}")
    # A folder without the tokenizer gets CLIP's from the hub; offline, put CLIP's tokenizer.json beside the .pt.
    tokenizer = FETCHED
    if params.world_model.use_text and not (FETCHED / "tokenizer.json").exists():
        tokenizer = hub_snapshot(TOKENIZER.repository, TOKENIZER.revision)
    import_checkpoint(
        map_tensors(flat[0]), params.world_model, params.episodes.views, statistics, tokenizer, flat[0], OUTPUT
    )

"""Make a checkpoint folder from a published model.

`source` is one of two things. Neither contains the tokenizer or the pose statistics. `persistworld fetch` downloads all of them.
- A flat state dict as Ctrl-World and PersistWorld publish it: .pt, or the same names in .safetensors. Sizes come from `world_model` in
  params.yaml.
- SVD's folder. `--clip` then names CLIP's folder. Sizes come from the folders.
"""

import argparse
from pathlib import Path

from persistworld.checkpoints.ctrl_world import (
    CTRL_WORLD_STATISTICS,
    import_checkpoint,
    read_statistics,
)
from persistworld.checkpoints.diffusers import read_folders
from persistworld.config.params import Params
from persistworld.runtime.errors import UserError
from persistworld.runtime.tensor_files import map_tensors

OPTIONS = {
    "source": {"help": "a flat .pt or .safetensors as Ctrl-World publishes it, or SVD's folder"},
    "--clip": {"required": True, "metavar": "FOLDER", "help": "CLIP's tokenizer.json (and weights, for SVD)"},
    "--statistics": {"metavar": "FILE", "help": "stat.json of its poses (default: Ctrl-World's)"},
    "--output": {"required": True, "metavar": "FOLDER"},
}

SVD_CONFIGS = ("unet/config.json", "vae/config.json")


def main(params: Params, args: argparse.Namespace) -> None:
    """args: source, clip, statistics (None: Ctrl-World's), output."""
    source, clip = Path(args.source), Path(args.clip)
    if not clip.is_dir():
        raise UserError(
            f"{clip}: no such folder; --clip names the folder with CLIP's tokenizer.json (and weights, for SVD)"
        )
    statistics = read_statistics(Path(args.statistics)) if args.statistics else CTRL_WORLD_STATISTICS
    if source.is_dir():
        _check_is_svd(source)
        tensors, config = read_folders(source, clip, statistics, params.seed)
    else:
        tensors, config = map_tensors(source), params.world_model
    import_checkpoint(tensors, config, params.episodes.views, statistics, clip, source, Path(args.output))
    print(f"imported {source}: {len(tensors):,} tensors -> {args.output}")


def _check_is_svd(folder: Path) -> None:
    missing = [name for name in SVD_CONFIGS if not (folder / name).is_file()]
    if not missing:
        return
    flat = sorted(path.name for path in folder.iterdir() if path.suffix in (".pt", ".safetensors"))
    advice = f"to import a flat checkpoint name the file, e.g. {folder / flat[0]}" if flat else "`persistworld fetch svd` downloads it"
    raise UserError(f"{folder}: is not SVD's folder: no {missing[0]} in it; {advice}")

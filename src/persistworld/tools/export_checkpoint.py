"""Export a checkpoint folder to a format that other libraries read.

`flat` is the .pt of the reference code (a post-trained model's adapter is merged). `folders` is the layout of diffusers and transformers.
`adapter` is peft's format with a model card.
"""

import argparse
from pathlib import Path

from persistworld.checkpoints.ctrl_world import flat_tensors
from persistworld.checkpoints.diffusers import export_folders
from persistworld.checkpoints.export import export_adapter, is_adapter, merged_tensors
from persistworld.checkpoints.layout import CONFIG
from persistworld.config.params import Params
from persistworld.config.reading import build_section
from persistworld.config.world_model import WorldModelConfig
from persistworld.runtime.files import read_json
from persistworld.runtime.tensor_files import write_pickle

OPTIONS = {
    "checkpoint": {"help": "a folder in checkpoints/"},
    "--format": {"choices": ["flat", "folders", "adapter"], "default": "flat"},
    "--base": {"default": "checkpoints/base", "metavar": "FOLDER", "help": "(default: %(default)s)"},
    "--output": {"required": True, "metavar": "PATH"},
    "--no-image-encoder": {"action": "store_true", "help": "leave out SVD's image encoder, which is not used"},
}


def main(params: Params, args: argparse.Namespace) -> None:
    """args: checkpoint, format (flat | folders | adapter), base, output, no_image_encoder."""
    folder, output = Path(args.checkpoint), Path(args.output)
    base = Path(args.base) if is_adapter(folder) else folder
    if args.format == "adapter":
        export_adapter(folder, output, params)
    else:
        keep = not args.no_image_encoder
        tensors = merged_tensors(folder, base, keep) if is_adapter(folder) else flat_tensors(folder, keep)
        if args.format == "flat":
            write_pickle(tensors, output)
        else:
            config = build_section(WorldModelConfig, read_json(base / CONFIG)["world_model"], "world_model")
            export_folders(tensors, config, base, output)
    print(f"exported {folder} as {args.format}: {output}")

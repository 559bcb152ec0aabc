"""Download SVD, CLIP, Ctrl-World or PersistWorld at a pinned commit.

`import_checkpoint` makes an untrained world model from SVD and CLIP. The folders of Ctrl-World and PersistWorld can be used as base
checkpoints (`base_checkpoint: {source: file, location: FOLDER}`), for example on a machine that is offline.
"""

import argparse
import dataclasses
from pathlib import Path

from persistworld.checkpoints.hub import KNOWN, PARTS, RECORD, fetch_model
from persistworld.config.params import Params
from persistworld.runtime.errors import UserError

OPTIONS = {
    "name": {"choices": ["svd", "clip", "ctrl-world", "persistworld"]},
    "--output": {"required": True, "metavar": "FOLDER"},
    "--revision": {"metavar": "COMMIT", "help": "(default: the one on record; PersistWorld has none)"},
}


def main(params: Params, args: argparse.Namespace) -> None:
    """args: name (in KNOWN), output, revision (None: the pinned one).

    Digests are recorded in checkpoints/fetched/ and checked, as in the stage base_checkpoint.
    """
    output, model = Path(args.output), KNOWN[args.name]
    if output.is_file() or (output.is_dir() and any(output.iterdir()) and not (output / RECORD).is_file()):
        raise UserError(f"--output {output}: holds something else, which would be replaced; name a new folder")
    model = dataclasses.replace(model, revision=args.revision or model.revision)
    fetch_model(model, output)
    print(f"{model.repository} at {model.revision}: {', '.join(model.files)} -> {output}")
    if args.name in PARTS:
        print("next: persistworld import-checkpoint SVD --clip CLIP --output FOLDER")
    else:
        print(f"next: base_checkpoint: {{source: file, location: {output}}}; offline, with CLIP's tokenizer.json beside the .pt")

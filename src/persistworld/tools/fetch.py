"""Tool fetch: download what the paper's setting is made of, at pinned commits, into a folder of its own.

SVD and CLIP are what `import_checkpoint` makes an untrained world model from; Ctrl-World's and PersistWorld's folders are
base checkpoints (`base_checkpoint: {source: file, location: FOLDER}`), for a machine that is offline, say.
"""

import argparse
import dataclasses
from pathlib import Path

from persistworld.checkpoints.hub import KNOWN, PARTS, RECORD, fetch_model
from persistworld.config.params import Params
from persistworld.runtime.errors import UserError


def main(params: Params, args: argparse.Namespace) -> None:
    """args: name (of KNOWN), output, revision (None: the pinned one). Digests are recorded and enforced as the stage
    base_checkpoint does, in checkpoints/fetched/.
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

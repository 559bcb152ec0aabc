"""`persistworld defaults`: every parameter with its default, as YAML on standard output.

`workflow/defaults.yaml` is this output, in git, so that DVC sees a default that changes in `persistworld.config.params` as it sees a
key that changes in params.yaml. Snakemake's rules need no such file: their `params:` hold the sections with defaults filled in.
"""

import argparse
import json
from dataclasses import asdict

import yaml

from persistworld.config.params import Params

HEADER = "# Every parameter with its default; params.yaml overrides. Written by: persistworld defaults > workflow/defaults.yaml\n"


def main(params: Params, args: argparse.Namespace) -> None:
    """Print the defaults; neither `params` nor `args` matters."""
    plain = json.loads(json.dumps(asdict(Params())))  # tuples to lists
    print(HEADER + yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=120), end="")

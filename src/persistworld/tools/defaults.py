"""Print every parameter with its default, as YAML."""

import argparse
import json
from dataclasses import asdict

import yaml

from persistworld.config.params import Params


def main(params: Params, args: argparse.Namespace) -> None:
    """Print the defaults. `params` and `args` are ignored."""
    plain = json.loads(json.dumps(asdict(Params())))  # tuples to lists
    print(yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=120), end="")

"""Print which weights' gradients agree across episodes, to choose lora.exclude.

The output is a Markdown table. Weights whose gradients disagree are candidates for `post_training.lora.exclude`. The tool needs the inputs
of the stage post_training. It is not a stage of the workflow, since a person reads its output.
"""

import argparse

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.post_training.agreement import agreements, joined
from persistworld.post_training.materials import load_materials

OPTIONS = {
    "--groups": {"type": "int", "default": 64, "metavar": "N", "help": "of candidates, of different episodes (default: %(default)s)"},
    "--depth": {"type": "int", "default": 5, "metavar": "N", "help": "parts of a name that make a row (default: %(default)s)"},
}


def main(params: Params, args: argparse.Namespace) -> None:
    base, reward_model, data = load_materials(params)
    several = len({entry.index for entry in data.episodes}) > 1
    advice = "different episodes' gradients are compared: choose 2 or more, and have 2 or more training episodes"
    require(args.groups > 1 and several, "--groups", args.groups, advice)
    sample_batch = params.compute.post_training.sample_batch
    found = agreements(base, reward_model, data, params.post_training, params.rollout, params.seed, args.groups, sample_batch)
    print("| weights | what episodes have in common | share of the gradient | number |\n|---|---|---|---|")
    whole = sum(each.squared for each in found)
    for part in joined(found, args.depth):
        print(f"| `{part.name}` | {part.share:.4f} | {part.squared / whole:.1%} | {part.weights:,} |")

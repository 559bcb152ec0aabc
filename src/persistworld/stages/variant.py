"""Write the metrics of one variant."""

import argparse

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import nearest
from persistworld.evaluation.score_table import load_scores
from persistworld.paper.notes import settings_of
from persistworld.paper.tables import variant_json, variant_rivals
from persistworld.runtime.files import write_json
from persistworld.runtime.workspace import METRICS, SCORES

OPTIONS = {"--model": {"required": True, "help": "a name in variants"}}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/metrics/MODEL.json from the scores of the variant, the base and the controls."""
    require(args.model in params.variants, "--model", args.model, f"no such variant; {nearest(args.model, params.variants)}")
    models = (*variant_rivals(params.models.names, params.models), args.model)
    scores = load_scores([SCORES / f"{model}.parquet" for model in models], models)
    write_json(METRICS / f"{args.model}.json", variant_json(scores, settings_of(params), args.model))

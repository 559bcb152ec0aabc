"""Compare one model with the base, the controls and post_trained."""

import argparse

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import nearest
from persistworld.evaluation.score_table import load_scores
from persistworld.paper.notes import settings_of
from persistworld.paper.tables import model_json
from persistworld.runtime.files import write_json
from persistworld.runtime.workspace import METRICS, SCORES

OPTIONS = {"--model": {"required": True, "help": "own_history, or a name in variants"}}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/metrics/MODEL.json from the scores of the model and of its rivals, as far as evaluation.models names them."""
    known = params.models.rolled_out(params.models.names)
    require(args.model in known, "--model", args.model, f"no model with a checkpoint; {nearest(args.model, known)}")
    models = (*params.models.rivals(args.model, params.evaluation.models), args.model)
    scores = load_scores([SCORES / f"{model}.parquet" for model in models], models)
    write_json(METRICS / f"{args.model}.json", model_json(scores, settings_of(params), args.model))

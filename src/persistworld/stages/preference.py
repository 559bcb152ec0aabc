"""Draw Figure 6: the preferences of people (if they voted) and of automatic judges."""

import argparse

from persistworld.config.models import OURS, THEIRS
from persistworld.config.params import Params
from persistworld.evaluation.score_table import load_scores
from persistworld.evaluation.votes import read_votes
from persistworld.paper.figure_6 import figure_6, preference_numbers
from persistworld.paper.notes import settings_of
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import write_json
from persistworld.runtime.workspace import FIGURES, METRICS, SCORES, VOTES


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/figures/figure_6.{png,pdf} and results/metrics/preference.json."""
    models = (OURS, THEIRS)
    params.evaluation.require_models(models, "Figure 6 and its judges")
    scores = load_scores([SCORES / f"{model}.parquet" for model in models], models)
    votes = read_votes(VOTES)
    if strange := sorted(({*votes["winner"]} | {*votes["loser"]}) - {*models}):
        raise UserError(f"{VOTES}: holds votes on {strange[0]}; Figure 6 is about {OURS} and {THEIRS}")
    settings = settings_of(params)
    numbers = preference_numbers(scores, votes, settings)
    figure_6(numbers, scores, settings, FIGURES)
    write_json(METRICS / "preference.json", numbers)

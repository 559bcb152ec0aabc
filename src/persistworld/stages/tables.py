"""Write Tables 1 and 2, their metrics and the paired comparisons."""

import argparse

from persistworld.config.params import Params
from persistworld.evaluation.score_table import load_scores
from persistworld.paper.notes import settings_of
from persistworld.paper.tables import write_tables
from persistworld.runtime.workspace import METRICS, SCORES, TABLES


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/tables/table_{1,2}.* and results/metrics/{table_1,table_2,paired,paired_details}.json."""
    models = params.evaluation.models
    scores = load_scores([SCORES / f"{model}.parquet" for model in models], models)
    write_tables(scores, settings_of(params), TABLES, METRICS)
    print((TABLES / "table_1.md").read_text())
    print((TABLES / "table_2.md").read_text())

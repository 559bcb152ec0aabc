"""Write the table, curves and page of one axis of the ablations."""

import argparse
import dataclasses

import yaml

from persistworld.config.checks import require
from persistworld.config.derived import BASE_RUN
from persistworld.config.params import Params
from persistworld.config.reading import nearest
from persistworld.evaluation.score_table import load_scores
from persistworld.paper.ablation_curves import curves_figure
from persistworld.paper.ablations import ablation_table, write_ablation
from persistworld.paper.notes import settings_of
from persistworld.paper.pages import write_page
from persistworld.paper.training_plot import read_training
from persistworld.post_training.cost import post_training_cost
from persistworld.runtime.workspace import ABLATIONS, FIGURES, METRICS, SCORES, TABLES, TRAINING

OPTIONS = {"--axis": {"required": True, "help": "table_3 to table_11, or a name in ablations.axes"}}
CAPTION = (
    "Every line is one training. Left: its reward and its distance from the base over the steps; rewards of different kinds have different "
    "units. Right: how much better than the base it is on held-out episodes, over the frames of the rollout."
)


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/tables/AXIS.*, results/metrics/AXIS.json, results/figures/AXIS.* and results/ablations/AXIS.html."""
    derived, known = params.derived, params.all_models
    require(args.axis in derived.rows, "--axis", args.axis, f"no such axis in ablations; {nearest(args.axis, derived.rows)}")
    axis, rows = derived.axes[args.axis], derived.rows[args.axis]
    models = list(dict.fromkeys([BASE_RUN, *(run for runs in rows.values() for run in runs)]))
    logs = {run: read_training(TRAINING / f"{known[run].checkpoint}.csv") for run in models[1:]}
    evaluations = {run: post_training_cost(params.for_run(run).post_training) for run in models[1:]}
    seconds = {run: float(log.filter(like="seconds_").sum().sum()) for run, log in logs.items()}
    scores, settings = load_scores([SCORES / f"{model}.parquet" for model in models], models), settings_of(params.for_run(BASE_RUN))
    table = ablation_table(args.axis, axis, rows, BASE_RUN, scores, settings, evaluations, seconds)
    blocks, notes = write_ablation(table, scores, settings, TABLES, METRICS)
    lines = {axis.label(row): runs for row, runs in rows.items()}
    curves_figure(table.title, lines, logs, BASE_RUN, scores, settings, FIGURES, args.axis)
    changes = {row: {} if given is None else dataclasses.asdict(given) for row, given in axis.rows.items()}
    write_page(
        ABLATIONS / f"{args.axis}.html", "axis.html", title=table.title, scale=settings.scale, blocks=blocks, notes=notes,
        caption=CAPTION, png=(FIGURES / f"{args.axis}.png").read_bytes(),
        changes=yaml.safe_dump({row: {key: value for key, value in given.items() if value} for row, given in changes.items()}),
    )  # fmt: skip
    print((TABLES / f"{args.axis}.md").read_text())

"""Stage report: results/report.html."""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import yaml

from persistworld.errors import UserError
from persistworld.paper.blocks import table_blocks
from persistworld.paper.cells import claims, make_cells, paired_details
from persistworld.paper.media import MediaReader, ranked_episodes, spread_over
from persistworld.paper.notes import Settings, footnotes, settings_of
from persistworld.paper.report import Page, Picture, Video, environment_facts, read_times, write_report
from persistworld.paper.scores_table import Scores, load_scores
from persistworld.paper.tables import TITLES, comparisons
from persistworld.paper.training_plot import read_training, training_figure
from persistworld.paper.videos import comparison_video
from persistworld.params import Params

RESULTS, CHECKPOINTS = Path("results"), Path("checkpoints")
SHOWN = ("base", "post_trained")
FIGURES = {
    3: "Film strips of the wrist view: the recorded episode, the base model and the post-trained model.",
    4: "Every episode is one bar: how much better the post-trained model is than the base on the same episode.",
    5: "Wrist view: how fidelity falls over the rollout, and the difference from the base.",
    11: "External views: the same.",
}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/report.html from all that the other stages left."""
    models = params.evaluation.models
    scores = load_scores([RESULTS / f"scores/{model}.parquet" for model in models], models)
    settings = settings_of(params)
    options = (settings.bootstrap, settings.confidence, settings.seed)
    cells = make_cells(scores, *options)
    details = paired_details(scores, comparisons(scores.models), *options)
    trained = [model for model in models if (CHECKPOINTS / model).is_dir()]
    page = Page(
        scale=settings.scale,
        protocol=settings.protocol,
        claims=claims(cells, settings.protocol, [("post_trained", "base"), ("post_trained", "teacher_forced")]),
        tables=[(title, table_blocks(cells, details, table, settings)) for table, title in TITLES.items()],
        notes=footnotes(scores, settings),
        pictures=[_picture(number, text) for number, text in FIGURES.items()],
        videos=videos(params, scores, settings),
        training=training(trained, settings),
        times=read_times(RESULTS / "benchmarks"),
        facts=_facts(params, scores),
        parameters=yaml.safe_dump(json.loads(json.dumps(dataclasses.asdict(params))), sort_keys=False),
        manifests={model: _text(CHECKPOINTS / model / "manifest.json") for model in trained},
    )
    write_report(RESULTS / "report.html", page)


def videos(params: Params, scores: Scores, settings: Settings) -> list[Video]:
    """Comparisons at evenly spaced ranks of the wrist view's PSNR gain, the worst and the best among them."""
    reader = MediaReader(params, SHOWN, params.evaluation.seeds[0])
    ranked = ranked_episodes(scores, settings.protocol, "wrist", "full", "psnr")
    found = []
    for episode, rank in spread_over(ranked, params.paper.report_episodes):
        media = reader.read(episode)
        said = f"“{media.instruction}” · " if media.instruction else ""
        gain = f"wrist PSNR {ranked[episode]:+.2f} dB against base"
        caption = f"{said}episode {episode}, seed {reader.seed} · rank {rank} of {len(ranked)} (1 is the worst): {gain}"
        rows = ", ".join(view.replace("_", " ") for view in media.views)
        caption += f" · rows: {rows}"
        found.append(Video(caption, comparison_video(media, list(SHOWN), params.episodes.fps)))
    return found


def training(models: list[str], settings: Settings) -> Picture | None:
    """The training curves of every run that left a log."""
    logs = {model: RESULTS / f"training/{model}.csv" for model in models}
    found = {model: read_training(path) for model, path in logs.items() if path.is_file()}
    if not found:
        return None
    with tempfile.TemporaryDirectory() as folder:
        training_figure(found, Path(folder), f"Scale: {settings.scale}")
        png = (Path(folder) / "training.png").read_bytes()
    return Picture("Training curves", f"One row a run: {', '.join(found)}.", png)


def _picture(number: int, text: str) -> Picture:
    path = RESULTS / f"figures/figure_{number}.png"
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the stage figures first")
    return Picture(f"Figure {number}", text, path.read_bytes())


def _facts(params: Params, scores: Scores) -> dict[str, str]:
    return {
        "Preset": params.preset,
        "Episodes": str(scores.frame["episode"].nunique()),
        "Evaluation seeds": ", ".join(map(str, params.evaluation.seeds)),
        "Training seed": str(params.seed),
        "LPIPS backbone": scores.meta["lpips_backbone"],
        **environment_facts(),
    }


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else "no manifest"

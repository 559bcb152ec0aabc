"""Write the report, one self-contained page: results/report.html."""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from persistworld.config.models import SHOWN, Models
from persistworld.config.params import Params
from persistworld.data.manifest import load_manifest
from persistworld.evaluation.masks import MaskStore
from persistworld.evaluation.score_table import Scores, closest_group, load_scores
from persistworld.paper.blocks import table_blocks
from persistworld.paper.cells import claims, make_cells, paired_details
from persistworld.paper.data_notes import data_notes
from persistworld.paper.figures import over_time
from persistworld.paper.media import Media, MediaReader, ranked_by_object, spread_over
from persistworld.paper.notes import Settings, footnotes, settings_of
from persistworld.paper.overlays import empty_text, mask_sheet
from persistworld.paper.report import Page, Picture, Sheet, Video, environment_facts, read_times, write_report
from persistworld.paper.tables import TITLES, comparisons
from persistworld.paper.training_plot import read_training, training_figure
from persistworld.paper.videos import comparison_video
from persistworld.runtime.errors import UserError
from persistworld.runtime.workspace import BENCHMARKS, CHECKPOINTS, FIGURES, MANIFEST, MASKS, REPORT, SCORES, TRAINING

MASK_FRAMES = 6  # the most columns in a sheet of masks
CAPTIONS = {
    3: "Film strips: recorded, base, post-trained. Largest, median and smallest gain on the object, then the median gain on the robot.",
    4: "Gain of the post-trained model over the base; each bar is one episode.",
    5: "Metrics over the rollout (top) and their difference from the base (bottom), {} view.",
    6: "How often the post-trained model's rollouts are preferred to the base's: by people, if any voted, and by automatic judges.",
    11: "Metrics over the rollout (top) and their difference from the base (bottom), {} view.",
}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/report.html from the results of the other stages."""
    models = params.evaluation.models
    params.evaluation.require_models(SHOWN, "the report and its figures")
    scores = load_scores([SCORES / f"{model}.parquet" for model in models], models)
    settings = settings_of(params)
    options = (settings.bootstrap, settings.confidence, settings.seed)
    cells = make_cells(scores, *options)
    details = paired_details(scores, comparisons(scores.models, settings.models), *options)
    reader = MediaReader(params, SHOWN, params.evaluation.seeds[0], None if params.masks.source == "none" else MaskStore(MASKS))
    group = closest_group(scores.groups)
    region, ranked = ranked_by_object(scores, settings.protocol, group)
    shown = spread_over(ranked, params.paper.report_episodes)
    known = settings.models
    trained = list(dict.fromkeys(known[model].checkpoint for model in known.rolled_out(models)))
    claimed = [(ours, theirs) for ours in known.of_role(models, "post_trained") for theirs in known.of_role(models, "base", "control")]
    page = Page(
        scale=settings.scale,
        protocol=settings.protocol,
        models=known,
        claims=claims(cells, settings.protocol, claimed),
        tables=[(title, table_blocks(cells, details, table, settings)) for table, title in TITLES.items()],
        notes=footnotes(scores, settings),
        pictures=pictures(scores),
        videos=[video(reader, known, episode, rank, ranked, f"{group} {region}") for episode, rank in shown],
        sheets=[sheet(reader, episode) for episode, _ in shown if reader.masks is not None],
        odd=data_notes(load_manifest(MANIFEST), params),
        training=training(trained, settings),
        times=read_times(BENCHMARKS),
        facts=_facts(params, scores),
        parameters=yaml.safe_dump(json.loads(json.dumps(_plain(params))), sort_keys=False),
        manifests={model: _text(CHECKPOINTS / model / "manifest.json") for model in trained},
    )
    write_report(REPORT, page)


def pictures(scores: Scores) -> list[Picture]:
    """The figures of the paper, each with a one-sentence caption."""
    views = over_time(scores.groups)
    return [_picture(number, text.format(views.get(f"figure_{number}"))) for number, text in CAPTIONS.items()]


def video(reader: MediaReader, models: Models, episode: int, rank: int, ranked: pd.Series, cell: str) -> Video:
    """Ground truth, base and post-trained model side by side. `rank`: the episode's, among the gains `ranked` in `cell` (view, region)."""
    media = reader.read(episode)
    gain = f"{cell} PSNR {ranked[episode]:+.2f} dB against base, mean over seeds"
    rows = ", ".join(view.replace("_", " ") for view in media.views)
    caption = f"{_name(media)}, seed {reader.seed} · rank {rank} of {len(ranked)} (1 gains most): {gain} · rows: {rows}"
    return Video(caption, comparison_video(media, [models[name] for name in SHOWN], reader.params.episodes.fps))


def sheet(reader: MediaReader, episode: int) -> Sheet:
    """Frames of every view with their masks."""
    media, params = reader.read(episode), reader.params
    caption = f"{_name(media)} · masks: {reader.masks.source} · {empty_text(media)}"
    return Sheet(caption, mask_sheet(media, min(MASK_FRAMES, params.paper.strip_frames), params.episodes.fps))


def _name(media: Media) -> str:
    return f"“{media.instruction}” · episode {media.episode}" if media.instruction else f"No instruction · episode {media.episode}"


def training(models: list[str], settings: Settings) -> Picture | None:
    """The training curves of every run that has a log. None if there is no log."""
    logs = {model: TRAINING / f"{model}.csv" for model in models}
    found = {model: read_training(path) for model, path in logs.items() if path.is_file()}
    if not found:
        return None
    with tempfile.TemporaryDirectory() as folder:
        training_figure(found, Path(folder), f"Scale: {settings.scale}")
        png = (Path(folder) / "training.png").read_bytes()
    return Picture("Training curves", f"Training curves, one row for each run: {', '.join(found)}.", png)


def _picture(number: int, text: str) -> Picture:
    path = FIGURES / f"figure_{number}.png"
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the stage figures first")
    return Picture(f"Figure {number}", text, path.read_bytes())


def _plain(params: Params) -> dict[str, object]:
    """All sections but those with pages of their own."""
    return {name: value for name, value in dataclasses.asdict(params).items() if name not in ("ablations", "speed")}


def _facts(params: Params, scores: Scores) -> dict[str, str]:
    return {
        "Preset": params.preset,
        "Episodes": str(scores.frame["episode"].nunique()),
        "Evaluation seeds": ", ".join(map(str, params.evaluation.seeds)),
        "Training seed": str(params.seed),
        "LPIPS backbone": scores.meta["lpips_backbone"],
        "Metric convention": scores.meta["convention"],
        **environment_facts(),
    }


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else "no manifest"

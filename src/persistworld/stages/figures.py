"""Draw Figures 3, 4, 5 and 11."""

import argparse

from persistworld.config.models import SHOWN
from persistworld.config.params import Params
from persistworld.evaluation.masks import MaskStore
from persistworld.evaluation.score_table import Scores, closest_group, load_scores, view_group
from persistworld.paper.figures import OVER_TIME, figure_4, figure_over_time
from persistworld.paper.media import MediaReader, ranked_by_object, ranked_episodes, spread_over
from persistworld.paper.notes import Settings, settings_of, short_note
from persistworld.paper.strips import Strip, figure_3
from persistworld.runtime.workspace import FIGURES, MASKS, SCORES


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/figures/figure_{3,4,5,11}.{png,pdf}."""
    models = params.evaluation.models
    params.evaluation.require_models(SHOWN, "figures")
    scores = load_scores([SCORES / f"{model}.parquet" for model in models], models)
    settings = settings_of(params)
    figure_4(scores, settings, FIGURES)
    for name in OVER_TIME:
        figure_over_time(scores, settings, FIGURES, name, params.episodes.fps)
    masks = None if params.masks.source == "none" else MaskStore(MASKS)
    reader = MediaReader(params, SHOWN, params.evaluation.seeds[0], masks)
    note = f"{short_note(scores, settings)}  ·  strips: seed {reader.seed}"
    group = closest_group(scores.groups)
    view = next(view for view in reversed(params.episodes.views) if view_group(view) == group)
    shown = strips(scores, settings, reader, group)
    figure_3(shown, [settings.models[name] for name in SHOWN], params.paper.strip_frames, params.episodes.fps, note, FIGURES, view)


def strips(scores: Scores, settings: Settings, reader: MediaReader, group: str) -> list[Strip]:
    """The episodes with the largest, median and smallest PSNR gain on the object (the smallest may be a loss), and the episode with the
    median gain on the robot. Without masks, the gain is measured on the full frame.
    """
    first, by_object = ranked_by_object(scores, settings.protocol, group)
    shown = [(first, by_object, 3)]
    if first == "object":
        shown.append(("robot", ranked_episodes(scores, settings.protocol, group, "robot", "psnr"), 1))
    found = []
    for region, ranked, count in shown:
        for episode, rank in spread_over(ranked, count):
            rule = f"episode {episode}, rank {rank} of {len(ranked)} by mean PSNR gain: {ranked[episode]:+.2f} dB"
            found.append(Strip(reader.read(episode), region, rule))
    return found

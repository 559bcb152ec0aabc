"""Stage episodes: simulate the tabletop's episodes, or check that the folder with the real ones is there."""

import argparse
import os

from persistworld.data.episodes import open_episodes
from persistworld.data.generation import generate
from persistworld.data.manifest import wanted_indices
from persistworld.params import Params


def main(params: Params, args: argparse.Namespace) -> None:
    settings = params.episodes
    if settings.source == "simulate":
        indices = wanted_indices(settings)
        workers = len(os.sched_getaffinity(0))
        generate(
            settings.path, indices, params.seed, settings.frames, settings.height, settings.width, settings.fps, workers
        )
    print(f"{settings.path}: {len(open_episodes(settings.path).indices())} episodes")

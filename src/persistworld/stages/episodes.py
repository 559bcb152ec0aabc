"""Stage episodes: simulate the tabletop's episodes, or record where the real ones lie."""

import argparse
import os
from pathlib import Path

from persistworld.data.elsewhere import RECORD, write_record
from persistworld.data.episodes import EPISODES, open_episodes
from persistworld.data.generation import generate
from persistworld.data.manifest import wanted_indices
from persistworld.errors import UserError
from persistworld.params import Params


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/episodes/: LeRobot v2.1, or one small file that names and fingerprints the data set elsewhere."""
    settings = params.episodes
    if settings.source == "folder":
        source = open_episodes(settings.path)
        wanted = wanted_indices(settings, source)
        if not wanted:
            raise UserError(f"{settings.path}: none of its {len(source.indices())} episodes is asked for; see episodes.count and .splits")
        write_record(settings.path, len(source.indices()), EPISODES)
        print(f"{settings.path}: {len(source.indices())} episodes, {len(wanted)} of them asked for")
        return
    (Path(settings.path) / RECORD).unlink(missing_ok=True)  # of a run on a data set elsewhere
    workers = len(os.sched_getaffinity(0))
    generate(
        settings.path, wanted_indices(settings), params.seed, settings.frames, settings.height, settings.width, settings.fps, workers
    )
    print(f"{settings.path}: {len(open_episodes(settings.path).indices())} episodes")

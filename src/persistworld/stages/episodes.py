"""Simulate the tabletop episodes, or record where the real ones are."""

import argparse
import shutil
from pathlib import Path

from persistworld.config.params import Params
from persistworld.data.elsewhere import RECORD, write_record
from persistworld.data.formats import open_episodes
from persistworld.data.manifest import wanted_indices
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import user_path
from persistworld.runtime.workspace import EPISODES, RUNS
from persistworld.simulator.generation import generate, refuse_foreign
from persistworld.tools.check import preflight

UNFINISHED = RUNS / "episodes"


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/episodes/: simulated episodes as LeRobot v2.1, or one small file with the path and fingerprint of another data set."""
    settings, page = params.episodes, preflight(params, args.threads)
    if settings.source == "folder":
        source = open_episodes(settings.path, settings.keep_ranges)
        print(page)
        write_record(source.root, len(source.indices()), EPISODES, settings.keep_ranges and user_path(settings.keep_ranges))
        return
    folder = Path(settings.path)
    if folder == EPISODES:
        (folder / RECORD).unlink(missing_ok=True)  # left by a run on another data set
    refuse_foreign(folder)
    # Snakemake removes the partial output of a killed job. Episodes are therefore simulated into a folder that it does not know, and a
    # later run continues there.
    unfinished = UNFINISHED if folder == EPISODES else folder
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not unfinished.exists():
        shutil.move(folder, unfinished)  # keeps its complete episodes; a move, since runs/ may be on another disk
    wanted = wanted_indices(settings)
    if not wanted:
        raise UserError(f"episodes.count = {settings.count}: none of them is in episodes.splits, {', '.join(settings.splits)}; raise it")
    generate(
        unfinished, wanted, params.seed, settings.frames, settings.height, settings.width, settings.fps, args.threads,
        settings.colours, settings.outcomes,
    )  # fmt: skip
    if unfinished != folder:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(unfinished, folder)
    print(f"{settings.path}: {len(open_episodes(settings.path).indices())} episodes")
